"""Does it help to do what diagnosis advises? Train, ask, apply the advised patch, train again.

Before and after, two numbers on validation: what a readout finds in the encoder of the modality
that was said to be starved, and how often the fused answer is right.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmtool.config.load import load_recipe
from mmtool.diagnose.api import diagnose
from mmtool.engine.deep.api import deepen
from mmtool.engine.launch import TrainRequest, train
from mmtool.runlog.deep import read_deep
from mmtool.testing.planted.grid import Cell
from mmtool.testing.planted.problem import STARVED
from mmtool.testing.planted.recipe import Setup
from mmtool.testing.planted.runner import run_name, train_problem

STARVED_CELLS = (
    Cell("speed", "mlp", "concat"),
    Cell("shortcut_iid", "mlp", "concat"),
    Cell("three", "mlp", "concat"),
    Cell("scale", "mlp", "concat"),
    Cell("speed", "mlp", "attention"),
)
"""Problems in which a modality could tell more than the model uses."""
_LAST = "train.select=last"


@dataclass(frozen=True, slots=True)
class Scores:
    """What a run reaches on validation."""

    probe: float
    """Readout of the starved modality's encoder; the lowest, of several modalities."""
    alone: float
    """Fused answer with every other modality replaced by its mean; likewise the lowest."""
    fused: float


@dataclass(frozen=True, slots=True)
class Trial:
    """One advised patch, applied."""

    cell: Cell
    seed: int
    place: int
    """Place of the advice in the report, the first is 0."""
    method: str
    patch: str
    before: Scores
    after: Scores


def try_advice(cell: Cell, seed: int, folder: Path, *, most: int = 1) -> list[Trial]:
    """Train a starved problem, and again with each of the first `most` advised patches.

    Empty where the verdict is not that a modality is starved, so that nothing was advised.
    """
    problem, setup = cell.make(seed), Setup(cell.encoder, cell.fusion, seed)
    starved = sorted(problem.truth.modalities)
    folder.mkdir(parents=True, exist_ok=True)
    run = folder / run_name(problem.name, setup)
    if not (run / "deep" / "val.npz").is_file():
        deepen(train_problem(problem, folder, setup))
    verdict = diagnose([run]).metrics["verdict"]
    if verdict["code"] not in STARVED:
        return []
    before = scores(run, starved)
    advised = [one for one in verdict["advice"] if one["recipe_patch"] and one["method"]][:most]
    trials = []
    for place, one in enumerate(advised):
        after = scores(_apply(one, run), starved)
        patch = _in_one_line(one["recipe_patch"])
        trials.append(Trial(cell, seed, place, one["method"], patch, before, after))
    return trials


def _apply(advice: Mapping[str, Any], run: Path) -> Path:
    """Train the advised recipe, which extends that of the run, and measure it."""
    target = run.with_name(f"{run.name}-{advice['method']}")
    if (target / "deep" / "val.npz").is_file():
        return target
    patch = run / f"{advice['method']}.toml"
    patch.write_text(advice["recipe_patch"], encoding="utf-8")
    request = TrainRequest(
        load_recipe(str(patch), [_LAST]),
        runs_root=run.parent,
        data_root=run.parent / "stores",
        directory=target,
    )
    train(request)
    deepen(target, headroom=False)
    return target


def _in_one_line(patch: str) -> str:
    lines = [line.strip() for line in patch.splitlines()]
    return "; ".join(line for line in lines if line and not line.startswith(("#", "extends")))


def scores(run: Path, starved: Sequence[str]) -> Scores:
    """Read a measured run."""
    record = read_deep(run, "val")
    assert record is not None
    arrays = record.arrays
    alone = [arrays["mean.right"][record.subset(m)] for m in starved]
    return Scores(
        probe=min(_mean(arrays[f"probe/{m}.right"]) for m in starved),
        alone=min(_mean(right) for right in alone),
        fused=_mean(arrays["mean.right"][0]),
    )


def _mean(right: np.ndarray) -> float:
    return float(np.nanmean(right))


def advice_table(trials: Sequence[Trial]) -> str:
    """Give a row per problem and patch: means over seeds, before and after."""
    groups: dict[tuple[Cell, str], list[Trial]] = {}
    for trial in trials:
        groups.setdefault((trial.cell, trial.patch), []).append(trial)
    lines = [
        "| problem | fusion | advised patch | place | seeds | probe of the starved | "
        "starved alone | fused | seeds in which probe rises and fused does not fall |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for (cell, patch), members in groups.items():
        columns = [
            cell.problem,
            cell.fusion,
            f"`{patch}`",
            ", ".join(sorted({str(t.place + 1) for t in members})),
            ", ".join(str(t.seed) for t in members),
            *(_change(members, name) for name in ("probe", "alone", "fused")),
            f"{sum(_helps(t) for t in members)}/{len(members)}",
        ]
        lines.append("| " + " | ".join(columns) + " |")
    return "\n".join(lines)


def _helps(trial: Trial) -> bool:
    return trial.after.probe > trial.before.probe and trial.after.fused >= trial.before.fused


def _change(trials: Sequence[Trial], name: str) -> str:
    before = np.mean([getattr(t.before, name) for t in trials])
    after = np.mean([getattr(t.after, name) for t in trials])
    return f"{before:.3f} -> {after:.3f}"
