"""A run as a SLURM job: a script a person can read, edit and submit again.

One task per GPU, started by srun without any launcher between, so that signals reach the ranks and
exit codes come back. The warning before the time limit makes the ranks save; the job then queues
itself again (see `batch`).
"""

import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mmtool.config.schema import LaunchConfig
from mmtool.errors import EnvironmentLacks, RequestError
from mmtool.runlog.rundir import replace_text

WARNING_S = 120
"""How long before the time limit SLURM is asked to warn."""

SCRIPT_NAME = "slurm.sh"
RUNS_NAME = "runs.json"


@dataclass(frozen=True, slots=True)
class Job:
    """What is asked of SLURM for every run."""

    name: str
    nodes: int
    tasks_per_node: int
    launch: LaunchConfig
    time: str | None = None
    partition: str | None = None
    num_at_once: int | None = None
    """Elements of an array that may run at the same time."""

    @property
    def world(self) -> int:
        """Number of ranks."""
        return self.nodes * self.tasks_per_node


def script(job: Job, folder: Path, *, num_runs: int = 1) -> str:
    """Give the text of the batch script in `folder`: that of the run, or of an array."""
    is_array = num_runs > 1
    python = shlex.quote(sys.executable)
    if is_array:
        listed = shlex.quote(str(folder / RUNS_NAME))
        run = f'$("$python" -m mmtool.engine.batch element {listed} "$SLURM_ARRAY_TASK_ID")'
    else:
        run = shlex.quote(str(folder))
    srun = ["srun", "--kill-on-bad-exit=0", "--wait=60"]
    if job.launch.threads is not None:
        srun.append(f"--cpus-per-task={job.launch.threads}")
    lines = [
        "#!/bin/bash",
        f"# Written by mmtool; to submit it again: sbatch {shlex.quote(str(folder / SCRIPT_NAME))}",
        *(f"#SBATCH --{line}" for line in _directives(job, folder, num_runs)),
        "",
        f"python={python}",
        f"run={run}",
        "",
        "# One task per rank; signals reach them and their exit codes come back.",
        "code=0",
        f'{" ".join(srun)} "$python" -m mmtool train --resume "$run" || code=$?',
        "",
        "# Saved before a time limit or a preemption, or a machine failed: queue again, unless",
        "# too little was gained since the last time.",
        'if "$python" -m mmtool.engine.batch requeue \\',
        '    "$run" "$code" "${SLURM_RESTART_COUNT:-0}" "$SECONDS"; then',
        '    scontrol requeue "$SLURM_JOB_ID"',
        "fi",
        'exit "$code"',
    ]
    return "\n".join(lines) + "\n"


def _directives(job: Job, folder: Path, num_runs: int) -> list[str]:
    output = "slurm-%A_%a.out" if num_runs > 1 else "slurm-%j.out"
    lines = [
        f"job-name={shlex.quote(job.name)}",
        f"nodes={job.nodes}",
        f"ntasks-per-node={job.tasks_per_node}",
    ]
    if job.launch.device != "cpu":
        lines.append(f"gpus-per-node={job.tasks_per_node}")
    if job.launch.threads is not None:
        lines.append(f"cpus-per-task={job.launch.threads}")
    if job.time is not None:
        lines.append(f"time={job.time}")
    if job.partition is not None:
        lines.append(f"partition={job.partition}")
    if num_runs > 1:
        at_once = "" if job.num_at_once is None else f"%{job.num_at_once}"
        lines.append(f"array=0-{num_runs - 1}{at_once}")
    return [
        *lines,
        f"signal=USR1@{WARNING_S}",
        "requeue",
        "open-mode=append",
        f"chdir={shlex.quote(str(Path.cwd()))}",
        f"output={shlex.quote(str(folder / output))}",
    ]


def write_script(job: Job, folder: Path, runs: Sequence[Path]) -> Path:
    """Write the script, and for several runs the frozen list of them; give the script's path."""
    path = folder / SCRIPT_NAME
    if len(runs) > 1:
        replace_text(folder / RUNS_NAME, json.dumps([str(run) for run in runs], indent=1) + "\n")
    replace_text(path, script(job, folder, num_runs=len(runs)))
    return path


def check_sbatch() -> None:
    """Refuse to make a job where nothing takes one."""
    if shutil.which("sbatch") is None:
        raise EnvironmentLacks(
            "there is no sbatch on this machine",
            why="--slurm hands the run to SLURM",
            fix="run it on a login node of the cluster, or drop --slurm",
        )


def submit(path: Path) -> str:
    """Hand a script to SLURM and give the number of the job."""
    done = subprocess.run(
        ["sbatch", "--parsable", str(path)],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    if done.returncode != 0:
        raise RequestError(
            "sbatch refused the job",
            where=str(path),
            why=done.stderr.strip() or f"exit code {done.returncode}",
            fix=f"edit the #SBATCH lines, then: sbatch {path}",
        )
    return done.stdout.strip().partition(";")[0]
