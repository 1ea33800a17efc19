"""A finished run as a job again, with the weights it was evaluated with."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mmtool.config.links import starts_from_links
from mmtool.config.load import load_recipe
from mmtool.config.schema import Recipe
from mmtool.engine.attempt import read_launch
from mmtool.engine.build import build_job
from mmtool.engine.checkpoint import load_weights
from mmtool.engine.choose import UNREADABLE, choose_checkpoint
from mmtool.engine.deep.headroom import single_process
from mmtool.engine.distributed import Ranks, choose_device
from mmtool.engine.export import checkpoint_facts
from mmtool.engine.job import Job
from mmtool.engine.manifest import newest_first
from mmtool.errors import CheckpointError, RequestError, RunDirectoryError
from mmtool.models.multimodal import MultimodalModel
from mmtool.types import Modality


@dataclass(frozen=True, slots=True)
class Reopened:
    """A run with its selected weights, and its model as it was before the first step."""

    job: Job
    initial: MultimodalModel | None
    """None where what it began with is gone."""

    def close(self) -> None:
        """Release the store."""
        self.job.close()


def recipe_of_run(run: Path, device: str | None = None) -> Recipe:
    """Give the recipe of a run as one process runs it."""
    path = run / "resolved.toml"
    if not path.is_file():
        raise RunDirectoryError(
            f"run {run.name} cannot be opened again",
            where=str(path),
            why="its resolved recipe is missing",
            fix=f"mmtool diagnose {run}    # without --deep it reads the log alone",
        )
    recipe = single_process(load_recipe(str(path)).recipe)
    if device is None:
        return recipe
    return recipe.model_copy(update={"launch": recipe.launch.model_copy(update={"device": device})})


def selected_checkpoint(run: Path, recipe: Recipe) -> Path:
    """Give the checkpoint that a run was, or would be, evaluated with; refuse damaged ones."""
    kind = "best" if recipe.train.select == "best" else "step"
    if not newest_first(run / "ckpt", kind):
        raise CheckpointError(
            f"run {run.name} has no checkpoint to open",
            where=str(run / "ckpt"),
            why="its best weights are kept from the first evaluation on"
            if kind == "best"
            else "it stopped before its first checkpoint, or they were removed",
            fix=f"mmtool train --resume {run}, or: mmtool diagnose {run} without --deep",
        )
    return choose_checkpoint(run / "ckpt", kind)[0]


def reopen(run: Path, *, device: str | None = None) -> Reopened:
    """Build the job of a run again and load its selected weights."""
    recipe = recipe_of_run(run, device)
    path = selected_checkpoint(run, recipe)
    launch = _launch(run)
    links, is_known = _links(recipe, launch.get("teachers", {}))
    ranks = Ranks(device=choose_device(recipe.launch.device))
    job = build_job(recipe, ranks, data_root=Path(launch["data_root"]), links=links)
    try:
        facts = checkpoint_facts(path)
        _check_store(job, run, facts)
        initial = copy.deepcopy(job.model).eval() if is_known else None
        try:
            load_weights(job, path)
        except UNREADABLE as err:
            raise CheckpointError(
                f"{path} does not fit the recipe of the run",
                where=str(run / "resolved.toml"),
                why=str(err).splitlines()[0][:300],
            ) from err
    except BaseException:
        job.close()
        raise
    epoch = int(facts["epoch"])
    job.progress = replace(job.progress, step=int(facts["step"]), epoch=epoch, best_epoch=epoch - 1)
    return Reopened(job, initial)


def _launch(run: Path) -> dict[str, Any]:
    try:
        return read_launch(run)
    except (OSError, ValueError) as error:
        raise RunDirectoryError(
            f"run {run.name} does not say where its data lies",
            where=str(run / "launch.json"),
            why=str(error),
            fix=f"mmtool diagnose {run}    # without --deep it reads the log alone",
        ) from error


def _links(
    recipe: Recipe, teachers: Mapping[Modality, Mapping[str, str]]
) -> tuple[Mapping[Modality, Mapping[str, str]] | None, bool]:
    """Give the models a run was built on, and whether what its encoders began with is known.

    Nothing of teachers is measured, so that stand-ins do where they are gone.
    """
    are_there = all(Path(facts["weights"]).exists() for facts in teachers.values())
    if are_there:
        return teachers, True
    return None, not starts_from_links(recipe)


def _check_store(job: Job, run: Path, facts: Mapping[str, str]) -> None:
    store = job.dataset.store
    if facts.get("dataset_hash", store.hash) == store.hash:
        return
    raise RequestError(
        f"the store is not the one that run {run.name} was trained on",
        where=store.location,
        why=f"its hash is {store.hash[:12]}, the run has {facts['dataset_hash'][:12]}",
        fix="prepare the dataset as it was, or train the recipe again",
    )


def check_solo(job: Job, modality: Modality, solo: Job, run: Path) -> None:
    """Refuse a run that is no model of this modality alone on the same samples."""
    ours, theirs = job.dataset, solo.dataset
    problem = ""
    if theirs.modalities != (modality,):
        problem = f"it reads {', '.join(theirs.modalities)}"
    elif theirs.store.hash != ours.store.hash or theirs.protocol != ours.protocol:
        problem = "it was trained on another store or split"
    elif theirs.task != ours.task or theirs.columns[modality] != ours.columns[modality]:
        problem = "it has another task or reads another column"
    if problem:
        raise RequestError(
            f"run {run.name} cannot stand for {modality} alone", where=str(run), why=problem
        )
