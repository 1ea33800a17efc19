"""Ranks that torchrun or srun started find each other, and which processes are such ranks."""

import subprocess
import sys

import pytest

from mmtool.engine.joined import Task, check_world, find_task, first_host, srun_variables
from mmtool.errors import EnvironmentLacks, RequestError

SRUN = {
    "SLURM_PROCID": "3",
    "SLURM_NTASKS": "4",
    "SLURM_STEP_ID": "0",
    "SLURM_JOB_ID": "12",
    "SLURM_LOCALID": "1",
    "SLURM_STEP_NODELIST": "n[03-04]",
    "SLURM_STEP_TASKS_PER_NODE": "2(x2)",
}
TORCHRUN = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}


def test_a_process_on_its_own_is_no_task():
    assert find_task({}) is None


def test_a_task_of_srun_is_found():
    assert find_task(SRUN) == Task(3, 4, "srun")


@pytest.mark.parametrize(
    "change",
    [
        {"SLURM_STEP_ID": ""},
        {"SLURM_STEP_ID": str(0xFFFFFFFA)},
        {"SLURM_STEP_ID": str(0xFFFFFFFB)},
        {"SLURM_NTASKS": "1"},
    ],
    ids=["a shell of salloc", "salloc as a step", "a batch script", "a single task"],
)
def test_a_shell_inside_an_allocation_is_no_task(change):
    assert find_task({**SRUN, **change}) is None


def test_torchrun_is_found_first():
    assert find_task({**SRUN, **TORCHRUN}) == Task(1, 2, "torchrun")


def test_a_rank_without_an_address_is_refused():
    with pytest.raises(EnvironmentLacks, match="MASTER_ADDR, MASTER_PORT is not"):
        find_task({"RANK": "0", "WORLD_SIZE": "2"})


def test_the_number_of_ranks_is_the_number_of_tasks():
    check_world(Task(0, 4, "srun"), 4)
    check_world(Task(0, 4, "srun"), None)

    with pytest.raises(RequestError, match="--gpus 2 among 4 tasks of srun"):
        check_world(Task(0, 4, "srun"), 2)


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("vm", "vm"),
        ("n0,n1", "n0"),
        ("n[03-05,7],m1", "n03"),
        ("n[7],m1", "n7"),
        ("rack1-n[1,3]-ib", "rack1-n1-ib"),
        ("gpu-4,gpu-[1-2]", "gpu-4"),
    ],
)
def test_the_first_host_of_a_list_of_nodes(nodes, first):
    assert first_host(nodes) == first


def test_tasks_of_srun_meet_on_the_first_node_at_a_port_of_their_step():
    found = srun_variables(SRUN, num_visible=2)
    other = srun_variables({**SRUN, "SLURM_STEP_ID": "1"}, num_visible=1)

    assert (found["RANK"], found["WORLD_SIZE"]) == ("3", "4")
    assert found["MASTER_ADDR"] == "n03"
    assert (found["LOCAL_RANK"], found["LOCAL_WORLD_SIZE"]) == ("1", "2")
    assert other["LOCAL_RANK"] == "0"
    assert found["MASTER_PORT"] != other["MASTER_PORT"]


def torchrun(tiny, runs, *options, **variables):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    return subprocess.run(
        [*command, "-m", *tiny.command(runs, *options)[2:]],
        env=tiny.environment(**variables),
        check=False,
        capture_output=True,
        text=True,
        timeout=240,
    )


@pytest.mark.slow
def test_torchrun_ranks_share_one_run_and_only_the_first_talks(
    tiny, undisturbed, launching, tmp_path
):
    found = torchrun(tiny, tmp_path)

    run = launching.the_run(tmp_path)
    assert found.returncode == 0, found.stderr
    assert found.stdout.splitlines() == [str(run)]
    assert found.stderr.count(f"run: {run}") == 1
    assert launching.weights_hash(run) == undisturbed.hash
    assert launching.status(run)["state"] == "done"


@pytest.mark.slow
def test_torchrun_ranks_report_the_first_cause(tiny, launching, tmp_path):
    found = torchrun(tiny, tmp_path, MMTOOL_FAULT="raise:rank=1,step=7")

    told = launching.status(launching.the_run(tmp_path))
    assert found.returncode == 1
    assert "error: rank 1: RuntimeError: planted fault" in found.stderr
    assert (told["state"], told["exit_code"]) == ("failed", 1)


@pytest.mark.slow
def test_torchrun_ranks_all_end_when_the_request_is_wrong(tiny, tmp_path):
    found = torchrun(tiny, tmp_path, "-s", "train.lr=fast")

    assert found.returncode == 1
    assert found.stderr.count("nothing was started") == 1
    assert "error_file" in found.stderr
    assert not list(tmp_path.iterdir())
