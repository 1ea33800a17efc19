"""Prediction bias: who is believed when modalities disagree, for which classes, and what is left
when one is missing or damaged.

    conflicts    samples on which the probes of the modalities do not all answer the same; share of
                 m: how often the fused answer is that of m's probe
    per class,   Shapley shares under permutation within the class or group; owned by a modality if
    per group    its share is above 0.72 and, over all of them, the false discoveries of "larger
                 than a fair share" stay below 5 % (Benjamini and Hochberg, 1995). Those of fewer
                 than 30 samples are pooled.
    robustness   fused score with a modality missing (its mean feature), noisy, blank or swapped
                 with that of another sample
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmtool.diagnose.rules import _thresholds as limits
from mmtool.diagnose.verdict.estimates import Floats, Quantity, minus, quantity, shares_of
from mmtool.diagnose.verdict.evidence import Case
from mmtool.diagnose.verdict.from_deep import DeepEvidence

CORRUPTIONS = ("noise", "blank", "swapped")
POOLED = "others, pooled"


def bias_table(case: Case, deep: DeepEvidence | None) -> dict[str, Any]:
    """Give everything about prediction bias as plain data; from the log, what is missing only."""
    if deep is None:
        return {"conflicts": None, "per_class": [], "per_group": [], "robustness": {}}
    return {
        "conflicts": _conflicts(deep),
        "per_class": _owned(deep, "class", _labels(deep)),
        "per_group": _owned(deep, "group", _groups(deep)),
        "robustness": {m: _robustness(case, deep, m) for m in case.modalities},
    }


def _conflicts(deep: DeepEvidence) -> dict[str, Any] | None:
    """Give with which modality the fused answer goes when the modalities' own ones differ."""
    names = deep.val.modalities
    own = [deep.val.array(f"probe/{m}.answer") for m in names]
    fused = deep.val.array("mean.answer")
    if fused is None or any(answers is None for answers in own):
        return None
    stacked = np.stack([answers for answers in own if answers is not None])
    there = deep.val.record.arrays["present"].all(axis=1)
    rows = np.flatnonzero((stacked != stacked[0]).any(axis=0) & there)
    if not len(rows):
        return {"n": 0, "share": {}}
    whole = fused[deep.val.record.subset(*names)][rows]
    agrees = (stacked[:, rows] == whole).T.astype(np.float64)
    means = deep.drawn.means(agrees, rows)
    shares = {m: quantity(means[:, p], len(rows)) for p, m in enumerate(names)}
    return {"n": len(rows), "share": {m: q and q.as_dict() for m, q in shares.items()}}


def _labels(deep: DeepEvidence) -> tuple[NDArray[Any], dict[Any, str]] | None:
    labels = deep.val.array("label")
    if labels is None or labels.ndim != 1 or deep.val.is_regression:
        return None
    names = deep.val.record.head.get("classes") or ()
    words = [str(name) for name in names] if not isinstance(names, int) else []
    return labels, dict(enumerate(words))


def _groups(deep: DeepEvidence) -> tuple[NDArray[Any], dict[Any, str]] | None:
    groups = deep.val.record.arrays["group"]
    num = len(np.unique(groups))
    return (groups, {}) if 1 < num < len(groups) else None


def _owned(
    deep: DeepEvidence, kind: str, given: tuple[NDArray[Any], dict[Any, str]] | None
) -> list[dict[str, Any]]:
    per_sample = deep.val.shapley("permute")
    if given is None or per_sample is None:
        return []
    members, words = given
    parts = _parts(members, words)
    shares = [_shares(deep, per_sample, rows, kind) for _, rows in parts]
    fair = 1 / len(deep.val.modalities)
    best = [int(found[0].argmax()) for found in shares]
    chances = [
        float((1 + (found[1:, at] <= fair).sum()) / len(found))
        for found, at in zip(shares, best, strict=True)
    ]
    passed = discoveries(chances, limits.CLASS_FALSE_DISCOVERIES)
    table = []
    for (name, rows), found, at, sure in zip(parts, shares, best, passed, strict=True):
        owns = sure and found[0, at] > limits.CLASS_OWNED_SHARE
        share = {
            m: q.as_dict()
            for p, m in enumerate(deep.val.modalities)
            if (q := quantity(found[:, p], len(rows), is_share=True))
        }
        owner = deep.val.modalities[at] if owns else None
        table.append({kind: name, "n": len(rows), "share": share, "owned_by": owner})
    return table


def _parts(members: NDArray[Any], words: dict[Any, str]) -> list[tuple[str, NDArray[np.intp]]]:
    """Give the samples of every class or group; small ones together as one."""
    names, counts = np.unique(members, return_counts=True)
    parts = [
        (words.get(int(name), str(name)), np.flatnonzero(members == name))
        for name in names[counts >= limits.MIN_CLASS_SAMPLES]
    ]
    small = np.flatnonzero(np.isin(members, names[counts < limits.MIN_CLASS_SAMPLES]))
    if len(small) >= limits.MIN_CLASS_SAMPLES:
        parts.append((POOLED, small))
    return parts


def _shares(deep: DeepEvidence, per_sample: Floats, rows: NDArray[np.intp], kind: str) -> Floats:
    values = per_sample[:, rows].T
    if kind == "group" and deep.drawn.kind == "group":
        # Whole groups were drawn, which says nothing about the samples within one.
        rng = np.random.Generator(np.random.Philox(key=len(rows)))
        num = len(deep.drawn.weight) - 1
        drawn = rng.multinomial(len(rows), np.full(len(rows), 1 / len(rows)), num) / len(rows)
        known = np.isfinite(values)
        filled = np.where(known, values, 0.0)
        with np.errstate(invalid="ignore", divide="ignore"):
            phi = np.vstack(
                [filled.sum(axis=0) / known.sum(axis=0), drawn @ filled / (drawn @ known)]
            )
    else:
        phi = deep.drawn.means(values, rows)
    phi = np.where(np.isfinite(phi), phi, np.where(np.isfinite(phi[:1]), phi[:1], 0.0))
    return shares_of(phi, 0.5 / len(rows))


def discoveries(chances: Sequence[float], level: float) -> list[bool]:
    """Tell which of several findings hold when so many of them may be false (BH procedure)."""
    order = np.argsort(chances, kind="stable")
    sorted_chances = np.asarray(chances, dtype=float)[order]
    below = sorted_chances <= level * np.arange(1, len(chances) + 1) / max(len(chances), 1)
    count = int(np.flatnonzero(below)[-1]) + 1 if below.any() else 0
    passed = np.zeros(len(chances), dtype=bool)
    passed[order[:count]] = True
    return passed.tolist()


def _robustness(case: Case, deep: DeepEvidence, m: str) -> dict[str, Any]:
    joint = case.quantity("joint")
    found: dict[str, Quantity | None] = {"missing": case.quantity("missing", m)}
    for corruption in CORRUPTIONS:
        scores = deep.val.score(f"{corruption}/{m}")
        if scores is not None:
            means = deep.drawn.means(scores[:, None])[:, 0]
            found[corruption] = quantity(means, int(np.isfinite(scores).sum()))
    table = {}
    for name, left in found.items():
        drop = minus(joint, left)
        if left is not None and drop is not None:
            table[name] = {**left.as_dict(), "drop": drop.as_dict()}
    return table
