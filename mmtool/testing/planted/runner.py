"""Train a problem with the real engine in this process, measure it, and give diagnosis' verdict.

The three steps are apart: a run that was trained and measured can be judged again by other rules.
"""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmtool.config.load import load_recipe
from mmtool.diagnose.api import diagnose
from mmtool.engine.deep.api import deepen
from mmtool.engine.launch import TrainRequest, train
from mmtool.runlog.deep import deep_path
from mmtool.testing.planted.problem import Problem, Truth
from mmtool.testing.planted.recipe import Setup, recipe_text, truth_for
from mmtool.testing.planted.store import write_problem


@dataclass(frozen=True, slots=True)
class Judged:
    """What diagnosis said of a trained problem, beside what is true."""

    problem: str
    setup: Setup
    truth: Truth
    code: str
    modalities: frozenset[str]
    confidence: float | None
    runner_up: str

    @property
    def is_right(self) -> bool:
        """Whether the verdict is one that is right."""
        return self.truth.accepts(self.code, self.modalities)

    @property
    def has_finer(self) -> bool:
        """Whether a right verdict also gets the finer point."""
        return self.is_right and (not self.truth.finer or self.code in self.truth.finer)

    @property
    def is_false_alarm(self) -> bool:
        """Whether something is said to be wrong with what is healthy."""
        return self.truth.is_healthy and not self.is_right and self.code != "inconclusive"

    @property
    def said(self) -> str:
        """The verdict as it is written in tables."""
        return in_words(self.code, self.modalities)


def in_words(code: str, modalities: frozenset[str]) -> str:
    """Write a verdict."""
    return f"{code}:{','.join(sorted(modalities))}" if modalities else code


def run_name(problem: str, setup: Setup) -> str:
    """Give the name of the run directory of a problem trained in one way."""
    return f"{problem}-{setup.encoder}-{setup.fusion}-{setup.seed}"


def train_problem(
    problem: Problem, folder: Path, setup: Setup, *, directory: Path | None = None
) -> Path:
    """Write the problem's store, train it and give the run directory."""
    stores = folder / "stores"
    name = run_name(problem.name, setup)
    if not (stores / name / "manifest.json").is_file():
        write_problem(stores / name, problem, setup.encoder)
    recipe = folder / f"{name}.toml"
    recipe.write_text(recipe_text(problem, setup, name), encoding="utf-8")
    try:
        request = TrainRequest(
            load_recipe(str(recipe)),
            runs_root=folder,
            data_root=stores,
            directory=directory or folder / name,
        )
        return train(request).run
    finally:
        recipe.unlink(missing_ok=True)


def measured_run(problem: Problem, folder: Path, setup: Setup, *, solo: bool = False) -> Path:
    """Give the run of a problem, trained and measured now unless it was before.

    `solo` also trains each modality alone. Only what diagnosis reads is kept: neither weights nor
    the store.
    """
    folder.mkdir(parents=True, exist_ok=True)
    run = folder / run_name(problem.name, setup)
    if deep_path(run, "val").is_file():
        return run
    shutil.rmtree(run, ignore_errors=True)
    train_problem(problem, folder, setup)
    deepen(run, solo=solo)
    shutil.rmtree(run / "ckpt")
    shutil.rmtree(folder / "stores" / run.name)
    return run


def verdict_of(run: Path) -> Mapping[str, Any]:
    """Give what diagnosis says of a run as `Report.metrics["verdict"]`."""
    return dict(diagnose([run]).metrics["verdict"])


def judge(problem: Problem, run: Path, setup: Setup) -> Judged:
    """Ask diagnosis about a measured run of a problem."""
    verdict = verdict_of(run)
    second = verdict.get("runner_up")
    return Judged(
        problem=problem.name,
        setup=setup,
        truth=truth_for(problem, setup.fusion),
        code=str(verdict["code"]),
        modalities=frozenset(verdict["modalities"]),
        confidence=verdict.get("confidence"),
        runner_up=in_words(second["code"], frozenset(second["modalities"])) if second else "",
    )
