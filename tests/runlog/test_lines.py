"""Reading a log file that a kill cut anywhere."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmtool.errors import RunDirectoryError
from mmtool.runlog.lines import check_schema, parse_line, read_events
from mmtool.runlog.writer import encode_event

EVENTS = [
    encode_event("head", {"schema": "mmtool-log/1.0", "classes": ["Grüße", "犬"]}, t=1.0),
    *(encode_event("step", {"step": s, "m": {"a": {"score": 0.5}}}, t=1.0) for s in range(5)),
    encode_event("end", {"status": "done", "reason": "}\n{"}, t=2.0),
]
WHOLE = b"".join(EVENTS)


@settings(deadline=None)
@given(cut=st.integers(min_value=0, max_value=len(WHOLE)))
def test_a_log_cut_at_any_byte_gives_all_its_complete_lines(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    path = tmp_path_factory.mktemp("log") / "rank0.jsonl"
    path.write_bytes(WHOLE[:cut])
    log = read_events(path)
    num_complete = WHOLE[:cut].count(b"\n")
    # Only the newline may be missing of one more; the event itself is then complete.
    lacks_newline_only = WHOLE[cut : cut + 1] == b"\n"
    assert len(log.events) == num_complete + lacks_newline_only
    is_torn = cut > 0 and WHOLE[cut - 1 : cut] != b"\n" and not lacks_newline_only
    assert len(log.warnings) == is_torn


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_no_bytes_whatsoever_make_reading_fail(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    path = tmp_path_factory.mktemp("log") / "rank0.jsonl"
    path.write_bytes(EVENTS[0] + data + b"\n" + EVENTS[1])
    events = read_events(path).events
    assert events[0]["k"] == "head"
    assert events[-1] == parse_line(EVENTS[1])


@pytest.mark.parametrize("line", [b'{"k":"st', b"[1]", b'{"t":1}', b"\x00\x00", b"[" * 5000])
def test_a_line_that_is_not_an_event_is_left_out(line: bytes) -> None:
    assert parse_line(line) is None


def test_a_torn_line_in_the_middle_is_reported_with_its_number(tmp_path: Path) -> None:
    path = tmp_path / "rank0.jsonl"
    path.write_bytes(EVENTS[0] + EVENTS[1][:20] + b"\n" + EVENTS[2])
    log = read_events(path)
    assert len(log.events) == 2
    assert len(log.warnings) == 1
    assert "line 2" in log.warnings[0]


@pytest.mark.parametrize("schema", ["mmtool-log/2.0", "mmtool-log/10.1", "other/1.0", ""])
def test_another_major_schema_is_refused_with_advice(schema: str) -> None:
    with pytest.raises(RunDirectoryError, match=r"mmtool-log/1\.x") as caught:
        check_schema([{"k": "head", "schema": schema}], Path("log/rank0.jsonl"))
    assert "env.json" in caught.value.fix


def test_a_later_minor_schema_is_read() -> None:
    check_schema([{"k": "head", "schema": "mmtool-log/1.7"}, {"k": "step"}], Path("x"))


def test_a_bare_nan_is_read_as_missing_and_its_lines_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "rank0.jsonl"
    path.write_bytes(b'{"k":"step","loss":NaN,"lr":-Infinity}\n{"k":"step","loss":1}\n')
    log = read_events(path)
    assert log.events == [{"k": "step", "loss": None, "lr": None}, {"k": "step", "loss": 1}]
    assert log.warnings == (
        "rank0.jsonl: 1 lines hold a bare NaN or Infinity, which is not JSON; read as missing",
    )
