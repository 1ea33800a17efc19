"""How sure a verdict is: nearly certain far from every threshold, a coin toss on one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmtool.diagnose.api import diagnose
from mmtool.diagnose.load import open_run
from mmtool.diagnose.metrics.balance import compute_balance
from mmtool.diagnose.verdict.case import read_case
from mmtool.diagnose.verdict.resamples import has_clusters, resamples
from mmtool.runlog.deep import DeepRecord

Make = Callable[..., DeepRecord]
DeepRun = Callable[..., Path]


def verdict(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = diagnose([run]).metrics["verdict"]
    return found


def starved(make: Make, headroom: float, **about: Any) -> DeepRecord:
    return make(
        {"audio": 0.03, "image": 0.8},
        probe={"audio": 0.6, "image": 0.85},
        headroom={"audio": headroom, "image": 0.85},
        **about,
    )


def test_far_from_every_threshold_all_resamples_agree(make: Make, deep_run: DeepRun) -> None:
    found = verdict(deep_run(starved(make, 0.85)))
    assert found["confidence"] == 1.0
    assert found["runner_up"] is None
    assert found["tally"] == {"under-trained:audio": 1.0}


def test_on_a_threshold_half_of_the_resamples_say_something_else(
    make: Make, deep_run: DeepRun
) -> None:
    # 0.59 is 0.6 of what the other reaches above chance.
    at_the_border = 0.125 + 0.6 * (0.9 - 0.125)
    both = {"audio": at_the_border, "image": 0.9}
    record = make({"audio": 0.03, "image": 0.8}, probe=both, headroom=both)
    found = verdict(deep_run(record))
    sides = {"neglected:audio", "low-information:audio"}
    assert 0.3 < found["confidence"] < 0.7
    assert sides <= set(found["tally"])
    assert sum(found["tally"][side] for side in sides) > 0.95
    runner_up = found["runner_up"]
    assert f"{runner_up['code']}:{runner_up['modalities'][0]}" in sides
    assert runner_up["confidence"] == pytest.approx(1 - found["confidence"], abs=0.05)


def test_the_lower_end_of_an_interval_is_asked_for_on_every_resample(
    make: Make, deep_run: DeepRun
) -> None:
    # Three samples in a hundred differ: the gap is 0.031 +- 0.011, its lower end on the bound.
    found = verdict(deep_run(starved(make, 0.631)))
    assert 0.2 < found["tally"]["under-trained:audio"] < 0.9
    assert found["tally"]["under-trained:audio"] + found["tally"]["neglected:audio"] == (
        pytest.approx(1.0)
    )


def test_the_same_record_gives_the_same_confidence_again(make: Make, deep_run: DeepRun) -> None:
    run = deep_run(starved(make, 0.631))
    assert verdict(run)["tally"] == verdict(run)["tally"]


def test_samples_that_were_copied_within_groups_make_every_interval_wider(
    make: Make, deep_run: DeepRun
) -> None:
    few = starved(make, 0.7, n=250)
    copied = {
        name: np.repeat(array, 4, axis=-1) if array.shape[-1] == 250 else array
        for name, array in few.arrays.items()
    }
    copied["row"], copied["present"] = np.arange(1000), np.repeat(few.arrays["present"], 4, axis=0)
    copied["id"] = np.array([f"s{i}" for i in range(1000)])
    for name in ("emap.row", "emap.right", "emap.full_right", "emap.gain", "emap.full_gain"):
        copied.pop(name)

    def width(name: str, group: np.ndarray) -> tuple[float, dict[str, Any]]:
        run = deep_run(DeepRecord(few.head, copied | {"group": group}), name=name)
        report = diagnose([run])
        gap = report.metrics["answers"]["audio"]["informativeness"]["gap"]
        clusters: dict[str, Any] = report.metrics["verdict"]["clusters"]
        return gap["high"] - gap["low"], clusters

    by_group, how = width("groups", np.repeat(np.arange(250), 4))
    by_sample, other = width("samples", np.arange(1000))
    assert how == {"kind": "group", "n": 250}
    assert other == {"kind": "sample", "n": 1000}
    assert by_group == pytest.approx(2 * by_sample, rel=0.15)


@pytest.mark.parametrize(
    ("group", "expected"),
    [
        (np.arange(100), False),  # everyone alone
        (np.repeat(np.arange(4), 25), False),  # too few groups
        (np.repeat(np.arange(20), 5), True),
    ],
)
def test_groups_are_drawn_whole_only_where_there_are_enough_of_them(
    group: np.ndarray, expected: bool
) -> None:
    assert has_clusters(group) is expected
    drawn = resamples(group, 50)
    assert drawn.kind == ("group" if expected else "sample")
    same = [np.ptp(drawn.weight[:, group == g], axis=1).max() == 0 for g in np.unique(group)]
    assert all(same) is (expected or len(np.unique(group)) == len(group))
    if expected:
        assert drawn.weight[1:].sum(axis=1) == pytest.approx(100, rel=0.5)
    else:
        assert (drawn.weight.sum(axis=1) == 100).all()


def test_means_leave_out_what_is_not_known() -> None:
    drawn = resamples(np.arange(6), 20)
    values = np.array(
        [[1.0, 1.0], [1.0, np.nan], [1.0, 0.0], [1.0, np.nan], [1.0, 1.0], [1.0, 0.0]]
    )
    means = drawn.means(values)
    assert means.shape == (21, 2)
    assert means[:, 0] == pytest.approx(1.0)
    assert means[0, 1] == pytest.approx(0.5)


def test_the_interval_of_a_share_of_nothing_stays_open_at_one_side(
    make: Make, deep_run: DeepRun
) -> None:
    record = make({"audio": 0.0, "image": 0.8}, probe={"audio": 0.6, "image": 0.85})
    run = open_run(deep_run(record))
    share = read_case(run, compute_balance(run, {}), {}).case.estimate("share", "audio")
    assert share is not None
    assert 0 <= share.low <= share.value < 0.002 < share.high < 0.05


def test_from_the_log_a_share_near_its_bound_is_unsure_and_one_far_from_it_sure(
    plant: Callable[..., Path],
) -> None:
    dominated = {"audio": "ignored", "image": "dominant"}
    sure = verdict(plant("sure", modalities=dominated, num_val=5000))
    unsure = verdict(plant("unsure", modalities=dominated, num_val=210, epochs=3))
    assert sure["confidence"] > 0.95
    assert unsure["confidence"] < sure["confidence"]
