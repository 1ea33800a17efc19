"""Plateaus and what was computed after them, over planted logs whose sums are known."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from mmtool.diagnose.api import diagnose
from mmtool.diagnose.load import open_run
from mmtool.diagnose.metrics.plateau import plateau_table

Plant = Callable[..., Path]
EPOCHS = 10
STEPS = 4
STEP_MS = 100.0
OPTIMIZER_MS = 10.0


def losses(until: int, low: float = 0.2) -> list[float]:
    """A loss that falls by equal steps and lies at its least from an epoch on."""
    return [low + 0.1 * max(0, until - epoch) for epoch in range(EPOCHS)]


def write_log(
    folder: Path,
    nll: dict[str, Sequence[float | None]],
    *,
    probe: dict[str, Sequence[float]] | None = None,
    erank: dict[str, Sequence[float]] | None = None,
    times: dict[str, tuple[float, float]] | None = None,
    head: dict[str, Any] | None = None,
    power_w: float | None = None,
) -> Path:
    """Write a run of ten epochs of four steps of 100 ms each."""
    (folder / "log").mkdir(parents=True)
    lines: list[dict[str, Any]] = [
        {
            "k": "head", "t": 0.0, "schema": "mmtool-log/1.0", "rank": 0, "world": 1, "attempt": 0,
            "modalities": sorted(nll), "classes": ["a", "b"], "num_val": 1000, "device": "cpu",
            "parameters": {"audio": 300, "image": 600, "fusion": 100, "probes": 9000},
            **(head or {}),
        }
    ]  # fmt: skip
    for epoch in range(EPOCHS):
        for place in range(STEPS):
            ms = {"step": STEP_MS, "forward": 20.0, "backward": 50.0, "optimizer": OPTIMIZER_MS}
            m: dict[str, Any] = {name: {"score": 0.5} for name in nll}
            for name, (forward, backward) in (times or {}).items():
                m[name] |= {"forward_ms": forward, "backward_ms": backward}
            step = epoch * STEPS + place
            lines.append({"k": "step", "t": step, "step": step, "epoch": epoch, "ms": ms, "m": m})
        rows = {
            name: {
                "probe": (probe or {}).get(name, [0.8] * EPOCHS)[epoch],
                "probe_nll": values[epoch],
                "erank": (erank or {}).get(name, [6.0] * EPOCHS)[epoch],
            }
            for name, values in nll.items()
        }
        at = {"t": 0.0, "epoch": epoch, "step": (epoch + 1) * STEPS, "split": "val", "n": 1000}
        lines.append({"k": "epoch", **at, "loss": 0.5, "acc": 0.8, "m": rows})
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "log" / "rank0.jsonl").write_text(text, encoding="utf-8")
    (folder / "status.json").write_text('{"state": "done"}', encoding="utf-8")
    if power_w is not None:
        samples = [{"k": "sys", "t": t, "gpus": [{"power_w": power_w}]} for t in range(10)]
        path = folder / "log" / "system.rank0.jsonl"
        path.write_text("".join(json.dumps(s) + "\n" for s in samples), encoding="utf-8")
    return folder


def table(folder: Path, *args: Any, **kwargs: Any) -> dict[str, Any]:
    return plateau_table(open_run(write_log(folder / "run", *args, **kwargs)))


def test_the_plateau_is_the_first_epoch_whose_loss_is_all_but_the_least(tmp_path: Path) -> None:
    found = table(tmp_path, {"audio": losses(2), "image": losses(7)})

    assert (found["audio"]["epoch"], found["image"]["epoch"]) == (2, 7)
    assert found["audio"]["share_of_run"] == pytest.approx(0.3)
    assert found["image"]["share_of_run"] == pytest.approx(0.8)


def test_losses_within_five_percent_and_a_hundredth_are_at_the_plateau(tmp_path: Path) -> None:
    just = [2.0, 1.0 * 1.05 + 0.0101, 1.0 * 1.05 + 0.0099, *[1.0] * 7]

    assert table(tmp_path, {"audio": just})["audio"]["epoch"] == 2


def test_what_came_after_is_counted_by_the_times_of_the_encoder(tmp_path: Path) -> None:
    times = {"audio": (5.0, 20.0), "image": (15.0, 30.0)}
    found = table(tmp_path, {"audio": losses(2), "image": losses(7)}, times=times)

    optimizer = OPTIMIZER_MS * 0.3  # audio has 300 of the 1000 trained parameters
    assert found["audio"]["how"] == "times of this encoder"
    assert found["audio"]["after_share"] == pytest.approx(7 * (5 + 20 + optimizer) / (10 * 100))
    assert found["audio"]["wasted_share"] == pytest.approx(7 * (20 + optimizer) / (10 * 100))
    assert found["audio"]["hours"] == pytest.approx(7 * 4 * (20 + optimizer) / 1e3 / 3600)
    assert found["audio"]["gpu_hours"] is None
    assert found["audio"]["joules"] is None


def test_epochs_in_which_an_encoder_did_not_run_cost_nothing(tmp_path: Path) -> None:
    run = write_log(tmp_path / "run", {"audio": losses(2)}, times={"audio": (5.0, 20.0)})
    log = run / "log" / "rank0.jsonl"
    lines = [json.loads(text) for text in log.read_text(encoding="utf-8").splitlines()]
    for line in lines:
        if line["k"] == "step" and line["epoch"] >= 5:
            line["m"] = {"audio": {"score": 0.5}}
            line["ms"]["optimizer"] = 0.0
    log.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")

    found = plateau_table(open_run(run))["audio"]

    assert found["wasted_share"] == pytest.approx(2 * (20 + 3) / (10 * 100))


def test_a_frozen_encoder_has_a_forward_pass_only(tmp_path: Path) -> None:
    run = write_log(tmp_path / "run", {"audio": losses(2)}, times={"audio": (5.0, 0.0)})
    log = run / "log" / "rank0.jsonl"
    text = log.read_text(encoding="utf-8").replace(', "backward_ms": 0.0', "")
    log.write_text(text.replace('"audio": 300', '"audio": 0'), encoding="utf-8")

    found = plateau_table(open_run(run))["audio"]

    assert found["after_share"] == pytest.approx(7 * 5 / (10 * 100))
    assert found["wasted_share"] == 0.0


def test_without_those_times_the_share_of_the_parameters_stands_for_them(tmp_path: Path) -> None:
    found = table(tmp_path, {"audio": losses(2), "image": losses(7)})["image"]

    assert found["how"] == "its share of the parameters"
    assert found["wasted_share"] == pytest.approx(2 * 0.6 * (50 + 10) / (10 * 100))
    assert found["after_share"] == pytest.approx(2 * 0.6 * (20 + 50 + 10) / (10 * 100))


def test_on_gpus_it_is_gpu_hours_and_joules_of_all_ranks(tmp_path: Path) -> None:
    head = {"device": "cuda:0", "world": 4}
    found = table(tmp_path, {"audio": losses(2)}, head=head, power_w=300.0)["audio"]

    seconds = 4 * 7 * 4 * 0.3 * (50 + 10) / 1e3
    assert found["gpu_hours"] == pytest.approx(seconds / 3600)
    assert found["joules"] == pytest.approx(seconds * 300)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"probe": {"audio": [0.8] * 9 + [0.9]}}, "still rose"),
        ({"probe": {"audio": [0.8] * 9 + [0.7]}}, "fell"),
        ({"erank": {"audio": [6.0] * 9 + [9.0]}}, "effective rank still moved"),
    ],
)
def test_nothing_is_claimed_of_an_encoder_that_still_changed(
    changed: dict[str, Any], said: str, tmp_path: Path
) -> None:
    found = table(tmp_path, {"audio": losses(2)}, **changed)["audio"]

    assert found["is_stable"] is False
    assert said in found["note"]
    assert found["wasted_share"] is found["gpu_hours"] is found["hours"] is None
    assert found["after_share"] > 0


def test_what_moved_before_the_plateau_does_not_matter(tmp_path: Path) -> None:
    ranks = [1.0, 9.0, *[6.0] * 8]

    assert table(tmp_path, {"audio": losses(2)}, erank={"audio": ranks})["audio"]["is_stable"]


def test_one_that_learnt_to_the_end_wasted_nothing(tmp_path: Path) -> None:
    found = table(tmp_path, {"audio": losses(9)})["audio"]

    assert found["share_of_run"] == 1.0
    assert found["wasted_share"] == found["after_share"] == 0.0


def test_epochs_without_a_finite_loss_are_passed_over(tmp_path: Path) -> None:
    values: list[float | None] = [None, *losses(4)[1:]]
    found = table(tmp_path, {"audio": values, "image": [None] * EPOCHS})

    assert found["audio"]["epoch"] == 4
    assert "image" not in found


def test_of_a_regression_the_allowance_is_of_the_variance(tmp_path: Path) -> None:
    """An error of 100 whose R^2 is one half means a variance of 200, hence 2 more are allowed."""
    head = {"task": "regression", "metric": "r2"}
    errors = [150.0, 108.0, 106.5, *[100.0] * 7]
    found = table(tmp_path, {"audio": errors}, probe={"audio": [0.5] * EPOCHS}, head=head)

    assert found["audio"]["epoch"] == 2


@pytest.mark.parametrize("missing", ["ms", "m", "epoch"])
def test_steps_that_lack_a_column_leave_only_the_cost_unknown(missing: str, tmp_path: Path) -> None:
    run = write_log(tmp_path / "run", {"audio": losses(2)})
    log = run / "log" / "rank0.jsonl"
    lines = [json.loads(text) for text in log.read_text(encoding="utf-8").splitlines()]
    for line in lines:
        if line["k"] == "step":
            del line[missing]
    log.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")

    found = plateau_table(open_run(run))["audio"]

    assert found["epoch"] == 2
    if missing == "ms":
        assert found["after_share"] is None
        assert found["how"] == "unknown"


def test_a_head_without_parameters_leaves_the_cost_unknown(tmp_path: Path) -> None:
    found = table(tmp_path, {"audio": losses(2)}, head={"parameters": None})["audio"]

    assert (found["epoch"], found["how"], found["wasted_share"]) == (2, "unknown", None)


def test_an_older_log_has_a_report_all_the_same(plant: Plant) -> None:
    """Logs of before had no effective rank, no encoder times and no counts of parameters."""
    metrics = diagnose([plant()]).metrics

    assert metrics["plateau"].keys() == {"audio", "image"}
    assert metrics["plateau"]["audio"]["wasted_share"] is None
    assert metrics["overhead"] == {}


def test_a_log_without_probes_has_no_plateau(plant: Plant) -> None:
    assert diagnose([plant(omit=("probe", "probe_nll"))]).metrics["plateau"] == {}


def test_a_run_without_a_finished_epoch_has_no_plateau(plant: Plant) -> None:
    assert diagnose([plant(epochs=0, state="running")]).metrics["plateau"] == {}
