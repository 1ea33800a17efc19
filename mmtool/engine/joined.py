"""Ranks that somebody else started: `torchrun ... -m mmtool train R`, or `srun mmtool train R`.

Every task runs the same command. Rank 0 makes or opens the run directory, talks and writes; the
others learn the path from it and keep quiet.
"""

import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mmtool.engine.attempt import failed, failure, read_launch, read_report, write_report
from mmtool.engine.devices import visible_gpus
from mmtool.engine.stop import StopRequest
from mmtool.engine.verdict import rebuilt
from mmtool.errors import EnvironmentLacks, MmtoolError, RequestError
from mmtool.runlog.rundir import RunDir

_MEETING_S = 600.0
_OTHERS_S = 3.0
_POLL_S = 0.05
_FIRST_PORT, _NUM_PORTS = 20_000, 20_000
# Shells of salloc, batch scripts and helper steps carry the numbers above this one.
_LAST_STEP = 0xFFFFFFF0


@dataclass(frozen=True, slots=True)
class Task:
    """This process among the tasks that were started together."""

    rank: int
    world: int
    kind: str
    """torchrun or srun."""

    @property
    def is_first(self) -> bool:
        """Whether this task makes the run and talks."""
        return self.rank == 0


def find_task(env: Mapping[str, str]) -> Task | None:
    """Give what this process is a task of; None where it is on its own and may launch ranks."""
    if "RANK" in env:
        return _torchrun_task(env)
    num_tasks = env.get("SLURM_STEP_NUM_TASKS", env.get("SLURM_NTASKS", "1"))
    step = env.get("SLURM_STEP_ID", "")
    # A shell of salloc has the number of tasks, but is none of them.
    if not step.isdecimal() or int(step) >= _LAST_STEP or "SLURM_PROCID" not in env:
        return None
    if int(num_tasks) < 2:
        return None
    return Task(int(env["SLURM_PROCID"]), int(num_tasks), "srun")


def _torchrun_task(env: Mapping[str, str]) -> Task | None:
    missing = [name for name in ("WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT") if name not in env]
    if missing:
        raise EnvironmentLacks(
            f"RANK is set, but {', '.join(missing)} is not",
            where="environment",
            why="a process with a RANK joins the others that torchrun started",
            fix="unset RANK, or start with: torchrun --nproc-per-node N -m mmtool train RECIPE",
        )
    world = int(env["WORLD_SIZE"])
    return Task(int(env["RANK"]), world, "torchrun") if world > 1 else None


def check_world(task: Task, gpus: int | None) -> None:
    """Refuse a number of ranks that is not the number of tasks."""
    if gpus not in (None, task.world):
        raise RequestError(
            f"--gpus {gpus} among {task.world} tasks of {task.kind}",
            where="command line",
            why=f"{task.kind} has already started the ranks",
            fix="drop --gpus",
        )


def srun_variables(env: Mapping[str, str], *, num_visible: int) -> dict[str, str]:
    """Give the variables of torch's process groups for a task of srun."""
    local = int(env.get("SLURM_LOCALID", "0"))
    nodes = env.get("SLURM_STEP_NODELIST") or env.get("SLURM_JOB_NODELIST") or "127.0.0.1"
    tasks = env.get("SLURM_STEP_TASKS_PER_NODE", env.get("SLURM_TASKS_PER_NODE", "1"))
    # Jobs that share a node, and steps of one job, must not meet at the same port.
    number = int(env.get("SLURM_JOB_ID", "0")) * 7 + int(env.get("SLURM_STEP_ID", "0"))
    return {
        "RANK": env["SLURM_PROCID"],
        "WORLD_SIZE": env.get("SLURM_STEP_NUM_TASKS", env.get("SLURM_NTASKS", "1")),
        # With one GPU bound to each task, every task sees its own as number 0.
        "LOCAL_RANK": str(local % num_visible if num_visible else local),
        "LOCAL_WORLD_SIZE": str(_most_tasks(tasks)),
        "MASTER_ADDR": env.get("MASTER_ADDR") or first_host(nodes),
        "MASTER_PORT": env.get("MASTER_PORT") or str(_FIRST_PORT + number % _NUM_PORTS),
    }


def first_host(nodes: str) -> str:
    """Give the first of SLURM's list of hosts, for example n03 of `n[03-05,7],m1`."""
    match = re.match(r"([^,\[]*)(?:\[([^\],-]*)[^\]]*\]([^,\[]*))?", nodes)
    return "".join(part or "" for part in match.groups()) if match else nodes


def _most_tasks(text: str) -> int:
    """Read SLURM's list of tasks per node, for example `2(x3),1`."""
    return max(int(part.partition("(")[0]) for part in text.split(","))


# Active for the rest of a task's life: what started it may signal it while it still explains why
# it failed, and a warning that comes early must reach the run.
_STOP = StopRequest()


def enter(task: Task) -> None:
    """Describe the process group in this process's environment and note signals from here on."""
    _STOP.__enter__()
    if task.kind == "srun":
        os.environ.update(srun_variables(os.environ, num_visible=visible_gpus()))


@contextmanager
def leading(task: Task | None) -> Iterator[None]:
    """Let the other tasks go when the first one fails before there is a run."""
    try:
        yield
    except BaseException:
        if task is not None and not _Announced.is_done:
            announce("")
        raise


class _Announced:
    is_done = False


def announce(path: str) -> None:
    """Tell the other tasks where the run lies; nothing means that there is none."""
    from mmtool.engine.distributed import share_text

    _Announced.is_done = True
    share_text(path, timeout_s=_MEETING_S)


def follow_first(task: Task) -> int:
    """Be one of the other tasks of a run, without a word; give the exit code."""
    from mmtool.engine.distributed import share_text

    try:
        path = share_text(None, timeout_s=_MEETING_S)
        if not path:
            return RequestError.exit_code
        train_task(RunDir(Path(path)), task)
    except Exception as error:  # noqa: BLE001 - reported by the first task
        return failure(error)[0]
    return 0


def train_task(run: RunDir, task: Task) -> None:
    """Train on this task; a failure is left in the run directory, the first cause is raised."""
    from mmtool.engine.rank import run_rank

    try:
        run_rank(run, _STOP)
    except Exception as error:
        _, report = failure(error)
        write_report(run.path, task.rank, report)
        cause = _cause_elsewhere(run, task) if report["kind"] == "PeerLost" else None
        known = cause or failed(error, where=str(run.path))
        if known is error:
            raise
        raise known from error


def _cause_elsewhere(run: RunDir, task: Task) -> MmtoolError | None:
    """Give the error of the task that failed first, if it has reported one."""
    if not task.is_first:
        return None
    attempt = int(read_launch(run.path)["attempt"])
    deadline = time.monotonic() + _OTHERS_S
    while time.monotonic() < deadline:
        for rank in range(1, task.world):
            report = read_report(run.path, attempt, rank)
            if report is not None and report["kind"] not in ("PeerLost", "StoppedResumable"):
                return rebuilt(run.path, attempt, rank, report, int(report["code"]))
        time.sleep(_POLL_S)
    return None
