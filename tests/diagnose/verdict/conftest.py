"""Deep records made by hand: every score is planted to one sample, so the truth is known."""

from collections.abc import Callable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmtool.runlog.deep import DeepRecord, write_deep

CHANCE = 0.125
Make = Callable[..., DeepRecord]


class Recorder:
    """Plants scores; each has its own order of samples, so that they are paired but not equal."""

    def __init__(self, n: int, seed: int) -> None:
        self.n, self.seed = n, seed

    def right(self, score: float, part: int = 0) -> np.ndarray:
        rng = np.random.default_rng([self.seed, part])
        ranks = (rng.permutation(self.n) + 0.5) / self.n
        return (ranks < score).astype(np.float32)


def subsets(num: int) -> np.ndarray:
    """Give all subsets of so many modalities: first all, last none."""
    rows = sorted(product([True, False], repeat=num), key=lambda row: -sum(row))
    return np.array(rows)


def answers(right: np.ndarray, label: np.ndarray, classes: int) -> np.ndarray:
    return np.where(right > 0, label, (label + 1) % classes).astype(np.int32)


def record(
    phi: Mapping[str, float],
    *,
    n: int = 1000,
    classes: int = 8,
    chance: float = CHANCE,
    probe: Mapping[str, float] | None = None,
    headroom: Mapping[str, float] | None = None,
    solo: Mapping[str, float] | None = None,
    alone: Mapping[str, float] | None = None,
    synergy: float | None = 0.0,
    kept: np.ndarray | None = None,
    group: Sequence[int] | None = None,
    split: str = "val",
    seed: int = 0,
    classwise: Callable[[int, str], float] | None = None,
    **head: Any,
) -> DeepRecord:
    """Give a record whose value of a subset is chance plus what each modality kept contributes."""
    names = sorted(phi)
    plant = Recorder(n, seed)
    label = np.arange(n) % classes
    kept = subsets(len(names)) if kept is None else kept
    draws = 2
    values = [chance + sum(phi[m] for m, on in zip(names, row, strict=True) if on) for row in kept]
    permuted = np.stack([[plant.right(v, d) for d in range(draws)] for v in values])
    permuted[0, 1:] = permuted[0, :1]
    if classwise is not None:
        permuted = _by_class(plant, kept, names, label, classwise, chance, draws)
    arrays: dict[str, np.ndarray] = {
        "row": np.arange(n, dtype=np.int64),
        "id": np.array([f"s{i}" for i in range(n)]),
        "group": np.arange(n) if group is None else np.asarray(group),
        "label": label,
        "present": np.ones((n, len(names)), bool),
        "kept": kept,
        "permute.right": permuted,
        "permute.gain": np.log(np.clip(permuted, 0.1, 0.9)),
        "permute.answer": answers(permuted, label, classes),
    }
    mean = permuted[:, 0].copy()
    for m, score in (alone or {}).items():
        only = np.array([m == name for name in names])
        mean[np.flatnonzero((kept == only).all(axis=1))[0]] = plant.right(score)
    arrays |= {"mean.right": mean, "mean.gain": np.log(np.clip(mean, 0.1, 0.9))}
    arrays |= {"mean.answer": answers(mean, label, classes), "conf": np.full_like(mean, 0.8)}
    for source, scores in {"probe": probe, "headroom": headroom, "solo": solo}.items():
        for part, (m, score) in enumerate((scores or {}).items()):
            right = plant.right(score, 10 + part)
            arrays[f"{source}/{m}.right"] = right
            arrays[f"{source}/{m}.gain"] = np.log(np.clip(right, 0.2, 0.9))
            arrays[f"{source}/{m}.answer"] = answers(right, label, classes)
            arrays[f"{source}/{m}.conf"] = np.full(n, 0.7, np.float32)
    if synergy is not None:
        size = min(n, 400)
        whole = np.ones(size, np.float32)
        whole[: int(size * 0.1)] = 0
        parts = whole.copy()
        parts[size - round(size * synergy) :] = 0
        arrays |= {"emap.row": np.arange(size), "emap.right": parts, "emap.full_right": whole}
        arrays |= {"emap.gain": parts - 1, "emap.full_gain": whole - 1}
    about = {
        "split": split,
        "epoch": 5,
        "task": "single_label",
        "modalities": names,
        "classes": [f"class {c}" for c in range(classes)],
        "chance": chance,
        "emap": {"how": "exact", "n": 400, "modalities": names},
        "effective_rank": dict.fromkeys(names, 12.0),
        "update_norm": dict.fromkeys(names, 0.5),
        "trainable": dict.fromkeys(names, True),
    }
    return DeepRecord(about | head, arrays)


def _by_class(
    plant: Recorder,
    kept: np.ndarray,
    names: Sequence[str],
    label: np.ndarray,
    classwise: Callable[[int, str], float],
    chance: float,
    draws: int,
) -> np.ndarray:
    permuted = np.zeros((len(kept), draws, plant.n), np.float32)
    for c in np.unique(label):
        rows = np.flatnonzero(label == c)
        part = Recorder(len(rows), plant.seed + int(c))
        for at, row in enumerate(kept):
            value = chance + sum(
                classwise(int(c), m) for m, on in zip(names, row, strict=True) if on
            )
            for draw in range(draws):
                permuted[at, draw, rows] = part.right(value, 0 if at == 0 else draw)
    return permuted


def as_regression(given: DeepRecord) -> DeepRecord:
    """Give the same record as one of a regression, in which being right is an error of 0."""
    arrays = {k: v for k, v in given.arrays.items() if not k.endswith((".answer", "conf"))}
    for name in list(arrays):
        if name.endswith(("right", "gain")):
            stem = name.removesuffix("right").removesuffix("gain")
            gain = given.arrays[f"{stem}right"] - 1
            arrays[name] = gain if name.endswith("gain") else -gain
    arrays["label"] = given.arrays["label"][:, None].astype(np.float32)
    head = {**given.head, "task": "regression", "metric": "r2", "chance": 0.0}
    return DeepRecord(head, arrays)


@pytest.fixture
def make() -> Make:
    """Make a deep record by hand."""
    return record


@pytest.fixture
def deep_run(plant: Callable[..., Path]) -> Callable[..., Path]:
    """Write a run with deep records beside its log."""

    def build(
        val: DeepRecord, train: DeepRecord | None = None, name: str = "run", **about: Any
    ) -> Path:
        about.setdefault("modalities", dict.fromkeys(val.modalities, "balanced"))
        run = plant(name, **about)
        write_deep(run, val)
        if train is not None:
            write_deep(run, train)
        return run

    return build


class Regression:
    """Turns a run and its record into those of a regression."""

    def record(self, given: DeepRecord) -> DeepRecord:
        return as_regression(given)

    def mark(self, run: Path) -> None:
        log = run / "log" / "rank0.jsonl"
        text = log.read_text(encoding="utf-8")
        marks = '"task": "regression", "metric": "r2", "k": "head"'
        log.write_text(text.replace('"k": "head"', marks, 1), encoding="utf-8")


@pytest.fixture
def regression() -> Regression:
    """Turn things into those of a regression."""
    return Regression()
