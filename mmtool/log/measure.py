"""Who decides: cached features are permuted or replaced, and the fusion is asked again."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmtool.errors import RequestError

NUM_PERMUTATIONS = 3
CHUNK = 512
MAX_RANKED = 512
"""Samples of which the effective rank is taken."""
_SEED = 20_230_517
_WORST = -float(np.log(1e-6))
_NO_SPREAD = 1e-9

Fuse = Callable[[Mapping[str, Any]], Any]


def measure(features: Mapping[str, Any], labels: Any, fuse: Fuse | None) -> dict[str, Any]:
    """Give the fields of an `epoch` event; of any array library whose arrays `fuse` takes.

    `flip` is the mean share of answers that change when a modality is permuted over the samples,
    `drop` the accuracy that this costs, `alone` the accuracy with every other modality replaced by
    its mean over these samples. `erank` is the effective rank of the centred features, by which a
    dead encoder is told: the exponential of the entropy of their normalised singular values.
    """
    truth = to_numpy(labels).reshape(-1).astype(np.int64)
    for name, values in features.items():
        if len(values) != len(truth):
            raise RequestError(
                f"{name} has {len(values)} rows of features, but there are {len(truth)} labels",
                why="flip rates need one row per sample of the split",
            )
    if len(truth) and truth.min() < 0:
        raise RequestError(
            f"a label is {truth.min()}",
            why="labels are the numbers of classes, from 0",
            fix="leave samples without a label out",
        )
    chance = float(np.bincount(truth).max() / len(truth)) if len(truth) else None
    ranks = {m: {"erank": effective_rank(z)} if len(truth) else {} for m, z in features.items()}
    found: dict[str, Any] = {"n": len(truth), "chance": chance, "m": ranks}
    if fuse is None or not len(truth):
        return found
    with _evaluation(fuse):
        logits = _logits(fuse, features, len(truth))
        found["loss"] = _mean_nll(logits, truth)
        found["acc"] = float((logits.argmax(axis=1) == truth).mean())
        found["metric"] = "accuracy"
        if len(truth) > 1:
            for name in features:
                found["m"][name] |= _of_modality(fuse, features, name, truth, logits)
    return found


def effective_rank(features: Any) -> float:
    """Give the effective rank of features, pooled to a vector per sample; 0 where all are equal."""
    rows = to_numpy(features[:MAX_RANKED]).astype(np.float64)
    if rows.ndim == 3:
        rows = rows.mean(axis=1)
    rows = rows.reshape(*rows.shape[:2], -1).mean(axis=2) if rows.ndim > 3 else rows
    rows = rows.reshape(len(rows), -1)
    if not np.isfinite(rows).all():
        return float("nan")
    values = np.linalg.svd(rows - rows.mean(axis=0), compute_uv=False)
    if values.sum() <= _NO_SPREAD * max(abs(rows).max(), 1.0):
        return 0.0
    shares = values[values > 0] / values.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


def to_numpy(values: Any) -> NDArray[Any]:
    """Give an array of any library as numpy's."""
    for step in ("detach", "float", "cpu"):
        method = getattr(values, step, None)
        values = method() if callable(method) else values
    return np.asarray(values)


def _of_modality(
    fuse: Fuse,
    features: Mapping[str, Any],
    name: str,
    truth: NDArray[Any],
    logits: NDArray[Any],
) -> dict[str, float]:
    size, answers = len(truth), logits.argmax(axis=1)
    random = np.random.default_rng(_SEED)
    flips, accs, losses = [], [], []
    for _ in range(NUM_PERMUTATIONS):
        permuted = {**features, name: _taken(features[name], _derangement(size, random))}
        swapped = _logits(fuse, permuted, size)
        said = swapped.argmax(axis=1)
        flips.append(float((said != answers).mean()))
        accs.append(float((said == truth).mean()))
        losses.append(_mean_nll(swapped, truth, most=_WORST))
    others = {m: z if m == name else z * 0 + z.mean(0) for m, z in features.items()}
    alone = _logits(fuse, others, size).argmax(axis=1)
    return {
        "flip": float(np.mean(flips)),
        "drop": float((answers == truth).mean() - np.mean(accs)),
        "drop_nll": float(np.mean(losses)) - _mean_nll(logits, truth, most=_WORST),
        "alone": float((alone == truth).mean()),
    }


def _logits(fuse: Fuse, features: Mapping[str, Any], size: int) -> NDArray[Any]:
    """Ask the fusion chunk by chunk, so that a large split needs no large pass."""
    parts = []
    for at in range(0, size, CHUNK):
        logits = to_numpy(fuse({m: z[at : at + CHUNK] for m, z in features.items()}))
        if logits.ndim != 2 or logits.shape[1] < 2:
            raise RequestError(
                f"fuse gave an array of shape {logits.shape}",
                why="it is asked for the logits of classes, [samples, classes]",
            )
        parts.append(logits.astype(np.float64))
    return np.concatenate(parts)


def _derangement(size: int, random: np.random.Generator) -> NDArray[np.intp]:
    """Give a permutation that leaves no sample in its place."""
    order = random.permutation(size)
    moved = np.empty(size, dtype=np.intp)
    moved[order] = np.roll(order, 1)
    return moved


def _taken(values: Any, rows: NDArray[np.intp]) -> Any:
    if hasattr(values, "index_select"):
        import torch

        return values.index_select(0, torch.from_numpy(rows).to(values.device))
    return values[rows]


def _mean_nll(logits: NDArray[Any], truth: NDArray[Any], most: float = np.inf) -> float:
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_total = np.log(np.exp(shifted).sum(axis=1))
    losses = log_total - shifted[np.arange(len(truth)), truth]
    return float(np.minimum(losses, most).mean())


@contextmanager
def _evaluation(fuse: Any) -> Iterator[None]:
    """Keep gradients out, and dropout too if the fusion is a torch module or a method of one."""
    torch = sys.modules.get("torch")
    if torch is None:
        yield
        return
    module = getattr(fuse, "__self__", fuse)
    modules = list(module.modules()) if isinstance(module, torch.nn.Module) else []
    was_training = [(m, m.training) for m in modules]
    try:
        for m in modules:
            m.training = False
        with torch.no_grad():
            yield
    finally:
        for m, training in was_training:
            m.training = training
