"""A run that has the process to itself: it hangs, is killed or fails like one of several ranks."""

import errno
import json
import signal
import threading
import time

import pytest

from mmtool.engine.attempt import failed, failure
from mmtool.engine.stop import StopRequest
from mmtool.engine.watchdog import Watchdog
from mmtool.errors import Bug, NotFinite
from mmtool.runlog.rundir import create_run

ALONE = ("--gpus", "1")


def held_alone(tiny, tmp_path, *options):
    """Start a run of one process and give it once it waits in its eighth step."""
    file = tmp_path / "held"
    planted = f"hold:step=7,file={file}"
    process = tiny.start(tmp_path / "runs", *ALONE, *options, MMTOOL_FAULT=planted)
    pause, deadline = threading.Event(), time.monotonic() + 120
    while not file.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        pause.wait(0.02)
    return process, file


@pytest.mark.slow
def test_a_single_process_that_hangs_says_where_and_ends_like_a_rank(tiny, launching, tmp_path):
    process, _ = held_alone(tiny, tmp_path, "-s", "launch.timeout_s=3")
    found = launching.ended(process)
    run = launching.the_run(tmp_path / "runs")
    told = launching.status(run)
    stacks = (run / "log" / "attempt1.rank0.out").read_text(encoding="utf-8")

    assert found.code == 79, found.stderr
    assert "rank 0 silent since step 7" in found.stderr
    assert f"mmtool train --resume {run}" in found.stderr
    assert (told["state"], told["exit_code"], told["resumable"]) == ("failed", 79, True)
    assert "in run_step" in stacks
    assert "fault.py" in stacks


@pytest.mark.slow
def test_a_process_that_was_suspended_for_long_goes_on(tiny, launching, tmp_path):
    process, file = held_alone(tiny, tmp_path, "-s", "launch.timeout_s=4")
    process.send_signal(signal.SIGSTOP)
    with pytest.raises(TimeoutError):
        _outlast(process, 6.0)
    file.unlink()
    process.send_signal(signal.SIGCONT)

    assert launching.ended(process).code == 0


def _outlast(process, seconds):
    if not threading.Event().wait(seconds) and process.poll() is None:
        raise TimeoutError


@pytest.mark.slow
def test_a_second_ctrl_c_ends_a_single_process_as_failed(tiny, launching, tmp_path):
    process, _ = held_alone(tiny, tmp_path)
    process.send_signal(signal.SIGINT)
    with pytest.raises(TimeoutError):
        _outlast(process, 0.5)  # two within 0.3 s would be one Ctrl-C that arrived twice
    process.send_signal(signal.SIGINT)
    found = launching.ended(process)
    run = launching.the_run(tmp_path / "runs")
    told = launching.status(run)
    last = json.loads((run / "log" / "rank0.jsonl").read_text(encoding="utf-8").splitlines()[-1])

    assert found.code == 130, found.stderr
    assert "killed by a second Ctrl-C" in found.stderr
    assert (told["state"], told["exit_code"], told["resumable"]) == ("failed", 130, True)
    assert "second Ctrl-C" in told["reason"]
    assert (last["k"], last["status"]) == ("end", "failed")
    assert not (run / "lock.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("gpus", ["1", "2"])
def test_an_error_of_the_program_has_the_same_code_on_any_number_of_ranks(
    gpus, tiny, launching, tmp_path
):
    found = tiny.train(tmp_path, "--gpus", gpus, fault="raise:step=7")
    told = launching.status(launching.the_run(tmp_path))

    assert found.code == 1, found.stderr
    assert "RuntimeError: planted fault" in found.stderr
    assert 'raise RuntimeError("planted fault")' in found.stderr
    assert (told["state"], told["exit_code"], told["resumable"]) == ("failed", 1, True)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ValueError("of a recipe's own method"), 1),
        (AssertionError(), 1),
        (OSError(errno.ENOSPC, "full", "/some/file"), 74),
        (OSError(errno.EACCES, "forbidden", "/some/file"), 4),
        (OSError(errno.EIO, "broken", "/some/file"), 1),
        (ModuleNotFoundError("no", name="absent_package"), 4),
        (NotFinite("the loss is not finite"), 76),
        (Bug("replicas differ"), 70),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_an_exception_means_the_same_in_this_process_and_in_a_rank(error, code):
    alone, in_rank = failed(error, where="here"), failure(error)

    assert alone.exit_code == code
    assert in_rank[0] == in_rank[1]["code"] == code


def test_a_thread_that_computes_without_a_step_is_not_silent(tmp_path):
    run = create_run(tmp_path, "busy")
    with Watchdog(run, StopRequest(), timeout_s=0.4):
        until = time.thread_time() + 0.8
        while time.thread_time() < until:
            pass

    assert run.read_status() == {}
