"""The writer: strict JSON, whole lines, nothing lost at a kill."""

import json
import math
import os
import signal
import subprocess
import sys
import threading
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmtool.errors import Bug, EnvironmentLacks
from mmtool.runlog.lines import parse_line, read_events
from mmtool.runlog.writer import EventWriter, encode_event

DIES_AFTER_WRITING = """
import os, signal, sys
from pathlib import Path
from mmtool.runlog.writer import EventWriter
writer = EventWriter(Path(sys.argv[1]))
for step in range(int(sys.argv[2])):
    writer.write("step", step=step, loss=1 / (step + 1))
os.kill(os.getpid(), signal.SIGKILL)
"""

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


def test_sigkill_right_after_the_last_row_loses_no_row(tmp_path: Path) -> None:
    path = tmp_path / "rank0.jsonl"
    command = [sys.executable, "-c", DIES_AFTER_WRITING, str(path), "500"]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    log = read_events(path)
    assert [event["step"] for event in log.events] == list(range(500))
    assert log.events[2]["loss"] == 1 / 3
    assert log.warnings == ()


@settings(deadline=None)
@given(st.dictionaries(st.text(), values, max_size=4))
def test_whatever_plain_values_are_logged_the_line_is_one_line_of_strict_json(
    fields: dict[str, object],
) -> None:
    line = encode_event("step", fields, t=0.0)
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    event = parse_line(line)
    assert event is not None
    assert set(fields) <= set(event)


@settings(deadline=None)
@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_loss_keeps_every_digit_and_other_numbers_keep_six(value: float) -> None:
    event = json.loads(encode_event("step", {"loss": value, "gnorm": value}, t=0.0))
    assert event["loss"] == value
    assert f"{event['gnorm']:.6g}" == f"{value:.6g}"
    assert "bad" not in event


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_becomes_null_and_is_named_by_its_path(bad: float) -> None:
    fields = {"loss": bad, "lr": 0.1, "m": {"audio": {"score": bad}}, "gpus": [{"util": bad}]}
    event = json.loads(encode_event("step", fields, t=0.0))
    assert event["loss"] is None
    assert event["m"] == {"audio": {"score": None}}
    assert event["bad"] == ["loss", "m.audio.score", "gpus.0.util"]


def test_numpy_scalars_are_written_as_the_numbers_they_are() -> None:
    fields = {"n": np.int64(3), "acc": np.float32(0.5), "loss": np.float64(0.1)}
    event = json.loads(encode_event("epoch", fields, t=0.0))
    assert (event["n"], event["acc"], event["loss"]) == (3, 0.5, 0.1)
    assert isinstance(event["n"], int)


@pytest.mark.parametrize("value", [object(), {1, 2}, Path("x"), np.zeros(2), Decimal(1)])
def test_a_value_json_cannot_hold_is_refused_with_its_path(value: object) -> None:
    with pytest.raises(Bug, match=r"m\.audio"):
        encode_event("step", {"m": {"audio": value}}, t=0.0)


def test_time_is_kept_to_the_millisecond(tmp_path: Path) -> None:
    with EventWriter(tmp_path / "log.jsonl", clock=lambda: 1_780_000_000.12345) as writer:
        writer.write("end", status="done")
    assert read_events(tmp_path / "log.jsonl").events[0]["t"] == 1_780_000_000.123


def test_every_line_is_on_disk_before_write_returns(tmp_path: Path) -> None:
    with EventWriter(tmp_path / "log.jsonl") as writer:
        for step in range(3):
            writer.write("step", step=step)
            assert len(read_events(writer.path).events) == step + 1


@settings(deadline=None)
@given(cut=st.integers(min_value=0, max_value=200))
def test_a_writer_that_opens_a_torn_file_starts_on_a_line_of_its_own(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    path = tmp_path_factory.mktemp("log") / "rank0.jsonl"
    whole = b"".join(encode_event("step", {"step": step}, t=0.0) for step in range(4))
    path.write_bytes(whole[:cut])
    before = read_events(path).events
    with EventWriter(path) as writer:
        writer.write("head", attempt=2)
        writer.write("step", step=99)
    events = read_events(path).events
    assert events[:-2] == before
    assert [event["k"] for event in events[-2:]] == ["head", "step"]


def test_only_milestones_are_forced_to_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    with EventWriter(tmp_path / "log.jsonl") as writer:
        writer.write("head")
        writer.write("step", step=0)
        writer.write("event", what="warning")
        assert synced == []
        writer.write("event", what="checkpoint")
        writer.write("epoch", epoch=0)
        writer.write("end", status="done")
    assert len(synced) == 3


def test_threads_do_not_mix_their_lines_even_if_the_system_takes_them_in_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real_write(fd, data[:40]))
    with EventWriter(tmp_path / "log.jsonl") as writer:

        def many(rank: int) -> None:
            for step in range(100):
                writer.write("step", rank=rank, step=step, filler="x" * 300)

        threads = [threading.Thread(target=many, args=(rank,)) for rank in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    log = read_events(writer.path)
    assert log.warnings == ()
    for rank in range(4):
        assert [e["step"] for e in log.events if e["rank"] == rank] == list(range(100))


def test_a_full_disk_is_reported_with_the_path() -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("needs /dev/full")
    with (
        EventWriter(full) as writer,
        pytest.raises(EnvironmentLacks, match="No space left") as caught,
    ):
        writer.write("step", step=0)
    assert caught.value.where == "/dev/full"


def test_a_line_cut_by_a_full_disk_does_not_spoil_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_write = os.write
    with EventWriter(tmp_path / "log.jsonl") as writer:
        writer.write("step", step=0)

        room = [10]

        def full_after_ten_bytes(fd: int, data: memoryview) -> int:
            if not room:
                raise OSError(28, "No space left on device")
            return real_write(fd, data[: room.pop()])

        monkeypatch.setattr(os, "write", full_after_ten_bytes)
        with pytest.raises(EnvironmentLacks):
            writer.write("step", step=1)
        monkeypatch.setattr(os, "write", real_write)
        writer.write("step", step=2)
    assert [event["step"] for event in read_events(writer.path).events] == [0, 2]


def test_a_folder_that_is_not_there_is_the_environments_fault(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentLacks, match="cannot be opened"):
        EventWriter(tmp_path / "missing" / "rank0.jsonl")


def test_writing_after_close_is_a_bug_and_closing_twice_is_not(tmp_path: Path) -> None:
    writer = EventWriter(tmp_path / "log.jsonl")
    writer.close()
    writer.close()
    with pytest.raises(Bug, match="after the log was closed"):
        writer.write("step", step=0)
