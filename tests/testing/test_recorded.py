"""The made-up runs hold what their scenario promises."""

from pathlib import Path
from typing import get_args

import pytest

from mmtool.runlog.reader import RunTables, load_run
from mmtool.testing.recorded import CHANCE, Scenario, write_run


def last(tables: RunTables, modality: str, column: str, split: str = "val") -> float:
    frame = tables.epoch_modalities
    chosen = frame[(frame["modality"] == modality) & (frame["split"] == split)]
    return float(chosen.sort_values("epoch")[column].iloc[-1])


@pytest.mark.parametrize("scenario", get_args(Scenario))
def test_every_scenario_reads_without_a_warning_and_learns(
    tmp_path: Path, scenario: Scenario
) -> None:
    tables = load_run(write_run(tmp_path / "run", scenario=scenario))
    assert tables.warnings == ()
    validation = tables.epochs[tables.epochs["split"] == "val"]["acc"]
    assert validation.iloc[-1] > CHANCE + 0.3
    assert tables.steps["loss"].iloc[-1] < tables.steps["loss"].iloc[0]
    assert len(tables.system) >= 2


def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not(tmp_path: Path) -> None:
    def log(folder: str, seed: int) -> bytes:
        run = write_run(tmp_path / folder / "run", seed=seed, epochs=2)
        return (run / "log" / "rank0.jsonl").read_bytes()

    assert log("a", seed=1) == log("b", seed=1)
    assert log("a2", seed=1) != log("c", seed=2)


def test_a_dominant_image_owns_the_decision_although_audio_has_learnt(tmp_path: Path) -> None:
    tables = load_run(write_run(tmp_path / "run", scenario="image_dominant"))
    assert last(tables, "image", "flip") > 10 * last(tables, "audio", "flip")
    assert last(tables, "audio", "probe") > 0.6


def test_an_overfitting_modality_has_a_rising_validation_loss(tmp_path: Path) -> None:
    tables = load_run(write_run(tmp_path / "run", scenario="overfit"))
    frame = tables.epoch_modalities.query("modality == 'image' and split == 'val'")
    assert frame["nll"].iloc[-1] > 1.1 * frame["nll"].min()
    assert last(tables, "image", "nll", "train") < 0.25 * last(tables, "image", "nll")


def test_a_starved_loader_makes_steps_wait_for_data(tmp_path: Path) -> None:
    steps = load_run(write_run(tmp_path / "run", scenario="data_bound")).steps
    assert steps["ms_data"].sum() > 0.3 * steps["ms_step"].sum()
    healthy = load_run(write_run(tmp_path / "healthy", scenario="balanced")).steps
    assert healthy["ms_data"].sum() < 0.05 * healthy["ms_step"].sum()


def test_a_run_that_was_killed_has_no_end(tmp_path: Path) -> None:
    tables = load_run(write_run(tmp_path / "run", is_finished=False))
    assert tables.end is None
    assert tables.status["state"] == "running"
