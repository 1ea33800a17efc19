"""The evidence of a deep record: every number from the same resamples of the validation samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mmtool.diagnose.rules import _thresholds as limits
from mmtool.diagnose.verdict.estimates import (
    Floats,
    Quantity,
    larger,
    minus,
    quantity,
    shares_of,
)
from mmtool.diagnose.verdict.evidence import Gap
from mmtool.diagnose.verdict.removals import Removals, Score
from mmtool.diagnose.verdict.resamples import Resamples, resamples
from mmtool.runlog.deep import DeepRecord

Quantities = dict[tuple[str, str], Quantity]
MOST_TRAIN_SAMPLES = 5000
BY_REFERENCE = ("solo", "headroom")


@dataclass(frozen=True, slots=True)
class DeepEvidence:
    """A deep record with its resamples and the numbers on them."""

    val: Removals
    train: Removals | None
    drawn: Resamples
    quantities: Quantities
    owners: NDArray[np.int64] | None = None
    """[1 + resample, class]: place in the record's modalities, -1 for none."""
    lacking: tuple[Gap, ...] = ()
    class_shares: Mapping[int, Floats] = field(default_factory=dict)
    """By class, [1 + resample, modality]."""

    def owners_of(self, modalities: Sequence[str]) -> NDArray[np.int64] | None:
        """Give the owners of the classes as places in another order of the modalities."""
        if self.owners is None:
            return None
        place = np.array([list(modalities).index(m) for m in self.val.modalities] + [-1])
        return place[self.owners]

    @property
    def train_joint(self) -> float | None:
        """The fused score on train."""
        values = self.train.values("mean") if self.train else None
        if values is None or self.train is None:
            return None
        return float(values[self.train.record.subset(*self.train.modalities)].mean())


def read_evidence(
    val: DeepRecord,
    train: DeepRecord | None,
    references: Mapping[str, Quantity] | None = None,
) -> DeepEvidence:
    """Compute every number of the two records; `references` are scores of solo runs."""
    removals = Removals(val)
    drawn = resamples(val.arrays["group"])
    found: Quantities = {}
    lacking: list[Gap] = []
    _of_fused(removals, drawn, found)
    phi = _shapley(removals, drawn)
    if phi is None:
        lacking.append(("values of enough subsets of modalities", "mmtool diagnose RUN --deep"))
    else:
        _shares(removals, phi, drawn.n, found)
        _gains(removals, drawn, "phi_gain", found)
    for m in removals.modalities:
        _of_modality(removals, drawn, m, (references or {}).get(m), found)
    _surplus(removals, found)
    kept_train = None if train is None else Removals(train)
    if kept_train is not None and phi is not None:
        _of_train(kept_train, phi, found)
    shares, owners = _classes(removals, drawn)
    return DeepEvidence(
        removals, kept_train, drawn, found, owners, tuple(lacking), class_shares=shares
    )


def _of_fused(removals: Removals, drawn: Resamples, found: Quantities) -> None:
    values = removals.values("mean")
    if values is None:
        values = removals.values("permute")
    if values is not None:
        whole = values[removals.record.subset(*removals.modalities)]
        _put(found, "joint", "", _mean(drawn, whole))
    array = removals.array("emap.row")
    full = removals.array("emap.full_gain" if removals.is_regression else "emap.full_right")
    parts = removals.array("emap.gain" if removals.is_regression else "emap.right")
    if array is None or full is None or parts is None or not len(array):
        return
    rows = np.searchsorted(removals.record.arrays["row"], array)
    gap = drawn.means((full - parts).astype(np.float64)[:, None], rows)[:, 0]
    how = str((removals.record.head.get("emap") or {}).get("how") or "")
    _put(found, "synergy", "", quantity(gap, len(rows), source=how))


def _shapley(removals: Removals, drawn: Resamples, score: Score = "right") -> Floats | None:
    per_sample = removals.shapley("permute", score)
    return None if per_sample is None else drawn.means(per_sample.T)


def _shares(removals: Removals, phi: Floats, n: int, found: Quantities) -> None:
    shares = shares_of(phi, 0.5 / n)
    for place, m in enumerate(removals.modalities):
        _put(
            found,
            "share",
            m,
            quantity(shares[:, place], n, is_share=True, source="Shapley value, permutation"),
        )
        _put(found, "phi", m, quantity(phi[:, place], n))


def _gains(
    removals: Removals,
    drawn: Resamples,
    name: str,
    found: Quantities,
    kept: slice = slice(None),
) -> None:
    """Add the Shapley values of the log probability."""
    per_sample = removals.shapley("permute", "gain")
    if per_sample is None:
        return
    phi = drawn.means(per_sample[:, kept].T)
    for place, m in enumerate(removals.modalities):
        _put(found, name, m, quantity(phi[:, place], drawn.n))


def _of_modality(
    removals: Removals,
    drawn: Resamples,
    m: str,
    given: Quantity | None,
    found: Quantities,
) -> None:
    permuted, replaced = removals.values("permute"), removals.values("mean")
    others, only = removals.without(m), removals.place([m])
    whole = removals.record.subset(*removals.modalities)
    if permuted is not None and others is not None:
        lost = removals.where_present(m, permuted[whole] - permuted[others])
        _put(found, "drop", m, _mean(drawn, lost, "permutation"))
    flips = removals.flips(m)
    if flips is not None:
        _put(found, "flip", m, _mean(drawn, flips, "permutation"))
    if replaced is not None and only is not None:
        _put(found, "alone", m, _mean(drawn, replaced[only], "mean feature"))
    if replaced is not None and others is not None:
        _put(found, "missing", m, _mean(drawn, replaced[others], "mean feature"))
    for source in ("probe", "floor", *BY_REFERENCE):
        scores = removals.score(f"{source}/{m}")
        if scores is not None:
            _put(found, source, m, _mean(drawn, scores, source))
    if given is not None and ("solo", m) not in found:
        found["solo", m] = given
    reference = next((found[s, m] for s in BY_REFERENCE if (s, m) in found), None)
    _put(found, "reference", m, reference)
    _put(found, "potential", m, larger(found.get(("probe", m)), reference))
    _put(found, "gap", m, minus(reference, found.get(("probe", m))))
    losses = removals.score(f"probe/{m}", "gain")
    if losses is not None and not removals.is_regression:
        _put(found, "probe_nll", m, _mean(drawn, -losses))


def _surplus(removals: Removals, found: Quantities) -> None:
    best: Quantity | None = None
    for m in removals.modalities:
        best = larger(best, found.get(("potential", m)))
    _put(found, "surplus", "", minus(found.get(("joint", "")), best))


def _of_train(train: Removals, phi_val: Floats, found: Quantities) -> None:
    """Add what rests on each modality on train; of many samples, some of them are enough."""
    per_sample = train.shapley("permute")
    if per_sample is None:
        return
    step = -(-train.record.n // MOST_TRAIN_SAMPLES)
    kept = slice(None, None, step)
    drawn = resamples(train.record.arrays["group"][kept], len(phi_val) - 1)
    phi = drawn.means(per_sample[:, kept].T)
    shares = shares_of(phi, 0.5 / drawn.n)
    _gains(train, drawn, "train_phi_gain", found, kept)
    for place, m in enumerate(train.modalities):
        name = quantity(shares[:, place], drawn.n, is_share=True)
        _put(found, "train_share", m, name)
        _put(found, "train_phi", m, quantity(phi[:, place], drawn.n))
        _put(found, "memorised", m, quantity(phi[:, place] - phi_val[:, place], drawn.n))


def _classes(
    removals: Removals, drawn: Resamples
) -> tuple[dict[int, Floats], NDArray[np.int64] | None]:
    """Give the shares within every class of enough samples, and who owns it by resample."""
    labels, per_sample = removals.array("label"), removals.shapley("permute")
    if per_sample is None or labels is None or labels.ndim != 1 or removals.is_regression:
        return {}, None
    names, counts = np.unique(labels, return_counts=True)
    shares: dict[int, Floats] = {}
    owners = []
    for name in names[counts >= limits.MIN_CLASS_SAMPLES]:
        rows = np.flatnonzero(labels == name)
        phi = drawn.means(per_sample[:, rows].T, rows)
        known = np.where(np.isfinite(phi), phi, phi[:1])
        if np.isfinite(known).all():
            shares[int(name)] = found = shares_of(known, 0.5 / len(rows))
            is_owned = found.max(axis=1) > limits.CLASS_OWNED_SHARE
            owner = found.argmax(axis=1)
            is_owned &= _knows_best(removals, drawn, rows, owner)
            owners.append(np.where(is_owned, owner, -1))
    return shares, np.stack(owners, axis=1) if owners else None


def _knows_best(
    removals: Removals, drawn: Resamples, rows: NDArray[np.intp], owner: NDArray[np.intp]
) -> NDArray[np.bool_]:
    """Tell on every resample whether the owner alone reaches more than any other within a class.

    Where that was not measured for all of them, its share alone counts.
    """
    potential = []
    for m in removals.modalities:
        sources = [removals.score(f"{source}/{m}") for source in ("probe", *BY_REFERENCE)]
        known = [
            drawn.means(scores[rows, None], rows)[:, 0] for scores in sources if scores is not None
        ]
        if not known:
            return np.ones(len(owner), dtype=bool)
        potential.append(np.nan_to_num(np.maximum.reduce(known)))
    reached = np.stack(potential, axis=1)  # [1 + resample, modality]
    every = np.arange(len(owner))
    own = reached[every, owner]
    others = reached.copy()
    others[every, owner] = -np.inf
    return own - others.max(axis=1) > limits.CLASS_KNOWN_GAP  # type: ignore[no-any-return]


def _mean(drawn: Resamples, values: Floats, source: str = "") -> Quantity | None:
    known = int(np.isfinite(values).sum())
    return quantity(drawn.means(values[:, None])[:, 0], known, source=source)


def _put(found: Quantities, name: str, modality: str, value: Quantity | None) -> None:
    if value is not None:
        found[name, modality] = value
