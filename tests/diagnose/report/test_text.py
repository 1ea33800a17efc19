"""The report as text: a panel, or plain lines; both fit and neither breaks what is to be pasted."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmtool.cli.report_panel import render_panel
from mmtool.diagnose.api import diagnose
from mmtool.diagnose.report.modality_table import modality_table
from mmtool.diagnose.report.terminal import render
from mmtool.diagnose.report.text_style import TextStyle, bar, cells, is_command, sparkline

Plant = Callable[..., Path]
Example = Callable[..., dict[str, Any]]
Renderer = Callable[..., str]
BOTH = pytest.mark.parametrize("drawn", [render, render_panel], ids=["plain", "panel"])


def text(drawn: Renderer, report: dict[str, Any], **manner: Any) -> str:
    return drawn(report, **{"width": 100, "unicode": True, "colour": False, **manner})


@BOTH
@pytest.mark.parametrize("width", [50, 72, 100, 160])
def test_no_line_is_wider_than_the_terminal_apart_from_commands(
    drawn: Renderer, example: Example, width: int
) -> None:
    shown = text(drawn, example(), width=width, unicode=False)
    assert shown.isascii()
    prose = [line for line in shown.splitlines() if not line.strip().startswith(("mmtool", "#"))]
    assert max(map(len, prose)) <= width


@BOTH
def test_a_command_is_not_broken_over_lines(drawn: Renderer, example: Example) -> None:
    report = example(4)
    report["findings"][1]["advice"] = command = "mmtool train " + "-s a.b=1 " * 20 + "end"
    assert command in text(drawn, report, width=60)


@pytest.mark.parametrize(
    ("line", "is_pasted"),
    [
        ("mmtool train x", True),
        ('callback = MMCallback("runs/mine")', True),
        ("Trainer(..., callbacks=[callback])", True),
        ("from mmtool.integrations.hf import MMTrainerCallback", True),
        ("[method]", True),
        ("fewer jobs at a time, fewer threads (-s launch.threads=1)", False),
        ("from then on, no modality is ahead", False),
        ("needed: at least one finished step", False),
    ],
)
def test_lines_to_paste_are_told_from_sentences(line: str, is_pasted: bool) -> None:
    assert is_command(line) == is_pasted


@BOTH
def test_a_recipe_patch_can_be_pasted_as_it_stands(drawn: Renderer, example: Example) -> None:
    shown = text(drawn, example(4), width=60)
    assert re.search(r'^ *\[method\]\n *name = "ogm"\n *alpha = 0\.8$', shown, re.MULTILINE)


@BOTH
def test_colour_is_used_only_when_asked(drawn: Renderer, example: Example) -> None:
    assert "\x1b" not in text(drawn, example(4))
    assert "\x1b[" in text(drawn, example(4), colour=True)


@BOTH
def test_the_words_are_the_same_with_and_without_colour(drawn: Renderer, example: Example) -> None:
    coloured = re.sub(r"\x1b\[[\d;]*m", "", text(drawn, example(4), colour=True))
    squeezed = [line.rstrip() for line in coloured.splitlines()]
    assert squeezed == text(drawn, example(4)).splitlines()


@BOTH
def test_control_characters_do_not_reach_the_terminal(drawn: Renderer, plant: Plant) -> None:
    report = diagnose([plant(modalities={"audio\x1b[2J": "ignored", "image": "dominant"})])
    assert "\x1b" not in text(drawn, report.as_dict())


@BOTH
def test_everything_of_the_verdict_is_told(drawn: Renderer, example: Example) -> None:
    shown = " ".join(text(drawn, example(4)).replace("│", " ").split())
    for said in ("confidence 0.93", "runner-up low-information video 0.05", "since epoch 7"):
        assert said in shown
    for said in ("mmtool.diagnose/1", "rules version 1", "seed 0", "1000 validation samples"):
        assert said in shown
    assert "p50 61.0, p95 80.0" in shown


@BOTH
def test_a_report_without_anything_is_still_shown(drawn: Renderer) -> None:
    assert "Nothing is known" in text(drawn, {"run": "empty", "verdict": "nothing is known"})


@BOTH
@pytest.mark.parametrize("state", ["running", "failed"])
def test_a_run_that_did_not_finish_says_so(drawn: Renderer, plant: Plant, state: str) -> None:
    shown = text(drawn, diagnose([plant(state=state)]).as_dict())
    assert "logged so far" in " ".join(shown.replace("│", " ").split())


@BOTH
def test_a_comparison_names_changes_and_differences(drawn: Renderer, plant: Plant) -> None:
    report = diagnose([plant("first"), plant("second", method="ogm", acc=0.9)]).as_dict()
    shown = text(drawn, report)
    assert "method.name = none | ogm" in shown
    assert "improved" in shown


def test_the_panel_without_unicode_is_drawn_in_ascii(example: Example) -> None:
    shown = text(render_panel, example(4), unicode=False)
    assert shown.isascii()
    assert shown.startswith("+-")


def test_columns_are_dropped_by_priority_until_the_table_fits(example: Example) -> None:
    heads = [modality_table(example(4), TextStyle(w, True, False))[0] for w in (200, 90, 60, 40)]
    assert [len(head) for head in heads] == sorted((len(head) for head in heads), reverse=True)
    assert {"J", "ms/step", "gap", "solo", "learning (val)"} <= set(heads[0])
    assert "J" not in heads[1]
    assert heads[-1][0] == "modality"
    assert heads[-1][-1] == "reliance"


def test_a_column_that_nothing_is_known_of_is_not_shown(plant: Plant) -> None:
    head = modality_table(diagnose([plant()]).as_dict(), TextStyle(200, True, False))[0]
    assert "solo" not in head
    assert "J" not in head
    assert "probe" in head


def test_wide_characters_take_two_cells() -> None:
    assert cells("音声") == 4
    assert cells("é") == 1


@given(st.lists(st.floats(0, 1), max_size=60))
def test_a_sparkline_has_at_most_sixteen_cells(values: list[float]) -> None:
    assert len(sparkline(values, unicode=True)) == min(len(values), 16)


def test_a_bar_is_full_only_for_everything() -> None:
    assert bar(1.0, unicode=False) == "##########"
    assert bar(0.97, unicode=False) == "#########."
    assert bar(0.0, unicode=False) == ".........."
