import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mmtool.cli import checks
from mmtool.cli.app import app
from mmtool.cli.checks import Check


def call(*arguments):
    return CliRunner().invoke(app, ["doctor", *map(str, arguments)])


def test_a_whole_machine_is_told_line_by_line(tmp_path):
    found = call("--data-root", tmp_path / "data", "--runs-dir", tmp_path / "runs", "--json")

    document = json.loads(found.stdout)
    names = [check["name"] for check in document["checks"]]
    assert document["schema"] == "mmtool.doctor/1"
    assert document["able"] is (found.exit_code == 0)
    assert {"python", "torch", "gpu", "audio", "video", "image", "data root"} <= set(names)
    assert all(check["state"] in ("ok", "warn", "fail") for check in document["checks"])
    assert next(c for c in document["checks"] if c["name"] == "image")["state"] == "ok"
    assert not (tmp_path / "data").exists()


def test_something_required_that_fails_exits_with_four_and_a_fix(monkeypatch):
    broken = Check("torch", "fail", "it does not import", "pip install torch")
    monkeypatch.setattr("mmtool.cli.doctor.all_checks", lambda *_: [broken])

    found = call()

    assert found.exit_code == 4
    assert found.stdout.splitlines() == [
        "FAIL  torch  it does not import",
        "      fix: pip install torch",
    ]
    assert "error: required and missing: torch" in found.stderr


def test_a_warning_alone_is_no_failure(monkeypatch):
    odd = Check("disk", "warn", "nearly full", "free some room")
    monkeypatch.setattr("mmtool.cli.doctor.all_checks", lambda *_: [odd])

    found = call()

    assert found.exit_code == 0
    assert "fix: free some room" in found.stdout


def test_a_library_that_breaks_while_it_is_tried_is_a_failed_check(monkeypatch):
    def broken():
        raise OSError("libavutil.so.60:\n cannot open shared object file")

    monkeypatch.setattr(checks, "check_audio", broken)
    monkeypatch.setattr(checks, "check_torch", checks.check_python)
    monkeypatch.setattr(checks, "check_video", checks.check_python)

    found = {check.name: check for check in checks.all_checks(Path("data"), Path("runs"))}

    assert found["audio"].state == "fail"
    assert found["audio"].text == "OSError: libavutil.so.60: cannot open shared object file"
    assert "ffmpeg" in found["audio"].fix


def test_a_file_in_place_of_a_folder_cannot_be_written(tmp_path):
    (tmp_path / "data").write_text("")

    found = checks.check_folder("data root", tmp_path / "data" / "inner", "--data-root DIR")

    assert found.state == "fail"
    assert "--data-root" in found.fix


def test_a_nearly_full_disk_is_a_warning(tmp_path, monkeypatch):
    monkeypatch.setattr(checks, "MIN_FREE_BYTES", 1 << 62)

    assert checks.check_folder("runs root", tmp_path, "--runs-dir DIR").state == "warn"


def test_more_threads_than_cores_are_a_warning(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "100000")
    too_many = checks.check_threads()
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    assert too_many.state == "warn"
    assert checks.check_threads().state == "ok"


def test_the_tone_is_a_wav_file_of_half_scale(tmp_path):
    import wave

    checks.write_tone(tmp_path / "tone.wav")

    with wave.open(str(tmp_path / "tone.wav")) as file:
        assert (file.getframerate(), file.getnframes(), file.getsampwidth()) == (16000, 1600, 2)
        samples = memoryview(file.readframes(1600)).cast("h")
    assert 16000 < max(samples) <= 16384


@pytest.mark.skipif(os.name == "nt", reason="programs are found by another rule")
def test_without_the_ffmpeg_program_video_is_not_tried(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))

    found = checks.check_video()

    assert found.state == "warn"
    assert "not tried" in found.text
