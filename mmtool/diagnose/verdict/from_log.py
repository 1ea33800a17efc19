"""The evidence of the log alone: rates by epoch, drawn anew with their counting error.

The log keeps rates and not samples. A rate is drawn from a binomial distribution of the same size,
a score with a logged standard error from a normal one; all independent, so that differences of
numbers from the same samples come out less certain than they are. Nothing that needs a second look
at the checkpoint is in here: interactions, classes, what an encoder could still learn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mmtool.diagnose.load import Run
from mmtool.diagnose.metrics.balance import Balance, ModalityBalance, Reference
from mmtool.diagnose.metrics.intervals import Z95, Interval
from mmtool.diagnose.rules import _thresholds as limits
from mmtool.diagnose.tables import Row, number, rows
from mmtool.diagnose.verdict.estimates import Quantity, larger, minus, quantity, shares_of
from mmtool.diagnose.verdict.evidence import Gap, Losses

SEED = 20_261_123
Quantities = dict[tuple[str, str], Quantity]


def read_log(balance: Balance) -> tuple[Quantities, tuple[Gap, ...]]:
    """Give the numbers of the chosen epoch, and what the log lacks."""
    rng = np.random.Generator(np.random.Philox(key=SEED))
    found: Quantities = {}
    _put(found, "joint", "", drawn(balance.fused, rng))
    for m in balance.modalities:
        _of_modality(m, rng, found)
    best: Quantity | None = None
    for m in balance.modalities:
        best = larger(best, found.get(("potential", m.modality)))
    _put(found, "surplus", "", minus(found.get(("joint", "")), best))
    lacking = _shares(balance, found)
    return found, lacking


def drawn(interval: Interval | None, rng: np.random.Generator, source: str = "") -> Quantity | None:
    """Give a number of the log with draws of its counting error."""
    if interval is None:
        return None
    num = limits.NUM_RESAMPLES
    if interval.is_rate and interval.n > 0:
        rate = min(max(interval.value, 0.0), 1.0)
        draws = rng.binomial(interval.n, rate, num) / interval.n
    else:
        draws = rng.normal(interval.value, max(interval.half_width, 0.0) / Z95, num)
    return Quantity(interval.value, draws, interval.n, source=source)


def solo_scores(references: Mapping[str, Reference]) -> Quantities:
    """Give the scores of runs that trained one modality alone."""
    rng = np.random.Generator(np.random.Philox(key=SEED + 1))
    found: Quantities = {}
    for m, reference in references.items():
        _put(found, "solo", m, drawn(reference.acc, rng, "solo"))
    return found


def _of_modality(m: ModalityBalance, rng: np.random.Generator, found: Quantities) -> None:
    name = m.modality
    _put(found, "flip", name, drawn(m.flip, rng, "permutation"))
    _put(found, "alone", name, drawn(m.alone, rng, "mean feature"))
    _put(found, "probe", name, drawn(m.learnt, rng, "probe" if m.probe else "own logits"))
    if m.drop is not None:
        draws = rng.normal(m.drop.value, m.drop.half_width / Z95, limits.NUM_RESAMPLES)
        found["drop", name] = Quantity(m.drop.value, draws, m.drop.n, source="permutation")
    reference = drawn(m.reference.acc, rng, "solo") if m.reference else None
    _put(found, "solo", name, reference)
    _put(found, "reference", name, reference)
    _put(found, "potential", name, larger(found.get(("probe", name)), reference))
    _put(found, "gap", name, minus(reference, found.get(("probe", name))))


def _shares(balance: Balance, found: Quantities) -> tuple[Gap, ...]:
    names = [m.modality for m in balance.modalities]
    flips = [found.get(("flip", name)) for name in names]
    known = [flip for flip in flips if flip is not None]
    if len(known) < len(names):
        return (
            (
                f"no {balance.reliance_key} rate for every modality "
                f"(epoch_modalities.{balance.reliance_key})",
                "a run of this version of mmtool, which logs one after every epoch",
            ),
        )
    stacked = np.vstack(
        [[flip.value for flip in known], np.stack([flip.draws for flip in known], axis=1)]
    )
    count = max(min(flip.n for flip in known), 1)
    shares = shares_of(stacked, 0.5 / count)
    for place, name in enumerate(names):
        source = f"{balance.reliance_key}, permutation"
        _put(found, "share", name, quantity(shares[:, place], count, is_share=True, source=source))
    return ()


def read_losses(run: Run, until: int) -> dict[str, Losses]:
    """Give the losses of every modality's own readout, its logits or else its probe."""
    found = {}
    for m in run.modalities:
        for key, source in (("nll", "own logits"), ("probe_nll", "probe")):
            losses = _losses(_by_epoch(run, m, "train", key), _by_epoch(run, m, "val", key), until)
            if losses is not None:
                found[m] = Losses(*losses, source)
                break
    return found


def _by_epoch(run: Run, modality: str, split: str, key: str) -> dict[int, float]:
    table: Sequence[Row] = rows(run.tables.epoch_modalities, split=split, modality=modality)
    known = [(int(r["epoch"]), number(r, key)) for r in table]
    return {epoch: value for epoch, value in known if value is not None}


def _losses(
    train: Mapping[int, float], val: Mapping[int, float], until: int
) -> tuple[float, float, float, int, int] | None:
    common = sorted(epoch for epoch in set(train) & set(val) if epoch <= until)
    if len(common) < limits.MIN_EPOCHS:
        return None
    last, best = common[-1], min(common, key=lambda epoch: val[epoch])
    return train[last], val[last], val[best], best, last


def last_number(run: Run, modality: str, *columns: str) -> float | None:
    """Give the last logged number of a modality in the first of these columns that has one."""
    for column in columns:
        table = rows(run.tables.epoch_modalities, split="val", modality=modality)
        known = [(int(r["epoch"]), v) for r in table if (v := number(r, column)) is not None]
        if known:
            return max(known)[1]
    return None


def _put(found: Quantities, name: str, modality: str, value: Quantity | None) -> None:
    if value is not None:
        found[name, modality] = value
