import io
import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmtool.cli.output import Output
from mmtool.cli.progress import LinePolicy, Stage


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self):
        return True


@given(st.lists(st.floats(0.01, 60), min_size=1, max_size=60), st.integers(1, 1000))
def test_lines_are_at_least_thirty_seconds_and_five_percent_apart(waits, total):
    policy = LinePolicy(total, 0.0)
    now, printed = 0.0, [(0.0, 0)]
    for done, wait in enumerate(waits, start=1):
        now += wait
        if policy.due(done, now):
            printed.append((now, done))

    for (before, done_before), (after, done_after) in pairwise(printed):
        assert after - before >= 30
        assert done_after - done_before >= 0.05 * total


def test_without_a_total_only_time_counts():
    policy = LinePolicy(None, 0.0)

    assert [policy.due(1, now) for now in (10.0, 31.0, 40.0, 62.0)] == [False, True, False, True]


def test_off_a_terminal_there_is_a_line_at_the_start_now_and_then_and_at_the_end(capsys):
    clock = Clock()

    with Stage(Output(environ={}), "work", clock=clock) as stage:
        stage.start(100)
        for done in range(1, 101):
            clock.now += 1.0
            stage.update(done, note="fine")

    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "work: started, 100 to do",
        "work 30/100  fine  1 min 10 s left",
        "work 60/100  fine  40 s left",
        "work 90/100  fine  10 s left",
        "work 100/100  fine: done in 1 min 40 s",
    ]


def test_a_stage_that_breaks_says_stopped(capsys):
    def break_off():
        with Stage(Output(environ={}), "work", 10, clock=Clock()) as stage:
            stage.update(3)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        break_off()

    assert capsys.readouterr().err.splitlines()[-1] == "work 3/10: stopped in 0.0 s"


def test_a_stage_that_never_began_leaves_no_line(capsys):
    def refuse():
        with Stage(Output(environ={}), "work", 10, clock=Clock()):
            raise RuntimeError

    with pytest.raises(RuntimeError):
        refuse()

    assert capsys.readouterr().err == ""


def test_quiet_shows_no_progress(capsys):
    with Stage(Output(quiet=True, environ={}), "work", 10) as stage:
        stage.update(10)

    assert capsys.readouterr().err == ""


def test_a_bar_is_redrawn_at_most_four_times_a_second(monkeypatch):
    stream = Terminal()
    monkeypatch.setattr("sys.stderr", stream)
    clock = Clock()

    with Stage(Output(environ={"TERM": "xterm"}), "work", 1000, clock=clock) as stage:
        for done in range(1000):
            clock.now += 0.01
            stage.update(done, note=f"at {done}")
        drawn = set(re.findall(r"at (\d+)", stream.getvalue()))

    assert 30 <= len(drawn) <= 40
    assert stream.getvalue().splitlines()[-1].endswith("done in 10.0 s")


def test_markup_in_a_title_stays_text_in_the_bar(monkeypatch):
    stream = Terminal()
    monkeypatch.setattr("sys.stderr", stream)

    with Stage(Output(environ={"TERM": "xterm"}), "[train] x[/]", 10) as stage:
        stage.update(1)

    assert "[train] x[/]" in stream.getvalue()
