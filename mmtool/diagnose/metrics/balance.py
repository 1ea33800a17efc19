"""Who owns the decision, what survives alone, and what each encoder has learnt.

Three questions with three answers that are never folded into one score:
reliance (how many predictions flip when a modality is permuted), availability (accuracy with every
other modality replaced by its mean) and informativeness (a linear probe on the encoder's features,
or a run with this modality only). Of a regression, predictions do not flip but shift, and in the
place of accuracy stands R^2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mmtool.diagnose.load import Run
from mmtool.diagnose.metrics.intervals import (
    Interval,
    difference,
    drop_interval,
    estimated,
    share_interval,
    share_of_distances,
    wilson,
)
from mmtool.diagnose.rules import _thresholds as limits
from mmtool.diagnose.tables import Row, number, rows
from mmtool.errors import RequestError


@dataclass(frozen=True, slots=True)
class Reference:
    """What a modality reaches when a run trains it alone on the same dataset."""

    run: str
    acc: Interval
    epoch: int


@dataclass(frozen=True, slots=True)
class ModalityBalance:
    """One modality at the chosen epoch; a metric the log does not have is None."""

    modality: str
    flip: Interval | None = None
    """Of a regression the shift, in deviations of the target."""
    share: Interval | None = None
    """Of all flips (or shifts), the part that permuting this modality causes."""
    drop: Interval | None = None
    drop_share: float | None = None
    alone: Interval | None = None
    probe: Interval | None = None
    unimodal: Interval | None = None
    how: str = ""
    reference: Reference | None = None

    @property
    def learnt(self) -> Interval | None:
        """What the encoder has learnt: the probe, or the unimodal logits without probes."""
        return self.probe or self.unimodal

    @property
    def potential(self) -> Interval | None:
        """The most this modality is known to reach."""
        known = [i for i in (self.learnt, self.reference and self.reference.acc) if i]
        return max(known, key=lambda i: i.value, default=None)

    @property
    def gap(self) -> Interval | None:
        """How much the reference run is ahead of what this run's encoder has learnt."""
        if self.reference is None or self.learnt is None:
            return None
        return difference(self.reference.acc, self.learnt)


@dataclass(frozen=True, slots=True)
class Balance:
    """Balance between modalities on one split at one epoch."""

    epoch: int
    split: str
    n: int
    chance: float | None
    fused: Interval | None
    modalities: tuple[ModalityBalance, ...]
    num_epochs: int
    since_epoch: int | None = None
    """First epoch from which the most relied-on modality dominated."""
    metric: str = "accuracy"

    @property
    def reliance_key(self) -> str:
        """How far answers move when a modality is permuted, as the log calls it."""
        return "shift" if self.metric == "r2" else "flip"

    @property
    def strongest(self) -> ModalityBalance | None:
        """The modality with the largest reliance share."""
        shared = [m for m in self.modalities if m.share]
        return max(shared, key=lambda m: m.share.value if m.share else 0.0, default=None)

    @property
    def dominance(self) -> float | None:
        """Largest share, scaled so that 0 is an equal share and 1 is everything."""
        top = self.strongest
        if top is None or top.share is None or len(self.modalities) < 2:
            return None
        fair = 1 / len(self.modalities)
        return (top.share.value - fair) / (1 - fair)

    @property
    def weak(self) -> tuple[ModalityBalance, ...]:
        """Modalities whose share is far below a fair one, interval included."""
        bound = limits.weak_share(len(self.modalities))
        return tuple(m for m in self.modalities if m.share and m.share.high < bound)


def validation_epochs(run: Run) -> list[int]:
    """Give the epochs that have per-modality validation rows."""
    found = {int(r["epoch"]) for r in rows(run.tables.epoch_modalities, split="val")}
    return sorted(found)


def compute_balance(
    run: Run, references: Mapping[str, Reference], epoch: int | None = None
) -> Balance | None:
    """Give the balance at an epoch, the last one unless given; None without validation rows."""
    epochs = validation_epochs(run)
    if not epochs:
        return None
    if epoch is not None and epoch not in epochs:
        raise RequestError(
            f"{run.name} has no validation of epoch {epoch}",
            why=f"validated epochs: {epochs[0]} to {epochs[-1]}",
            fix=f"mmtool diagnose {run.path}",
        )
    chosen = epochs[-1] if epoch is None else epoch
    fused_row = next(iter(rows(run.tables.epochs, split="val", epoch=chosen)), {})
    n = int(fused_row.get("n") or run.tables.head.get("num_val") or 0)
    per_modality = {
        str(r["modality"]): r for r in rows(run.tables.epoch_modalities, split="val", epoch=chosen)
    }
    shares = _shares(per_modality, n)
    return Balance(
        epoch=chosen,
        split="val",
        n=n,
        chance=run.chance,
        fused=score_interval(fused_row, "acc", n),
        modalities=tuple(
            _modality(
                name, per_modality.get(name, {}), n, shares, per_modality, references.get(name)
            )
            for name in run.modalities
        ),
        num_epochs=len(epochs),
        since_epoch=_since_epoch(run, shares, chosen),
        metric=run.metric,
    )


def score_interval(row: Row, key: str, n: int) -> Interval | None:
    """Give a score of a row of the log with its interval."""
    value, error = number(row, key), number(row, f"{key}_se")
    if value is None:
        return None
    return wilson(value, n) if error is None else estimated(value, error, n)


def _shares(per_modality: Mapping[str, Row], n: int) -> dict[str, Interval]:
    shifts = {m: i for m, r in per_modality.items() if (i := score_interval(r, "shift", n))}
    if len(shifts) == len(per_modality) > 1:
        return {name: share_of_distances(shifts, name) for name in shifts}
    flips = {m: f for m, r in per_modality.items() if (f := number(r, "flip")) is not None}
    if len(flips) < len(per_modality) or len(flips) < 2:
        return {}
    permuted = min(num_permuted(row, n) for row in per_modality.values())
    return {name: share_interval(flips, name, permuted) for name in flips}


def num_permuted(row: Row, n: int) -> int:
    """Give the number of samples that a flip rate is of; older logs permuted all."""
    found = number(row, "flip_n")
    return n if found is None else int(found)


def _modality(
    name: str,
    row: Row,
    n: int,
    shares: Mapping[str, Interval],
    everyone: Mapping[str, Row],
    reference: Reference | None,
) -> ModalityBalance:
    def rate(key: str) -> Interval | None:
        return score_interval(row, key, n)

    drop, flip, permuted = number(row, "drop"), number(row, "flip"), num_permuted(row, n)
    positive = [max(number(r, "drop") or 0.0, 0.0) for r in everyone.values()]
    total = sum(positive)
    return ModalityBalance(
        modality=name,
        flip=score_interval(row, "flip", permuted) or score_interval(row, "shift", permuted),
        share=shares.get(name),
        drop=_drop(row, drop, flip, permuted),
        drop_share=None if drop is None or total <= 0 else max(drop, 0.0) / total,
        alone=rate("alone"),
        probe=rate("probe"),
        unimodal=rate("acc"),
        how=str(row.get("how") or ""),
        reference=reference,
    )


def _drop(row: Row, drop: float | None, flip: float | None, n: int) -> Interval | None:
    if number(row, "drop_se") is not None:
        return score_interval(row, "drop", n)
    return None if drop is None else drop_interval(drop, 1.0 if flip is None else flip, n)


def _since_epoch(run: Run, shares: Mapping[str, Interval], chosen: int) -> int | None:
    """First of enough consecutive epochs in which today's strongest modality dominated."""
    if not shares:
        return None
    name = max(shares, key=lambda m: shares[m].value)
    history = [(e, s) for e, s in share_history(run, name) if e <= chosen]
    needed = min(limits.SINCE_EPOCHS, len(history))
    streak: list[int] = []
    for epoch, share in history:
        over = share.value > limits.SINCE_SHARE and share.low > limits.SINCE_SHARE_LOW
        streak = [*streak, epoch] if over else []
        if len(streak) >= needed > 0:
            return streak[0]
    return None


def share_history(run: Run, modality: str) -> list[tuple[int, Interval]]:
    """Give a modality's reliance share at every epoch that has one."""
    totals = {int(r["epoch"]): int(r.get("n") or 0) for r in rows(run.tables.epochs, split="val")}
    by_epoch: dict[int, dict[str, Row]] = {}
    for row in rows(run.tables.epoch_modalities, split="val"):
        by_epoch.setdefault(int(row["epoch"]), {})[str(row["modality"])] = row
    history = []
    for epoch, per_modality in sorted(by_epoch.items()):
        share = _shares(per_modality, totals.get(epoch, 0)).get(modality)
        if share:
            history.append((epoch, share))
    return history


def reference_from(run: Run) -> Reference | None:
    """Give the validation score of a run that trained one modality alone, at its best epoch."""
    known = [r for r in rows(run.tables.epochs, split="val") if r.get("acc") is not None]
    if not known:
        return None
    best = max(known, key=lambda r: float(r["acc"]))
    n = int(best.get("n") or run.tables.head.get("num_val") or 0)
    acc = score_interval(best, "acc", n)
    return None if acc is None else Reference(run.name, acc, int(best["epoch"]))


def balance_table(balance: Balance) -> dict[str, Any]:
    """Give the balance as plain data for the report."""
    return {
        "epoch": balance.epoch,
        "split": balance.split,
        "n": balance.n,
        "metric": balance.metric,
        "chance": balance.chance,
        "fused": balance.fused and balance.fused.as_dict(),
        "dominance": balance.dominance,
        "since_epoch": balance.since_epoch,
        "modalities": [_modality_table(m, balance.reliance_key) for m in balance.modalities],
    }


def _modality_table(m: ModalityBalance, reliance_key: str) -> dict[str, Any]:
    intervals = {
        reliance_key: m.flip,
        "share": m.share,
        "drop": m.drop,
        "alone": m.alone,
        "probe": m.probe,
        "unimodal": m.unimodal,
        "reference": m.reference and m.reference.acc,
        "gap": m.gap,
    }
    table: dict[str, Any] = {key: i and i.as_dict() for key, i in intervals.items()}
    table |= {"modality": m.modality, "how": m.how, "drop_share": m.drop_share}
    table["reference_run"] = m.reference and m.reference.run
    return table
