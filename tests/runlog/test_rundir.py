"""Run directories: made whole, found again, written by one process."""

import fcntl
import json
import os
import re
import secrets
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from mmtool.errors import EnvironmentLacks, RunDirectoryError
from mmtool.runlog import rundir as rundir_module
from mmtool.runlog.rundir import RunDir, create_run, point_latest, resolve_run, run_names

HOLDS_THE_LOCK = """
import sys
from pathlib import Path
from mmtool.runlog.rundir import RunDir
with RunDir(Path(sys.argv[1])).lock():
    print("held", flush=True)
    sys.stdin.read()
"""


def made(root: Path, name: str) -> RunDir:
    run = create_run(root, name)
    run.write_status(state="done")
    return run


def named(root: Path, name: str) -> RunDir:
    """Make a run with exactly this name."""
    made(root, "x").path.rename(root / name)
    return RunDir(root / name)


def test_a_new_run_is_named_by_time_and_recipe_and_has_its_folders(tmp_path: Path) -> None:
    run = create_run(tmp_path / "runs", "ave_ogm")
    assert re.fullmatch(r"\d{8}-\d{6}_ave_ogm_[0-9a-f]{4}", run.name)
    assert all(folder.is_dir() for folder in (run.log_dir, run.ckpt_dir, run.report_dir))
    assert run.log_path(3) == run.path / "log" / "rank3.jsonl"
    assert run.system_log_path(0) == run.path / "log" / "system.rank0.jsonl"


def test_a_label_and_odd_characters_make_a_single_safe_folder_name(tmp_path: Path) -> None:
    run = create_run(tmp_path, "my recipe", label="a/b ../c")
    assert run.path.parent == tmp_path
    assert re.fullmatch(r"\d{8}-\d{6}_my-recipe-a-b-..-c_[0-9a-f]{4}", run.name)


def test_runs_started_in_the_same_second_get_different_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = iter(["aaaa", "aaaa", "bbbb"])
    monkeypatch.setattr(secrets, "token_hex", lambda _: next(tokens))
    monkeypatch.setattr(rundir_module, "_timestamp", lambda: "20260101-000000")
    names = [create_run(tmp_path, "ogm").name for _ in range(2)]
    assert names == ["20260101-000000_ogm_aaaa", "20260101-000000_ogm_bbbb"]


def test_a_runs_root_that_cannot_be_written_is_the_environments_fault(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(EnvironmentLacks, match="cannot be made") as caught:
        create_run(blocked / "runs", "ogm")
    assert "MMTOOL_RUNS" in caught.value.fix
    assert list(tmp_path.iterdir()) == [blocked]


def test_a_disk_that_fills_up_leaves_no_half_made_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_mkdir = Path.mkdir

    def full_at_ckpt(path: Path, **kwargs: bool) -> None:
        if path.name == "ckpt":
            raise OSError(28, "No space left on device")
        real_mkdir(path, **kwargs)

    monkeypatch.setattr(Path, "mkdir", full_at_ckpt)
    with pytest.raises(EnvironmentLacks, match="No space left"):
        create_run(tmp_path, "ogm")
    assert list(tmp_path.iterdir()) == []


def test_status_keeps_the_fields_that_are_not_given(tmp_path: Path) -> None:
    run = create_run(tmp_path, "ogm")
    assert run.read_status() == {}
    run.write_status(state="running", pid=7)
    run.write_status(state="done")
    status = run.read_status()
    assert (status["state"], status["pid"]) == ("done", 7)
    assert "updated" in status


def test_a_reader_never_sees_half_a_status(tmp_path: Path) -> None:
    run = create_run(tmp_path, "ogm")
    run.write_status(state="running", step=0)
    stop, seen = threading.Event(), []

    def read() -> None:
        while not stop.is_set():
            seen.append(json.loads(run.status_path.read_text())["state"])

    thread = threading.Thread(target=read)
    thread.start()
    for step in range(50):
        run.write_status(step=step, filler="x" * 5000)
    stop.set()
    thread.join()
    assert seen
    assert set(seen) == {"running"}
    assert sorted(p.name for p in run.path.iterdir()) == ["ckpt", "log", "report", "status.json"]


@pytest.mark.parametrize("text", ["", "{", "[1]", "\x00"])
def test_a_damaged_status_reads_as_none_at_all(tmp_path: Path, text: str) -> None:
    run = create_run(tmp_path, "ogm")
    run.status_path.write_text(text)
    assert run.read_status() == {}


def test_a_file_that_cannot_be_written_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = create_run(tmp_path, "ogm")
    run.write_status(state="running")

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(EnvironmentLacks, match=r"status\.json cannot be written"):
        run.write_status(state="done")
    assert run.read_status()["state"] == "running"
    assert not list(run.path.glob(".status*"))


def test_recipe_and_environment_are_kept(tmp_path: Path) -> None:
    run = create_run(tmp_path, "ogm")
    run.write_recipe("a = 1  # ü\n", "a = 1\nb = 2\n")
    run.write_env({"where": tmp_path, "n": 1})
    assert run.recipe_path.read_text(encoding="utf-8") == "a = 1  # ü\n"
    assert run.resolved_path.read_text(encoding="utf-8") == "a = 1\nb = 2\n"
    assert json.loads(run.env_path.read_text()) == {"where": str(tmp_path), "n": 1}


def test_latest_is_a_relative_link_to_the_last_run(tmp_path: Path) -> None:
    first, second = made(tmp_path, "a"), made(tmp_path, "b")
    point_latest(tmp_path, first)
    point_latest(tmp_path, second)
    assert (tmp_path / "latest").readlink() == Path(second.name)
    assert resolve_run("latest", tmp_path).path == second.path.resolve()
    assert not list(tmp_path.glob(".latest*"))


def test_latest_is_a_text_file_where_links_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError(1, "Operation not permitted")

    run = made(tmp_path, "a")
    monkeypatch.setattr(Path, "symlink_to", refuse)
    point_latest(tmp_path, run)
    assert (tmp_path / "latest.txt").read_text() == run.name + "\n"
    for text in ("latest", str(tmp_path / "latest")):
        assert resolve_run(text, tmp_path).path == run.path.resolve()


def test_a_run_is_found_by_path_name_prefix_and_latest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "runs"
    run, _ = named(root, "20260101-000000_ogm_aaaa"), named(root, "20260202-000000_agm_bbbb")
    point_latest(root, run)
    monkeypatch.chdir(tmp_path)
    texts = (str(run.path), f"runs/{run.name}", f"runs/{run.name}/", run.name, "20260101")
    for text in (*texts, "latest", "runs/latest", str(root / "latest")):
        assert resolve_run(text, Path("runs")).path == run.path.resolve(), text


def test_an_ambiguous_prefix_lists_what_it_could_be(tmp_path: Path) -> None:
    runs = [named(tmp_path, f"20260101-00000{n}_ogm_aaaa") for n in range(2)]
    with pytest.raises(RunDirectoryError, match="start of 2 runs") as caught:
        resolve_run("20260101", tmp_path)
    assert all(run.name in caught.value.why for run in runs)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ogm", "did you mean '20260101-000000_ogm_aaaa'"),
        ("20260101-000000_ogm_aaab", "did you mean '20260101-000000_ogm_aaaa'"),
        ("zzzzzz", "the newest run is 20260101-000000_ogm_aaaa"),
        ("runs/20260101-000000_ogm_aaab", "did you mean '20260101-000000_ogm_aaaa'"),
        ("", "the newest run is 20260101-000000_ogm_aaaa"),
    ],
)
def test_a_run_that_is_not_there_comes_with_a_suggestion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, words: str
) -> None:
    root = tmp_path / "runs"
    named(root, "20260101-000000_ogm_aaaa")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    with pytest.raises(RunDirectoryError, match="there is no run") as caught:
        resolve_run(text, root)
    assert words in caught.value.why


def test_without_any_run_the_fix_is_to_train(tmp_path: Path) -> None:
    for text in ("latest", "ogm"):
        with pytest.raises(RunDirectoryError) as caught:
            resolve_run(text, tmp_path / "runs")
        assert caught.value.fix == "mmtool train RECIPE"


def test_a_latest_run_that_was_removed_is_called_that(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "gone")
    point_latest(tmp_path, run)
    with pytest.raises(RunDirectoryError, match="latest run, gone, was removed"):
        resolve_run("latest", tmp_path)


def test_a_directory_that_is_no_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    with pytest.raises(RunDirectoryError, match="is a directory, but not a run"):
        resolve_run(str(tmp_path / "data"), tmp_path / "runs")


def test_run_names_leaves_out_links_and_other_folders(tmp_path: Path) -> None:
    run = made(tmp_path, "a")
    point_latest(tmp_path, run)
    (tmp_path / "other").mkdir()
    (tmp_path / "file").write_text("")
    assert run_names(tmp_path) == [run.name]
    assert run_names(tmp_path / "missing") == []


def test_a_second_writer_is_refused_and_told_who_the_first_is(tmp_path: Path) -> None:
    run = made(tmp_path, "a")
    with run.lock():
        refused = pytest.raises(RunDirectoryError, match=f"process {os.getpid()} on")
        with refused as caught, run.lock():
            pass
        assert f"kill -TERM {os.getpid()}" in caught.value.fix
    with run.lock():
        pass
    assert not (run.path / "lock.json").exists()


def test_the_lock_of_a_killed_process_does_not_stand_in_the_way(tmp_path: Path) -> None:
    run = made(tmp_path, "a")
    with subprocess.Popen(
        [sys.executable, "-c", HOLDS_THE_LOCK, str(run.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"held\n"
        with pytest.raises(RunDirectoryError, match=f"process {child.pid}"), run.lock():
            pass
        child.kill()
        child.wait()
    assert (run.path / "lock.json").exists()
    with run.lock():
        owner = json.loads((run.path / "lock.json").read_text())
    assert owner == {"host": socket.gethostname(), "pid": os.getpid()}


@pytest.mark.parametrize(
    ("host", "pid", "is_refused"),
    [
        (socket.gethostname(), os.getpid(), True),
        (socket.gethostname(), 2**22 + 1, False),
        ("another-machine", 1, True),
    ],
    ids=["this process", "no process", "another machine"],
)
def test_without_locks_in_the_file_system_the_named_owner_decides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str, pid: int, is_refused: bool
) -> None:
    def unsupported(*args: object) -> None:
        raise OSError(95, "Operation not supported")

    run = made(tmp_path, "a")
    (run.path / "lock.json").write_text(json.dumps({"host": host, "pid": pid}))
    monkeypatch.setattr(fcntl, "flock", unsupported)
    if is_refused:
        with pytest.raises(RunDirectoryError, match=f"process {pid} on {host}"), run.lock():
            pass
    else:
        with run.lock():
            assert json.loads((run.path / "lock.json").read_text())["pid"] == os.getpid()
