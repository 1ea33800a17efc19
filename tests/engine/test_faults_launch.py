"""What happens to ranks and launchers in the middle of a run, and that nothing is lost by it."""

import json
import signal
import subprocess
import sys
import threading
import time

import psutil
import pytest

pytestmark = pytest.mark.slow
RESTARTS = ("-s", "launch.max_restarts=2")


def events(run):
    lines = (run / "log" / "rank0.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def until(condition, process):
    """Wait for something a running process brings about."""
    pause, deadline = threading.Event(), time.monotonic() + 120
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        pause.wait(0.02)


def held_run(tiny, runs, tmp_path, step=7):
    """Start a run and give it once all its ranks wait in a step."""
    files = [tmp_path / f"held{rank}" for rank in range(2)]
    fault = ";".join(f"hold:rank={r},step={step},file={file}" for r, file in enumerate(files))
    process = tiny.start(runs, MMTOOL_FAULT=fault)
    until(lambda: all(file.exists() for file in files), process)
    return process, files


def is_rank(process):
    try:
        return "mmtool.engine.child" in process.cmdline()
    except psutil.Error:
        return False


def ranks_of(process):
    return [child for child in psutil.Process(process.pid).children() if is_rank(child)]


def test_a_launcher_of_several_ranks_never_loads_torch(undisturbed):
    assert "mmtool.engine.supervise" in undisturbed.modules
    assert not undisturbed.modules & {"torch", "torchvision", "torchaudio"}


def test_a_killed_rank_is_restarted_to_the_same_weights(tiny, undisturbed, launching, tmp_path):
    found = tiny.train(tmp_path, *RESTARTS, fault="kill:rank=1,step=12")

    told = launching.status(found.run)
    assert found.code == 0, found.stderr
    assert launching.weights_hash(found.run) == undisturbed.hash
    assert [a["exit_code"] for a in told["attempts"]] == [137, 0]
    assert told["attempts"][0]["step"] == 12
    assert "restart 1: rank 1 was killed by SIGKILL" in found.stderr
    assert "restart" in [e.get("what") for e in events(found.run)]
    assert (found.run / "log" / "attempt2.rank1.out").is_file()


def test_a_killed_rank_is_named_and_the_run_resumes(tiny, undisturbed, launching, tmp_path):
    found = tiny.train(tmp_path, fault="kill:rank=1,step=12")
    run = launching.the_run(tmp_path)
    told = launching.status(run)
    resumed = tiny.resume(run)

    assert found.code == 137
    assert "rank 1 was killed by SIGKILL" in found.stderr
    assert (told["state"], told["rank"], told["resumable"]) == ("failed", 1, True)
    assert resumed.code == 0, resumed.stderr
    assert launching.weights_hash(run) == undisturbed.hash


def test_a_kill_during_a_save_leaves_the_previous_one(tiny, undisturbed, launching, tmp_path):
    found = tiny.train(tmp_path, *RESTARTS, fault="kill:rank=0,during=save,step=10")

    resumed_at = [e["step"] for e in events(found.run) if e.get("what") == "resume"]
    assert found.code == 0, found.stderr
    assert resumed_at == [8]
    assert launching.weights_hash(found.run) == undisturbed.hash
    assert not list((found.run / "ckpt").glob(".*"))


def test_a_rank_that_hangs_is_named_and_restarted(tiny, undisturbed, launching, tmp_path):
    wait = ("-s", "launch.timeout_s=5")
    found = tiny.train(tmp_path, *RESTARTS, *wait, fault="stop:rank=1,step=7")

    first = launching.status(found.run)["attempts"][0]
    assert found.code == 0, found.stderr
    assert (first["exit_code"], first["reason"]) == (79, "rank 1 silent since step 7")
    assert launching.weights_hash(found.run) == undisturbed.hash


def test_all_ranks_stopped_is_a_hang_as_well(tiny, launching, tmp_path):
    found = tiny.train(tmp_path, "-s", "launch.timeout_s=5", fault="stop:step=7")

    assert found.code == 79
    assert "rank 0 silent since step 7" in found.stderr


def test_an_error_of_the_program_is_shown_and_not_restarted(tiny, launching, tmp_path):
    found = tiny.train(tmp_path, *RESTARTS, fault="raise:rank=1,step=7")

    assert found.code == 1
    assert "rank 1: RuntimeError: planted fault" in found.stderr
    assert 'raise RuntimeError("planted fault")' in found.stderr
    assert "lost contact" not in found.stderr
    assert len(launching.status(launching.the_run(tmp_path))["attempts"]) == 1


def test_the_exit_code_of_a_rank_is_that_of_the_command(tiny, launching, tmp_path):
    found = tiny.train(tmp_path, *RESTARTS, fault="exit:rank=1,step=7,code=3")

    assert found.code == 3
    assert "rank 1 ended with exit code 3" in found.stderr
    assert launching.status(launching.the_run(tmp_path))["exit_code"] == 3


def test_a_restart_without_a_new_step_is_not_repeated(tiny, launching, tmp_path):
    fault = "kill:rank=1,step=6;kill:rank=1,step=6,restart=1"
    found = tiny.train(tmp_path, *RESTARTS, fault=fault)

    assert found.code == 137
    assert "made no new step" in found.stderr
    assert len(launching.status(launching.the_run(tmp_path))["attempts"]) == 2


@pytest.mark.parametrize(
    "fault",
    [
        "term:rank=0,step=6,to=launcher",
        "int:rank=0,step=6,to=launcher",
        "term:rank=1,step=6",
        "usr1:rank=1,step=6;usr1:rank=1,step=6",
    ],
    ids=["TERM to the launcher", "one Ctrl-C", "TERM to one rank", "USR1 twice to one rank"],
)
def test_a_stop_saves_everything_and_resumes(fault, tiny, undisturbed, launching, tmp_path):
    found = tiny.train(tmp_path, fault=fault)
    run = launching.the_run(tmp_path)
    saved_at = [e["step"] for e in events(run) if e.get("what") == "checkpoint"]
    told = launching.status(run)
    resumed = tiny.resume(run)

    assert found.code == 75, found.stderr
    assert f"mmtool train --resume {run}" in found.stderr
    assert (told["state"], told["resumable"]) == ("stopped", True)
    assert saved_at == [5, 7]
    assert resumed.code == 0, resumed.stderr
    assert launching.weights_hash(run) == undisturbed.hash


def test_a_second_ctrl_c_kills_at_once(tiny, launching, tmp_path):
    process, _ = held_run(tiny, tmp_path / "runs", tmp_path)
    ranks = ranks_of(process)
    process.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=0.5)  # twice within 0.3 s would be one Ctrl-C that arrived twice
    process.send_signal(signal.SIGINT)
    found = launching.ended(process)

    assert len(ranks) == 2
    assert found.code == 130
    assert "second Ctrl-C" in found.stderr
    assert not any(rank.is_running() for rank in ranks)
    assert launching.status(launching.the_run(tmp_path / "runs"))["exit_code"] == 130


def test_a_killed_launcher_leaves_no_rank_and_no_lock(tiny, undisturbed, launching, tmp_path):
    process, files = held_run(tiny, tmp_path / "runs", tmp_path)
    ranks = ranks_of(process)
    process.kill()
    gone, alive = psutil.wait_procs(ranks, timeout=2)
    launching.ended(process)
    run = launching.the_run(tmp_path / "runs")
    for file in files:
        file.unlink()
    resumed = tiny.resume(run)

    assert (len(gone), alive) == (2, [])
    assert resumed.code == 0, resumed.stderr
    assert launching.weights_hash(run) == undisturbed.hash


def test_a_warning_while_torch_is_loading_stops_the_run_cleanly(tiny, launching, tmp_path):
    process = tiny.start(tmp_path)
    until(lambda: len(ranks_of(process)) == 2, process)
    for rank in ranks_of(process):
        rank.send_signal(signal.SIGUSR1)
    found = launching.ended(process)

    assert found.code == 75, found.stderr
    newest = max((launching.the_run(tmp_path) / "ckpt").glob("step[0-9]*"))
    assert newest.name == "step00000001"


def test_a_run_directory_that_cannot_be_written_is_refused_first(tiny):
    found = tiny.train("/proc/nowhere")

    assert found.code == 74
    assert "a run directory cannot be made" in found.stderr
    assert "fix: " in found.stderr


def test_a_run_is_written_by_one_launcher_at_a_time(tiny, undisturbed, launching, tmp_path):
    process, files = held_run(tiny, tmp_path / "runs", tmp_path)
    run = launching.the_run(tmp_path / "runs")
    before = (run / "launch.json").read_bytes()
    second = tiny.resume(run)
    after = (run / "launch.json").read_bytes()
    for file in files:
        file.unlink()
    first = launching.ended(process)

    assert second.code == 2
    assert f"is being written by process {process.pid}" in second.stderr
    assert before == after
    assert first.code == 0, first.stderr
    assert launching.weights_hash(run) == undisturbed.hash


def test_two_runs_at_once_do_not_meet(tiny, undisturbed, launching, tmp_path):
    both = [tiny.start(tmp_path / name) for name in ("one", "two")]
    found = [launching.ended(process) for process in both]

    assert [f.code for f in found] == [0, 0]
    assert {launching.weights_hash(f.run) for f in found} == {undisturbed.hash}


JUMPING = """
import time
_real = time.time
def _jumping():
    return _real() + (86400 if int(time.monotonic() * 20) % 2 else -86400)
time.time = _jumping
"""


def test_a_clock_that_jumps_changes_nothing(tiny, undisturbed, launching, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(JUMPING, encoding="utf-8")
    path = {"PYTHONPATH": str(tmp_path)}
    check = "import time; print(abs(time.time() - time.clock_gettime(0)) > 80000)"
    jumps = subprocess.run(
        [sys.executable, "-c", check],
        env=tiny.environment(**path),
        check=True,
        capture_output=True,
        text=True,
    )
    wait = ("-s", "launch.timeout_s=5")
    fault = "kill:rank=1,step=6;stop:rank=0,step=12,restart=1"
    found = tiny.train(tmp_path / "runs", *RESTARTS, *wait, fault=fault, **path)

    codes = [a["exit_code"] for a in launching.status(found.run)["attempts"]]
    assert jumps.stdout.strip() == "True"
    assert found.code == 0, found.stderr
    assert codes == [137, 79, 0]
    assert launching.weights_hash(found.run) == undisturbed.hash
