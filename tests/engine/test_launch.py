"""How many GPUs there are, planted faults, verdicts and restarts, without starting ranks."""

import json

import pytest

from mmtool.config.schema import Recipe
from mmtool.engine import devices, fault
from mmtool.engine.children import AttemptEnd
from mmtool.engine.pulse import PULSE_FD, Pulse, PulseBoard
from mmtool.engine.supervise import max_restarts
from mmtool.engine.verdict import judge
from mmtool.errors import EnvironmentLacks, RequestError


def recipe(**launch):
    return Recipe.model_validate(
        {
            "data": {"dataset": "fake"},
            "model": {"encoders": {"audio": {"name": "mlp"}}},
            "train": {"epochs": 1, "batch_size": 4},
            "launch": launch,
        }
    )


def test_more_gpus_than_there_are_is_refused_with_both_ways_out(monkeypatch):
    monkeypatch.setattr(devices, "visible_gpus", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")

    with pytest.raises(RequestError) as caught:
        devices.check_devices(recipe(gpus=4))

    assert caught.value.what == "asked for 4 GPUs, 2 visible (CUDA_VISIBLE_DEVICES=0,1)"
    assert caught.value.fix == "--gpus 2, or --gpus auto"
    assert caught.value.exit_code == 2
    devices.check_devices(recipe(gpus=2))
    devices.check_devices(recipe(gpus=4, device="cpu"))
    assert devices.automatic_gpus("auto") == 2
    assert devices.automatic_gpus("cpu") == 1


def test_cpu_ranks_are_taken_only_when_asked_for(monkeypatch):
    monkeypatch.setattr(devices, "visible_gpus", lambda: 0)

    with pytest.raises(RequestError, match="asked for 2 GPUs, this machine has none"):
        devices.check_devices(recipe(gpus=2))
    with pytest.raises(EnvironmentLacks):
        devices.check_devices(recipe(device="cuda"))
    devices.check_devices(recipe())


def test_more_cpu_ranks_than_cores_are_warned_about(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})

    (warning,) = devices.crowding(recipe(device="cpu", gpus=3))

    assert warning == "3 ranks share 2 CPU cores; --gpus 2 is faster"
    assert devices.crowding(recipe(device="cpu", gpus=2)) == []


def test_restarts_are_none_here_and_one_under_slurm(monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert max_restarts(recipe()) == 0
    monkeypatch.setenv("SLURM_JOB_ID", "3")
    assert max_restarts(recipe()) == 1
    assert max_restarts(recipe(max_restarts=4)) == 4


def test_planted_faults_are_read_and_act_where_they_say():
    with fault.planted("nan:rank=1,step=7,until=9; raise:step=3;raise:during=save"):
        assert fault.is_due("nan", 1, 8)
        assert not fault.is_due("nan", 0, 8)
        assert not fault.is_due("nan", 1, 10)
        assert not fault.is_due("oom", 1, 8)
        fault.at_step(0, 4)
        with pytest.raises(RuntimeError, match="planted fault"):
            fault.at_step(0, 3)
        with pytest.raises(RuntimeError, match="planted fault"):
            fault.during("save", 0, 5)
        fault.during("load", 0, 5)

    fault.at_step(0, 3)
    assert not fault.is_planted()


def test_a_restarted_run_gets_past_a_planted_fault(monkeypatch):
    monkeypatch.setenv(fault.RESTART_VARIABLE, "1")
    with fault.planted("nan:step=7;oom:step=7,restart=1"):
        assert not fault.is_due("nan", 0, 7)
        assert fault.is_due("oom", 0, 7)


@pytest.mark.parametrize("text", ["boom:step=1", "kill", "kill:step=x", "kill:steps=1", "kill:"])
def test_a_fault_that_cannot_be_planted_is_refused(text):
    with pytest.raises(RequestError, match="is not a fault that can be planted"):
        fault.parse(text)


def test_the_launcher_sees_the_step_of_every_rank(monkeypatch):
    board = PulseBoard(3)
    monkeypatch.setenv(PULSE_FD, str(board.fd))
    Pulse(1).mark(0)
    Pulse(2).mark(41)

    assert board.steps() == (-1, 0, 41)

    board.close()
    monkeypatch.delenv(PULSE_FD)
    Pulse(0).mark(5)


@pytest.fixture
def report(tmp_path):
    """Leave a failure report of a rank."""
    (tmp_path / "log").mkdir()

    def write(rank, kind, what="", trace=""):
        path = tmp_path / "log" / f"attempt1.rank{rank}.error.json"
        path.write_text(json.dumps({"kind": kind, "what": what, "trace": trace}), encoding="utf-8")

    return write


def end(codes, **more):
    order = more.pop("order", list(range(len(codes))))
    return AttemptEnd(codes, tuple(7 for _ in codes), order=order, **more)


def test_an_attempt_without_failures_has_no_verdict(tmp_path):
    assert judge(tmp_path, 1, end([0, 0])) is None


def test_lost_contact_is_never_the_first_cause(tmp_path, report):
    report(0, "PeerLost", "lost contact")
    report(1, "ValueError", "boom", "Traceback\nValueError: boom")

    verdict = judge(tmp_path, 1, end([1, 1]))

    assert (verdict.rank, verdict.can_restart) == (1, False)
    assert verdict.error.what == "rank 1: ValueError: boom"
    assert verdict.error.why.endswith("ValueError: boom")


def test_the_rank_that_ended_first_is_the_cause_among_several(tmp_path):
    verdict = judge(tmp_path, 1, end([-9, -11], order=[1, 0]))

    assert verdict.error.what == "rank 1 was killed by SIGSEGV"
    assert verdict.error.exit_code == 139
    assert verdict.can_restart


def test_ranks_the_launcher_killed_are_not_the_cause(tmp_path, report):
    report(0, "PeerLost", "lost contact")

    verdict = judge(tmp_path, 1, end([1, -9], killed={1}, silent=[1]))

    assert verdict.error.what == "rank 1 silent since step 7"
    assert verdict.error.exit_code == 79
    assert verdict.can_restart


def test_a_lost_connection_without_a_cause_is_restarted(tmp_path, report):
    report(0, "PeerLost", "lost contact")
    report(1, "PeerLost", "lost contact")

    verdict = judge(tmp_path, 1, end([1, 1]))

    assert verdict.error.what == "rank 0: lost contact"
    assert verdict.can_restart


def test_a_stop_is_a_stop_when_nothing_else_failed(tmp_path, report):
    report(0, "StoppedResumable", "stopped by SIGTERM")
    report(1, "StoppedResumable", "stopped by another rank")

    verdict = judge(tmp_path, 1, end([75, 75]))

    assert verdict.error.exit_code == 75
    assert verdict.error.what == "stopped by SIGTERM"
    assert not verdict.can_restart
