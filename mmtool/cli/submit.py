"""`mmtool train --slurm`: the run becomes a job, several seeds an array of jobs."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mmtool.cli.output import Output

if TYPE_CHECKING:
    from mmtool.config.load import Loaded

SCHEMA = "mmtool.train/1"


@dataclass(frozen=True, slots=True)
class Wish:
    """What the command line says about the job."""

    nodes: int | None
    time: str | None
    partition: str | None
    jobs: int | None

    def as_options(self) -> dict[str, object]:
        """Give the options that have no effect without --slurm."""
        return {"--nodes": self.nodes, "--time": self.time, "--partition": self.partition}


def submit_runs(
    output: Output,
    recipes: "Sequence[Loaded]",
    wish: Wish,
    *,
    roots: tuple[Path, Path],
    label: str | None,
    dry_run: bool,
) -> None:
    """Make the run directories and the script, hand it to SLURM and print the job's number."""
    from mmtool.engine.launch import TrainRequest, prepare_run
    from mmtool.engine.slurm import Job, check_sbatch, script, submit, write_script

    runs_root, data_root = roots
    launch, nodes = recipes[0].recipe.launch, wish.nodes or 1
    job = Job(
        name=f"mmtool-{recipes[0].name}",
        nodes=nodes,
        tasks_per_node=launch.gpus // nodes,
        launch=launch,
        time=wish.time,
        partition=wish.partition,
        num_at_once=wish.jobs,
    )
    if dry_run:
        text = script(job, runs_root.resolve() / "RUN", num_runs=len(recipes))
        output.result(SCHEMA, {"dry_run": True, "script": text}, text.rstrip("\n"))
        return
    check_sbatch()
    argv = ["mmtool", *sys.argv[1:]]
    runs = [
        prepare_run(TrainRequest(loaded, runs_root, data_root, label, argv, is_elsewhere=True))
        for loaded in recipes
    ]
    paths = [run.path.resolve() for run in runs]
    folder = paths[0]
    if len(runs) > 1:
        folder = paths[0].with_name(f"array_{paths[0].name}")
        folder.mkdir()
    path = write_script(job, folder, paths)
    number = submit(path)
    for run in runs:
        run.write_status(state="queued", reason=f"SLURM job {number}", resumable=True, job=number)
        output.info(f"run: {run.path}")
    output.info(f"script: {path}")
    output.result(SCHEMA, {"job": number, "script": path, "runs": paths}, number)
