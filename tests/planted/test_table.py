"""The confusion table counts what was judged, and says what it cannot."""

from dataclasses import replace

import pytest

from mmtool.testing.planted.__main__ import main
from mmtool.testing.planted.grid import all_cells
from mmtool.testing.planted.problem import HEALTHY, STARVED, Truth
from mmtool.testing.planted.recipe import Setup
from mmtool.testing.planted.runner import Judged
from mmtool.testing.planted.table import (
    alarm_rate,
    confusion_table,
    finer_rate,
    misses_table,
    rate_table,
    right_rate,
    whole_text,
)

VIDEO = frozenset({"video"})
FINE = Judged(
    problem="balanced",
    setup=Setup("mlp", "concat", 0),
    truth=Truth(HEALTHY),
    code="balanced-redundant",
    modalities=frozenset(),
    confidence=0.9,
    runner_up="balanced",
)
STARVING = Judged(
    problem="speed",
    setup=Setup("cnn", "sum", 1),
    truth=Truth(STARVED, VIDEO, finer=frozenset({"under-trained"})),
    code="neglected",
    modalities=VIDEO,
    confidence=0.6,
    runner_up="under-trained:video",
)
ALARM = replace(FINE, code="harmful", modalities=VIDEO, setup=Setup("mlp", "film", 2))
SILENT = replace(FINE, code="inconclusive", confidence=None)
JUDGED = [FINE, STARVING, ALARM, SILENT]


def test_rates_count_right_verdicts_false_alarms_and_finer_points():
    assert right_rate(JUDGED).count == 2
    assert (alarm_rate(JUDGED).count, alarm_rate(JUDGED).total) == (1, 3)
    assert (finer_rate(JUDGED).count, finer_rate(JUDGED).total) == (0, 1)
    assert right_rate([]).in_words() == "none run"


def test_a_silent_verdict_is_wrong_but_no_false_alarm():
    assert not SILENT.is_right
    assert not SILENT.is_false_alarm
    assert ALARM.is_false_alarm


def test_every_problem_has_a_row_with_what_was_said_of_it():
    rows = confusion_table(JUDGED).splitlines()

    assert rows[2] == (
        "| balanced | balanced | 1/3 | balanced-redundant 1, harmful:video 1, inconclusive 1 |"
    )
    assert rows[3] == "| speed | neglected or under-trained:video | 1/1 | neglected:video 1 |"


def test_every_miss_is_listed_with_its_model_and_seed():
    listed = misses_table(JUDGED)

    assert "| balanced | mlp, film | 2 | balanced | harmful:video | 0.90 | balanced |" in listed
    assert "| balanced | mlp, concat | 0 | balanced | inconclusive |  | balanced |" in listed
    assert "speed" not in listed
    assert misses_table([FINE]) == "None."


def test_shares_are_given_by_group_with_intervals():
    table = rate_table(JUDGED, lambda j: j.setup.encoder, "encoder")

    assert "| cnn | 1/1 = 1.000 [0.207, 1.000] | 0/0 |" in table
    assert "| mlp | 1/3 = 0.333" in table


def test_the_file_begins_with_how_it_was_made_and_keeps_further_sections():
    text = whole_text(JUDGED, "Made by hand.", {"Advice": "none tried"})

    assert text.startswith("# Verdicts on planted problems\n\nMade by hand.\n")
    assert "* right: 2/4 = 0.500" in text
    assert text.endswith("## Advice\n\nnone tried\n")


@pytest.mark.parametrize("code", ["under-trained", "neglected"])
def test_an_additive_truth_replaces_the_other_only_where_there_is_one(code):
    assert STARVING.truth.accepts(code, VIDEO)
    assert STARVING.truth.additive is None


def test_the_command_says_how_much_of_the_grid_it_judged(tmp_path, capsys):
    out = tmp_path / "RESULTS.md"
    main(["--only-measured", "--keep", str(tmp_path), "--num-seeds", "1", "--out", str(out)])
    text = out.read_text(encoding="utf-8")

    assert f"0 of {len(all_cells())} cells were run" in text
    assert "* right: none run" in text
    assert str(tmp_path) not in text
    assert capsys.readouterr().out == text
