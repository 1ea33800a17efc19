"""The time of a step over the run."""

from collections.abc import Callable
from pathlib import Path

import pytest

from mmtool.diagnose.load import open_run
from mmtool.diagnose.metrics.step_series import NUM_PARTS, step_series

Plant = Callable[..., Path]


def test_a_short_run_has_a_part_for_every_step(plant: Plant) -> None:
    series = step_series(open_run(plant(epochs=1)))
    assert [part["step"] for part in series] == list(range(40))
    assert series[0]["p50_ms"] == pytest.approx(264.0)
    assert series[5]["p50_ms"] == series[5]["p95_ms"] == pytest.approx(64.5)


def test_a_long_run_has_a_bounded_number_of_parts_in_order(plant: Plant) -> None:
    series = step_series(open_run(plant(epochs=6)))
    assert len(series) == NUM_PARTS
    steps = [part["step"] for part in series]
    assert steps == sorted(steps)
    assert steps[0] == 0
    assert all(part["p50_ms"] <= part["p95_ms"] for part in series)


def test_a_run_without_timed_steps_has_no_series(plant: Plant) -> None:
    run = plant(epochs=0)
    assert step_series(open_run(run)) == []
