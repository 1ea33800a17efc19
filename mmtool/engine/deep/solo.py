"""Runs of single modalities that a run is compared with: found, or trained first and kept.

They lie where methods with teachers look for theirs, named by all that their weights depend on, so
that a dataset, encoder and recipe are trained alone once.
"""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from mmtool.config.links import AUTO, Link, alone
from mmtool.engine.attempt import read_launch
from mmtool.engine.chain import plan_link
from mmtool.engine.deep.record import Tell
from mmtool.engine.deep.reopen import recipe_of_run
from mmtool.engine.job import Job
from mmtool.engine.launch import OnLink, train_beside
from mmtool.errors import MmtoolError, RequestError, StoppedResumable
from mmtool.runlog.rundir import RunDir
from mmtool.types import Modality


def solo_runs(
    run: Path,
    job: Job,
    *,
    named: Sequence[Path],
    is_asked: bool,
    tell: Tell,
    on_link: OnLink,
) -> dict[Modality, Path]:
    """Give a finished run of each modality alone, training those that are asked for and missing.

    What is there is taken in any case.
    """
    found = {_modality_of(path): path.resolve() for path in named}
    missing = [m for m in job.dataset.modalities if m not in found]
    if len(job.dataset.modalities) == 1:
        return found
    links = [Link(m, AUTO, alone(job.recipe, m)) for m in missing]
    if not is_asked:
        return {**found, **_trained(links, run.parent, job.dataset.store.hash)}
    planned = [plan_link(link, run.parent, job.dataset.store.hash) for link in links]

    def hear(event: dict[str, Any]) -> None:
        tell(str(event["message"]))

    root = Path(read_launch(run)["data_root"])
    try:
        train_beside(RunDir(run), planned, root, on_event=hear, on_link=on_link)
    except StoppedResumable as stopped:
        stopped.what = "stopped while training modalities alone"
        stopped.why = "what was trained of them is kept, and so is the run"
        stopped.where, stopped.fix = str(run), f"mmtool diagnose {run} --deep --solo"
        raise
    return {**found, **{one.modality: one.source for one in planned}}


def _trained(links: Sequence[Link], runs_root: Path, store_hash: str) -> dict[Modality, Path]:
    """Give what was trained before and is whole."""
    found = {}
    for link in links:
        with suppress(MmtoolError):
            planned = plan_link(link, runs_root, store_hash)
            if planned.weights is not None:
                found[link.modality] = planned.source
    return found


def _modality_of(run: Path) -> Modality:
    recipe = recipe_of_run(run)
    modalities = recipe.data.modalities or tuple(recipe.model.encoders)
    if len(modalities) != 1:
        raise RequestError(
            f"run {run.name} is not a run of one modality",
            where=str(run),
            why=f"it has {', '.join(modalities)}",
            fix="train one: mmtool train RECIPE -s data.modalities=NAME -s method=none",
        )
    return modalities[0]
