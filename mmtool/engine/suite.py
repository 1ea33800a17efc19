"""The runs of a suite: every variant with every seed, which are done, and training one of them.

    runs/<suite>/<variant>_s<seed>_<key>,    key as of a link of a chain (see `chain`)

A run directory is named by what it computes, so that a suite that was stopped, or changed in a few
variants, is continued by starting it again. Nothing here loads torch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mmtool.config.load import Loaded
from mmtool.data.dataset import open_dataset
from mmtool.engine.chain import link_key
from mmtool.engine.launch import TrainRequest, TrainResult, resume, train
from mmtool.runlog.rundir import RunDir, file_name
from mmtool.runlog.suite import SuiteRecord, write_suite

_KEY_LETTERS = 10


@dataclass(frozen=True, slots=True)
class Member:
    """One run of a suite."""

    variant: str
    seed: int
    loaded: Loaded
    run: RunDir

    @property
    def title(self) -> str:
        """The run in words."""
        return f"{self.variant}, seed {self.seed}"

    @property
    def state(self) -> str:
        """Done, or what starting the suite does with it."""
        if self.run.read_status().get("state") == "done":
            return "done"
        return "continued" if self.is_begun else "trained"

    @property
    def is_begun(self) -> bool:
        """Whether there is a directory that a resume can go on from."""
        return self.run.launch_path.is_file() and self.run.resolved_path.is_file()


def plan_members(
    folder: Path, recipes: Mapping[tuple[str, int], Loaded], data_root: Path
) -> list[Member]:
    """Give the runs of a suite from its recipes by variant and seed, in their order."""
    hashes: dict[tuple[str, str | None], str] = {}
    members = []
    for (variant, seed), loaded in recipes.items():
        data = loaded.recipe.data
        if (data.dataset, data.split) not in hashes:
            dataset = open_dataset(data, data_root)
            hashes[data.dataset, data.split] = dataset.store.hash
            dataset.store.close()
        key = link_key(loaded.recipe, hashes[data.dataset, data.split])[:_KEY_LETTERS]
        path = folder / f"{file_name(variant)}_s{seed}_{key}"
        members.append(Member(variant, seed, loaded, RunDir(path.resolve())))
    return members


def keep_record(folder: Path, base: Loaded, recipe: str, members: Sequence[Member]) -> None:
    """Write beside the runs what the suite is meant to hold."""
    comment = [line.removeprefix("#").strip() for line in base.text.splitlines()[:1]]
    published = () if base.suite is None else base.suite.published
    record = SuiteRecord(
        name=base.name,
        recipe=recipe,
        about=comment[0] if base.text.startswith("#") else "",
        seeds=tuple(dict.fromkeys(member.seed for member in members)),
        variants=tuple(dict.fromkeys(member.variant for member in members)),
        runs={member.run.name: member.title for member in members},
        published=[row.model_dump() for row in published],
    )
    write_suite(folder, record)


def train_member(member: Member, request: TrainRequest) -> TrainResult:
    """Train a run of a suite, or continue it; the request says how it is watched."""
    facts: dict[str, Any] = {"suite": {"name": request.runs_root.name, "variant": member.variant}}
    if member.is_begun:
        return resume(
            member.run.path,
            data_root=request.data_root,
            argv=request.argv,
            on_event=request.on_event,
            on_link=request.on_link,
        )
    return train(replace(request, directory=member.run.path, facts=facts))
