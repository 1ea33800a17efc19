import io
import json
import math
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmtool.cli.output import GLYPHS, Output, align, plain_data, wants_color
from mmtool.errors import Problem, RecipeError, RequestError


class Stream(io.TextIOWrapper):
    def __init__(self, encoding="utf-8", terminal=False):
        super().__init__(io.BytesIO(), encoding=encoding)
        self._terminal = terminal

    def isatty(self):
        return self._terminal

    def text(self):
        self.flush()
        return self.buffer.getvalue().decode(self.encoding)


@pytest.fixture
def streams(monkeypatch):
    def make(encoding="utf-8", terminal=False):
        out, err = Stream(encoding, terminal), Stream(encoding, terminal)
        monkeypatch.setattr("sys.stdout", out)
        monkeypatch.setattr("sys.stderr", err)
        return out, err

    return make


@pytest.mark.parametrize(
    ("choice", "terminal", "environ", "expected"),
    [
        ("auto", True, {}, True),
        ("auto", False, {}, False),
        ("auto", True, {"NO_COLOR": "1"}, False),
        ("auto", True, {"NO_COLOR": ""}, True),
        ("auto", True, {"TERM": "dumb"}, False),
        ("auto", False, {"FORCE_COLOR": "1"}, True),
        ("auto", True, {"NO_COLOR": "1", "FORCE_COLOR": "1"}, False),
        ("always", False, {"NO_COLOR": "1"}, True),
        ("never", True, {"FORCE_COLOR": "1"}, False),
    ],
)
def test_colour_follows_the_option_then_the_environment_then_the_terminal(
    choice, terminal, environ, expected
):
    assert wants_color(choice, Stream(terminal=terminal), environ) is expected


def test_only_the_result_reaches_stdout(streams):
    out, err = streams()
    output = Output(environ={})

    output.info("working")
    output.warning("careful")
    output.hint("try this")
    output.result("mmtool.test/1", {}, "the result")

    assert out.text() == "the result\n"
    assert err.text() == "working\nwarning: careful\nhint: try this\n"


def test_quiet_keeps_results_and_errors_only(streams):
    out, err = streams()
    output = Output(quiet=True, environ={})

    output.info("working")
    output.warning("careful")
    output.hint("try this")
    output.error(RequestError("it is wrong", fix="do that"))
    output.result("mmtool.test/1", {}, "the result")

    assert out.text() == "the result\n"
    assert err.text() == "error: it is wrong\n  fix: do that\n"


def test_brackets_that_look_like_markup_stay_in_the_text(streams):
    out, _ = streams()

    Output(environ={}).text("recipe [train] lr [/train] :smile:")

    assert out.text() == "recipe [train] lr [/train] :smile:\n"


def test_json_is_one_document_and_a_later_error_goes_to_stderr(streams):
    out, err = streams()
    output = Output(as_json=True, environ={})

    output.result("mmtool.test/1", {"path": Path("a/b")}, "text")
    output.error(RequestError("afterwards"))

    assert json.loads(out.text()) == {"schema": "mmtool.test/1", "ok": True, "path": "a/b"}
    assert err.text() == "error: afterwards\n"


def test_a_recipe_error_carries_its_problems_into_json(streams):
    out, _ = streams()
    problem = Problem(("train", "lr"), "not a number", "remove the quotes")
    error = RecipeError("1 problem", problems=[problem], rendered="error: ...\n  --> a.toml:1:1")

    Output(as_json=True, environ={}).error(error)

    document = json.loads(out.text())
    assert document["schema"] == "mmtool.error/1"
    assert document["ok"] is False
    assert document["exit_code"] == 2
    assert document["error"]["what"] == "1 problem"
    assert document["error"]["problems"][0]["path"] == ["train", "lr"]


def test_a_recipe_error_is_shown_as_rendered_before_its_summary(streams):
    _, err = streams()
    rendered = "error: unknown key 'alpah'\n  --> a.toml:1:1"

    Output(environ={}).error(RecipeError("1 problem; nothing was started", rendered=rendered))

    assert err.text() == f"{rendered}\n\nerror: 1 problem; nothing was started\n"


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1"])
def test_every_glyph_has_a_form_for_narrow_streams(streams, encoding):
    out, _ = streams(encoding)
    output = Output(environ={})

    for name, (fancy, plain) in GLYPHS.items():
        assert output.glyph(name) in (fancy, plain)
        output.text(output.glyph(name))
    output.text("σ → ✓ ▁▇")

    assert "->" in out.text()
    assert "OK" in out.text()


def test_a_stream_that_can_show_glyphs_gets_them(streams):
    streams("utf-8")

    assert Output(environ={}).glyph("ok") == "✓"


def test_coloured_errors_keep_their_words(streams):
    _, err = streams(terminal=True)

    Output(environ={"TERM": "xterm"}).error(RequestError("wrong"))

    assert "\x1b[" in err.text()
    assert "error: " in err.text()
    assert "wrong" in err.text()


def test_a_table_is_cut_on_a_terminal_but_not_in_a_pipe(streams, monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    rows = [("ogm", "x" * 60)]
    pipe, _ = streams(terminal=False)
    Output(environ={}).table("mmtool.test/1", {}, rows)
    terminal, _ = streams(terminal=True)
    Output(environ={}).table("mmtool.test/1", {}, rows)

    assert pipe.text() == f"ogm  {'x' * 60}\n"
    assert terminal.text().rstrip("\n") == "ogm  xxxxxxxxxxxx..."


cells = st.text(st.characters(blacklist_categories=["C", "Z"]), max_size=8)


@given(st.lists(st.tuples(cells, cells, cells), min_size=1, max_size=6))
def test_columns_start_at_the_same_place_in_every_row(rows):
    lines = align(rows)

    starts = max(len(row[0]) for row in rows) + 2
    assert len(lines) == len(rows)
    for row, line in zip(rows, lines, strict=True):
        assert line[starts:].startswith(row[1])
        assert line == line.rstrip()


@dataclass
class Point:
    at: tuple[int, int]
    value: float


json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
    max_leaves=8,
)


@given(json_like)
def test_plain_data_is_always_strict_json(value):
    json.dumps(plain_data(value), allow_nan=False)


def test_plain_data_keeps_numbers_and_drops_what_json_cannot_say():
    import numpy as np

    found = plain_data({"p": Point((1, 2), math.inf), "n": np.float32(0.5), "s": {3}})

    assert found == {"p": {"at": [1, 2], "value": None}, "n": 0.5, "s": [3]}
