import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmtool.media.decode import decode
from mmtool.media.flv import without_late_notes
from mmtool.media.spec import AudioSpec, FramesSpec, Source


def tag(kind: int, payload: bytes) -> bytes:
    body = bytes([kind]) + len(payload).to_bytes(3, "big") + bytes(7) + payload
    return body + struct.pack(">I", len(body))


HEAD = b"FLV\x01\x05\x00\x00\x00\x09" + bytes(4)
NOTE = tag(18, b"\x02\x00\x0conLastSecond\x05")


def test_notes_before_the_first_picture_stay() -> None:
    content = HEAD + tag(18, b"onMetaData") + tag(9, b"picture")
    assert without_late_notes(content) is content


def test_later_notes_go_and_everything_else_stays() -> None:
    first, rest = HEAD + tag(18, b"onMetaData") + tag(9, b"a"), tag(8, b"b") + tag(9, b"c")
    assert without_late_notes(first + NOTE + rest + NOTE) == first + rest


@given(st.binary(max_size=80), st.integers(0, 60))
def test_damaged_files_are_passed_on(noise: bytes, cut: int) -> None:
    whole = HEAD + tag(9, b"picture") + NOTE + noise
    assert without_late_notes(whole[:cut]) in whole or cut > len(HEAD)
    assert len(without_late_notes(whole)) <= len(whole)


@pytest.fixture(scope="module")
def noted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Give a clip, and the same clip with notes of its encoder in the middle and at the end.

    It is longer than what FFmpeg reads ahead, else the stream of notes would be known in advance.
    """
    plain = tmp_path_factory.mktemp("flv") / "plain.flv"
    made = ["-f", "lavfi", "-i", "testsrc=size=96x72:rate=25:d=3"]
    made += ["-f", "lavfi", "-i", "sine=frequency=440:sample_rate=22050:d=3"]
    try:
        command = ["ffmpeg", "-loglevel", "error", "-y", *made, "-c:v", "flv1", str(plain)]
        subprocess.run(command, check=True)
    except FileNotFoundError:
        pytest.skip("ffmpeg is not installed")
    content = plain.read_bytes()
    (at,) = struct.unpack_from(">I", content, 5)
    at += 4
    for _ in range(12):
        at += 11 + int.from_bytes(content[at + 1 : at + 4], "big") + 4
    noted = plain.with_name("noted.flv")
    noted.write_bytes(content[:at] + NOTE + content[at:] + NOTE)
    plain.with_name("noted_at_its_end.flv").write_bytes(content + NOTE)
    return plain, noted


def test_a_clip_with_notes_decodes_as_without(noted: tuple[Path, Path]) -> None:
    for spec in (FramesSpec(num_frames=3, height=72, width=96), AudioSpec()):
        one, other = (decode(Source(path), spec) for path in noted)
        np.testing.assert_array_equal(one.array, other.array)
        assert one.facts == other.facts


def test_many_clips_with_notes_leave_the_process_alive(noted: tuple[Path, Path]) -> None:
    program = (
        "import sys; from pathlib import Path; from mmtool.media.decode import decode;"
        "from mmtool.media.spec import *;"
        "[decode(Source(Path(sys.argv[1])), s) for _ in range(60)"
        " for s in (FramesSpec(num_frames=3, height=72, width=96), AudioSpec())]"
    )
    path = noted[0].with_name("noted_at_its_end.flv")
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)], capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
