"""Linked models for a job: trained ones as its teachers or first weights, or stand-ins.

A teacher has to be asked what it was trained to answer, and must not have been trained on what the
student is tested on; whatever can be told of that from its file is checked.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import torch

from mmtool.config.links import alone, starts_from_links
from mmtool.config.schema import Recipe
from mmtool.data.dataset import Dataset
from mmtool.engine.about import about_weights
from mmtool.engine.export import Exported, load_exported
from mmtool.engine.job import Job
from mmtool.engine.recipe_model import build_method, build_recipe_model, laid_out
from mmtool.engine.teachers import Teacher, Teachers
from mmtool.errors import Bug, CheckpointError, RequestError
from mmtool.types import Modality

_CHECKED = ("column", "kind", "shape", "ragged", "mean", "std")


def take_links(job: Job, links: Mapping[Modality, Mapping[str, str]]) -> list[str]:
    """Give a job its linked models as the launcher found them; give warnings."""
    if not links:
        if job.method.asked().teachers or starts_from_links(job.recipe):
            raise Bug(
                "a run was started without the models it builds on",
                why="a method that needs teachers has an option `teachers` (mmtool.config.links)",
            )
        return []
    warnings: list[str] = []
    members: dict[Modality, Teacher] = {}
    for modality, facts in links.items():
        exported = _load(modality, facts, str(job.device))
        warnings += check_teacher(job, modality, exported, facts["run"])
        for parameter in exported.model.parameters():
            parameter.requires_grad_(False)
        members[modality] = Teacher(exported.model, exported.method)
    take_teachers(job, members)
    return warnings


def take_teachers(job: Job, members: Mapping[Modality, Teacher]) -> None:
    """Let models teach a job, or begin with their weights, as its method asks."""
    if job.method.asked().teachers:
        job.teachers = Teachers(members, job.precision)
    if starts_from_links(job.recipe):
        _start_from(job, members)


def _start_from(job: Job, members: Mapping[Modality, Teacher]) -> None:
    """Copy the encoders of linked models into the model that is trained."""
    state = job.shards.whole_state(job.model)
    for modality, teacher in members.items():
        prefix = f"encoders.{modality}."
        for name, value in teacher.model.state_dict().items():
            if not name.startswith(prefix):
                continue
            here = list(state[name].shape) if name in state else "absent"
            if here != list(value.shape):
                raise RequestError(
                    f"the encoder of {modality} cannot begin with the weights of its linked model",
                    where=f"method.teachers.{modality}",
                    why=f"{name} is {list(value.shape)} there, {here} here",
                    fix=f"-s method.teachers.{modality}=auto",
                )
            state[name] = value
    job.shards.load_whole_state(job.model, state)


def _load(modality: Modality, facts: Mapping[str, str], device: str) -> Exported:
    path = Path(facts["weights"])
    try:
        return load_exported(path, device=device)
    except (OSError, RuntimeError, ValueError, KeyError) as err:
        raise _unreadable(modality, facts, str(err)) from err
    except CheckpointError as err:
        raise _unreadable(modality, facts, err.what) from err


def _unreadable(modality: Modality, facts: Mapping[str, str], why: str) -> CheckpointError:
    again = f"rm -r {facts['run']}    # it is then trained anew"
    return CheckpointError(
        f"the {modality} teacher cannot be read",
        where=facts["weights"],
        why=why.splitlines()[0][:300] if why else "",
        fix=again if facts.get("key") else f"-s method.teachers.{modality}=auto",
    )


def check_teacher(job: Job, modality: Modality, teacher: Exported, where: str) -> list[str]:
    """Refuse a model that cannot teach this modality of a job; give warnings."""
    own = about_weights(job, step=0, epoch=0)
    fix = f"-s method.teachers.{modality}=auto"

    def refuse(what: str, why: str) -> RequestError:
        return RequestError(f"the {modality} teacher {what}", where=where, why=why, fix=fix)

    if tuple(teacher.modalities) != (modality,):
        found = ", ".join(teacher.modalities)
        raise refuse("is a model of something else", f"it reads {found}; a teacher reads one")
    task = teacher.recipe.data.task
    if task != job.dataset.task or teacher.classes != tuple(job.dataset.classes):
        raise refuse("has other answers", f"{task} with {len(teacher.classes)} classes there")
    theirs, ours = teacher.modalities[modality], json.loads(own["modalities"])[modality]
    differing = [key for key in _CHECKED if theirs[key] != ours[key]]
    if differing:
        listed = "; ".join(f"{key}: {theirs[key]} there, {ours[key]} here" for key in differing)
        raise refuse("was trained on other inputs", listed)
    _check_width(job, modality, teacher, refuse)
    same_store = teacher.metadata["dataset_hash"] == own["dataset_hash"]
    if same_store and teacher.metadata["protocol"] != own["protocol"]:
        split = f"split {teacher.metadata['protocol']!r} there, {own['protocol']!r} here"
        raise refuse("may know the test samples", split)
    if same_store:
        return []
    return [
        f"the {modality} teacher was trained on another store ({teacher.metadata['dataset']}, "
        f"hash {teacher.metadata['dataset_hash'][:12]}): it may know samples that are for testing"
    ]


def _check_width(
    job: Job, modality: Modality, teacher: Exported, refuse: Callable[[str, str], RequestError]
) -> None:
    here, there = job.model.feature_dims[modality], teacher.model.feature_dims[modality]
    if job.method.asked().teacher_width and here != there:
        raise refuse(
            "has features of another width",
            f"method {job.recipe.method.name!r} compares features; {there} there, {here} here",
        )


def take_stand_ins(job: Job, relative_to: Path | None = None) -> None:
    """Put untrained models in the place of linked ones, of the same cost and on every rank equal.

    For what never trains a result: dry runs, profiles and tests.
    """
    if not (job.method.asked().teachers or starts_from_links(job.recipe)):
        return
    members = {}
    devices = [job.device] if job.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(job.recipe.train.seed)
        for modality in job.dataset.modalities:
            recipe = alone(job.recipe, modality)
            members[modality] = _stand_in(recipe, job.dataset, modality, relative_to)
            laid_out(members[modality].model, job.device)
    take_teachers(job, members)


def _stand_in(
    recipe: Recipe, dataset: Dataset, modality: Modality, relative_to: Path | None
) -> Teacher:
    seen = replace(dataset, config=recipe.data, modalities=(modality,))
    method = build_method(recipe, relative_to)
    model = build_recipe_model(recipe, seen, method, relative_to)
    model.requires_grad_(False).eval()
    return Teacher(model, method)
