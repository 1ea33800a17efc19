"""A part of the grid small enough for every test run; `-m planted` runs the whole of it."""

import os
import sys
from pathlib import Path

import pytest

from mmtool.testing.planted.advised import STARVED_CELLS, advice_table, try_advice
from mmtool.testing.planted.grid import (
    ADVICE_SEEDS,
    RANDOM_REPORTING_SEEDS,
    REPORTING_SEEDS,
    SMALL,
    Cell,
    all_cells,
    in_turns,
    judge_cell,
)
from mmtool.testing.planted.random_runs import compare_random, random_table
from mmtool.testing.planted.table import alarm_rate, how_made, right_rate, whole_text

RESULTS = Path(__file__).with_name("RESULTS.md")
SMALL_SEED = 0
NUM_SEEDS = int(os.environ.get("MMTOOL_PLANTED_SEEDS", "2"))
LEAST_RIGHT = 0.98
LEAST_AGREEING = 0.90


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    """Where measured runs are kept: MMTOOL_PLANTED_RUNS, so that a grid can be continued."""
    given = os.environ.get("MMTOOL_PLANTED_RUNS")
    return Path(given) if given else tmp_path_factory.mktemp("planted")


@pytest.mark.parametrize("name", SMALL)
def test_a_planted_problem_gets_the_verdict_that_is_true_of_it(name, tmp_path):
    fusion = "attention" if name == "xor" else "concat"
    one = judge_cell(Cell(name, "mlp", fusion), SMALL_SEED, tmp_path)

    assert one.is_right, f"said {one.said}, true is {one.truth.in_words()}"


@pytest.mark.planted
def test_the_whole_grid_is_right_and_raises_no_false_alarm(runs, capsys):
    seeds = REPORTING_SEEDS[:NUM_SEEDS]
    judged = [judge_cell(cell, seed, runs) for cell, seed in in_turns(all_cells(), seeds)]
    compared = [compare_random(seed, runs / "random") for seed in RANDOM_REPORTING_SEEDS]
    trials = [
        trial
        for cell, seed in in_turns(STARVED_CELLS, ADVICE_SEEDS)
        for trial in try_advice(cell, seed, runs / "advice")
    ]
    extra = {
        "Randomly drawn problems": random_table(compared),
        "Doing what was advised": advice_table(trials),
    }
    about = how_made("python -m pytest -m planted", seeds, len(judged), len(judged))
    text = whole_text(judged, about, extra)
    RESULTS.write_text(text, encoding="utf-8")
    with capsys.disabled():
        sys.stdout.write(text)

    right, alarms = right_rate(judged), alarm_rate(judged)
    assert alarms.count == 0, text
    assert right.count >= LEAST_RIGHT * right.total, text
    assert sum(c.agrees for c in compared) >= LEAST_AGREEING * len(compared), text
    assert {t.cell for t in trials} == set(STARVED_CELLS), "some starved problem got no advice"
    for cell in STARVED_CELLS:
        of_cell = [t for t in trials if t.cell == cell]
        assert mean_gain(of_cell, "probe") > 0, text
        assert mean_gain(of_cell, "fused") >= 0, text


def mean_gain(trials, name):
    gains = [getattr(t.after, name) - getattr(t.before, name) for t in trials]
    return sum(gains) / len(gains)
