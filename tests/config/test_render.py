"""Problems are drawn under the text they concern."""

from pathlib import Path

from mmtool.config.locate import Span
from mmtool.config.render import Spot, Trouble, render, shown
from mmtool.errors import Problem


def block(line: str, span: Span, fix: str = "") -> list[str]:
    spot = Spot("x.toml", 0, span, line)
    return render([Trouble(Problem((), "wrong", fix), spot)]).splitlines()


def test_the_caret_stands_under_the_text_also_after_a_tab_or_wide_letters():
    assert block("\ta = 1", Span(3, 6, 1))[-1] == "  | \t    ^"
    assert block('a = "日本" # x', Span(3, 5, 4))[-1] == "  |     ^^^^^^"
    assert block('"日本" = 1', Span(3, 8, 1))[-1] == "  |          ^"


def test_the_gutter_is_as_wide_as_the_line_number():
    assert block("a = 1", Span(1234, 1, 1))[2:] == ["1234 | a = 1", "     | ^"]


def test_a_span_of_nothing_still_has_a_caret():
    assert block("a =", Span(1, 4, 0))[-1] == "  |    ^"


def test_a_help_of_several_lines_is_aligned():
    assert block("a", Span(1, 1, 1), "add\n[x]")[-2:] == ["  help: add", "        [x]"]


def test_a_spot_without_a_span_names_the_whole_file():
    text = render([Trouble(Problem((), "wrong"), Spot("x.toml"))])
    assert text == "error: wrong\n  --> x.toml"


def test_problems_are_sorted_by_source_line_and_column():
    spots = [
        Spot("command line: -s a=1", 2),
        Spot("base.toml", 1, Span(1, 1, 1), "a"),
        Spot("x.toml", 0, Span(10, 1, 1), "a"),
        Spot("x.toml", 0, Span(9, 7, 1), "a"),
        Spot("x.toml", 0, Span(9, 2, 1), "a"),
        Spot("x.toml", 0),
    ]
    text = render([Trouble(Problem((), "wrong"), spot) for spot in spots])
    shown_at = [line for line in text.splitlines() if "-->" in line]
    assert shown_at[0] == "  --> x.toml"
    assert [line.split("--> ")[1] for line in shown_at[1:]] == [
        "x.toml:9:2",
        "x.toml:9:7",
        "x.toml:10:1",
        "base.toml:1:1",
        "command line: -s a=1",
    ]


def test_paths_below_the_current_folder_are_shown_relative(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert shown(Path("a/b.toml")) == "a/b.toml"
    assert shown(tmp_path / "a.toml") == "a.toml"
    assert shown(tmp_path.parent / "a.toml") == (tmp_path.parent / "a.toml").as_posix()
