"""Several runs side by side."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from mmtool.diagnose.api import diagnose
from mmtool.errors import RequestError

Plant = Callable[..., Path]


def runs_of(plant: Plant, method: str, accs: list[float]) -> list[Path]:
    return [plant(f"{method}{i}", method=method, acc=a, seed=i) for i, a in enumerate(accs)]


def test_a_clear_gain_over_three_seeds_is_called_improved(plant: Plant) -> None:
    paths = runs_of(plant, "none", [0.70, 0.71, 0.69]) + runs_of(plant, "ogm", [0.78, 0.79, 0.77])
    report = diagnose(paths)
    table = report.metrics["comparison"]
    assert "improved" in report.verdict
    assert [group["num_seeds"] for group in table["groups"]] == [3, 3]
    assert set(table["differing"]) == {"method.name", "train.seed"}
    assert table["changes"][0]["acc_difference"] == pytest.approx(0.08, abs=0.01)


def test_a_loss_is_a_warning(plant: Plant) -> None:
    paths = runs_of(plant, "none", [0.78, 0.79, 0.77]) + runs_of(plant, "ogm", [0.70, 0.71, 0.69])
    assert [f.severity for f in diagnose(paths).findings] == ["warn"]


def test_a_difference_within_the_noise_of_one_seed_is_no_change(plant: Plant) -> None:
    report = diagnose(runs_of(plant, "none", [0.75]) + runs_of(plant, "ogm", [0.77]))
    assert "no change detected" in report.verdict
    assert any("three seeds" in limit for limit in report.limits)


def test_runs_of_different_datasets_are_refused(plant: Plant) -> None:
    with pytest.raises(RequestError, match="different datasets"):
        diagnose([plant("a"), plant("b", dataset_hash="other")])


def test_naming_a_run_twice_is_one_run(plant: Plant) -> None:
    run = plant()
    assert diagnose([run, run]).run == "run"


def test_times_from_a_busy_machine_are_left_out_and_counted(plant: Plant) -> None:
    paths = runs_of(plant, "none", [0.75, 0.75]) + runs_of(plant, "ogm", [0.75])
    times = {"none0": 60.0, "none1": 20.0, "ogm0": 30.0}
    for path in paths:
        busy = 80.0 if path.name == "none0" else 5.0
        lines = [{"k": "sys", "t": 1e9 + s, "cpu_percent": 99, "psi_cpu": busy} for s in range(60)]
        (path / "log" / "system.rank0.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
        status = {"state": "done", "reason": "", "attempt": 0, "seconds": times[path.name]}
        (path / "status.json").write_text(json.dumps(status))
    report = diagnose(paths)
    table = report.metrics["comparison"]

    assert [row["contended"] for row in table["runs"]] == [True, False, False]
    assert table["groups"][0]["seconds"] == 20.0
    assert table["changes"][0]["training_time_relative"] == pytest.approx(0.5)
    assert any("times of 1 of 3 runs are left out" in limit for limit in report.limits)
    alone = diagnose([paths[0], paths[2]])
    assert "training_time_relative" not in alone.metrics["comparison"]["changes"][0]
    assert "step time" not in alone.verdict
