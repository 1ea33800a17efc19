"""Following a log while it grows."""

import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmtool.runlog import follow as follow_module
from mmtool.runlog.follow import follow
from mmtool.runlog.writer import EventWriter, encode_event

WHOLE = b"".join(encode_event("step", {"step": step}, t=0.0) for step in range(8))


class Script(threading.Event):
    """A stop event whose waits run the next part of a scenario instead of waiting."""

    def __init__(self, *parts: Any) -> None:
        super().__init__()
        self._parts = list(parts)

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout == follow_module.POLL_S
        if self._parts:
            self._parts.pop(0)()
        else:
            self.set()
        return self.is_set()


def test_events_are_handed_out_as_they_are_written(tmp_path: Path) -> None:
    path, seen = tmp_path / "rank0.jsonl", []
    with EventWriter(path) as writer:
        script = Script(
            lambda: writer.write("step", step=0),
            lambda: seen.append("quiet"),
            lambda: writer.write("step", step=1),
        )
        follow(path, script, lambda event: seen.append(event["step"]))
    assert seen == [0, "quiet", 1]


def test_a_file_that_does_not_exist_yet_is_waited_for(tmp_path: Path) -> None:
    path, seen = tmp_path / "rank0.jsonl", []
    script = Script(lambda: None, lambda: path.write_bytes(WHOLE))
    follow(path, script, lambda event: seen.append(event["step"]))
    assert seen == list(range(8))


def test_a_file_that_never_appears_ends_with_the_stop(tmp_path: Path) -> None:
    seen: list[object] = []
    follow(tmp_path / "never.jsonl", Script(), seen.append)
    assert seen == []


def test_what_was_written_just_before_the_stop_is_still_handed_out(tmp_path: Path) -> None:
    path, seen = tmp_path / "rank0.jsonl", []
    stop = threading.Event()
    stop.set()
    path.write_bytes(WHOLE[:-1])
    follow(path, stop, lambda event: seen.append(event["step"]))
    assert seen == list(range(8))


@settings(deadline=None)
@given(st.lists(st.integers(0, len(WHOLE)), max_size=6))
def test_however_the_bytes_arrive_every_event_comes_once_and_in_order(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int]
) -> None:
    path, seen = tmp_path_factory.mktemp("log") / "rank0.jsonl", []
    edges = [*sorted(cuts), len(WHOLE)]
    parts = [lambda edge=edge: path.write_bytes(WHOLE[:edge]) for edge in edges]
    follow(path, Script(*parts), lambda event: seen.append(event["step"]))
    assert seen == list(range(8))


def test_a_torn_line_of_an_earlier_attempt_is_passed_over(tmp_path: Path) -> None:
    path, seen = tmp_path / "rank0.jsonl", []
    path.write_bytes(WHOLE[:50])
    with EventWriter(path) as writer:
        writer.write("step", step=99)
    follow(path, Script(), lambda event: seen.append(event["step"]))
    assert seen[-1] == 99


def test_it_ends_promptly_when_another_thread_asks(tmp_path: Path) -> None:
    path, stop, first = tmp_path / "rank0.jsonl", threading.Event(), threading.Event()
    path.write_bytes(WHOLE)
    thread = threading.Thread(target=follow, args=(path, stop, lambda _: first.set()))
    thread.start()
    assert first.wait(timeout=10)
    stop.set()
    thread.join(timeout=10 * follow_module.POLL_S + 5)
    assert not thread.is_alive()
