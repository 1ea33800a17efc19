"""The end of a log that grows."""

import json
from pathlib import Path

from mmtool.runlog.tail import FIRST_BYTES, Tail


def lines(*steps: int) -> str:
    return "".join(json.dumps({"k": "step", "step": step}) + "\n" for step in steps)


def append(path: Path, text: str) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(text)


def steps(tail: Tail) -> list[int]:
    return [event["step"] for event in tail.read()]


def test_only_new_lines_are_given(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    tail = Tail(path)
    assert steps(tail) == []
    append(path, lines(1, 2))
    assert steps(tail) == [1, 2]
    assert steps(tail) == []
    append(path, lines(3))
    assert steps(tail) == [3]


def test_a_line_that_is_not_complete_is_left_for_the_next_time(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    tail = Tail(path)
    append(path, lines(1) + lines(2)[:9])
    assert steps(tail) == [1]
    append(path, lines(2)[9:])
    assert steps(tail) == [2]


def test_of_a_long_log_only_the_end_is_read_at_first(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    append(path, lines(*range(20_000)))
    tail = Tail(path)
    found = steps(tail)
    assert found[-1] == 19_999
    assert len(lines(*found)) <= FIRST_BYTES
    assert found == list(range(found[0], 20_000))


def test_a_log_that_was_replaced_is_read_from_its_start(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    append(path, lines(1, 2, 3))
    tail = Tail(path)
    steps(tail)
    path.write_text(lines(7), encoding="utf-8")
    assert steps(tail) == [7]


def test_what_is_no_event_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(b"\xff\xfe\n[1]\n{}\nnonsense\n" + lines(4).encode())
    assert steps(Tail(path)) == [4]
