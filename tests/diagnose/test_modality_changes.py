"""What changed about each modality, and how the verdicts did."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmtool.diagnose.api import diagnose
from mmtool.diagnose.changes import Group
from mmtool.diagnose.modality_changes import modality_changes, verdict_change
from mmtool.diagnose.paired import Answers
from mmtool.runlog.predictions import Predictions, write_predictions

Plant = Callable[..., Path]
NO_ANSWERS = Answers("val", {}, {}, {}, 0)


def report(share: float, probe: float, half: float = 0.02) -> dict[str, Any]:
    def known(value: float) -> dict[str, float]:
        return {"value": value, "low": value - half, "high": value + half}

    return {"metrics": {"answers": {
        "audio": {"reliance": known(share), "informativeness": known(probe)},
        "image": {"reliance": known(1 - share)},
    }}}  # fmt: skip


def groups(before: int, after: int) -> tuple[Group, Group]:
    none = {"val": (), "test": ()}
    one = Group("none", tuple(range(before)), none, {})
    return one, Group("ogm", tuple(range(before, before + after)), none, {})


def changes(reports: list[dict[str, Any]], num_before: int) -> dict[str, dict[str, Any]]:
    base, other = groups(num_before, len(reports) - num_before)
    return modality_changes(base, other, reports, NO_ANSWERS)


def test_what_one_seed_may_do_by_itself_is_no_change() -> None:
    found = changes([report(0.30, 0.60), report(0.38, 0.62)], 1)
    assert found["audio"]["reliance"]["wording"] == "no change detected"
    assert found["audio"]["informativeness"]["wording"] == "no change detected"


def test_what_three_seeds_agree_on_is_a_change() -> None:
    before = [report(s, 0.60 + s / 100) for s in (0.28, 0.30, 0.32)]
    after = [report(s, 0.70 + s / 100) for s in (0.44, 0.46, 0.48)]
    found = changes([*before, *after], 3)["audio"]
    assert found["reliance"]["wording"] == "rose"
    assert found["reliance"]["difference"] == pytest.approx(0.16)
    assert found["informativeness"]["wording"] == "improved"
    low, high = found["informativeness"]["ci95"]
    assert 0 < low < 0.1 < high


def test_an_image_that_is_relied_on_less_fell_and_got_no_worse() -> None:
    before, after = [report(0.2, 0.6)] * 3, [report(0.5, 0.6)] * 3
    found = changes([*before, *after], 3)["image"]
    assert found["reliance"]["wording"] == "fell"
    assert set(found) == {"reliance"}


def test_a_modality_that_only_one_of_the_groups_has_is_left_out() -> None:
    other = report(0.5, 0.5)
    del other["metrics"]["answers"]["audio"]
    assert "audio" not in changes([report(0.5, 0.5), other], 1)


@pytest.mark.parametrize(("before", "after"), [(1, 1), (2, 1), (2, 2), (3, 3), (5, 3)])
def test_no_change_is_found_in_nineteen_of_twenty_pairs_of_equal_groups(
    before: int, after: int
) -> None:
    rng = np.random.default_rng(5)
    found = []
    for _ in range(300):
        shares = rng.normal(0.4, 0.05, before + after)
        probes = rng.normal(0.6, 0.01, before + after)
        reports = [report(s, p, half=0.01) for s, p in zip(shares, probes, strict=True)]
        row = changes(reports, before)["audio"]
        found += [row[q]["wording"] != "no change detected" for q in row]
    assert np.mean(found) < 0.08


def test_a_large_change_is_found_although_only_one_group_has_two_seeds() -> None:
    found = changes([report(0.18, 0.6), report(0.20, 0.61), report(0.55, 0.9)], 2)["audio"]
    assert found["reliance"]["wording"] == "rose"
    assert found["informativeness"]["wording"] == "improved"


def with_answers(run: Path, right: dict[str, float]) -> Path:
    n, rng = 400, np.random.default_rng(3)
    label = rng.integers(0, 6, n)
    chance = rng.random(n)

    def answer(rate: float) -> np.ndarray:
        return np.where(chance < rate, label, (label + 1) % 6).astype(np.int64)

    head = {"dataset_hash": "abc123", "protocol": None, "split": "val", "task": "single_label"}
    write_predictions(run, Predictions(
        head={**head, "classes": [str(i) for i in range(6)], "modalities": sorted(right)},
        row=np.arange(n), id=np.array([f"c{i}" for i in range(n)]), group=np.arange(n),
        label=label, answer=answer(0.8), loss=np.zeros(n, dtype=np.float32),
        answers={m: answer(rate) for m, rate in right.items()},
        present={m: np.ones(n, dtype=bool) for m in right},
    ))  # fmt: skip
    return run


def test_scores_by_own_logits_are_compared_answer_by_answer(plant: Plant) -> None:
    before = with_answers(plant("none0"), {"audio": 0.60, "image": 0.7})
    after = with_answers(plant("ogm0", method="ogm"), {"audio": 0.66, "image": 0.7})
    change = diagnose([before, after]).metrics["comparison"]["changes"][0]
    own = change["modalities"]["audio"]["own score"]
    assert own["difference"] == pytest.approx(own["after"] - own["before"])
    assert own["wording"] == "improved"
    assert change["modalities"]["image"]["own score"]["wording"] == "no change detected"
    # Unpaired, 400 samples would leave an interval of more than 0.13.
    assert own["ci95"][1] - own["ci95"][0] < 0.09


def test_a_verdict_that_changed_is_told_with_the_runs_that_have_it() -> None:
    before, after = {"neglected audio": 3}, {"balanced": 2, "neglected audio": 1}
    said = verdict_change(before, after)
    assert said == (
        "verdict neglected audio (3 of 3 runs) before, balanced (2 of 3 runs), "
        "neglected audio (1 of 3 runs) now"
    )
    assert verdict_change(after, {"balanced": 1}) is None


def test_a_comparison_tells_the_verdict_of_every_group(plant: Plant) -> None:
    unbalanced = {"audio": "ignored", "image": "dominant"}
    found = diagnose([plant("a", modalities=unbalanced), plant("b", method="ogm")])
    rows = found.metrics["comparison"]["groups"]
    assert [len(row["verdicts"]) for row in rows] == [1, 1]
    assert rows[0]["verdicts"] != rows[1]["verdicts"]
    assert found.metrics["comparison"]["changes"][0]["verdict_change"]
