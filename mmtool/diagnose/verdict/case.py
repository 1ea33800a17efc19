"""From a run to the case its verdict is decided on: its deep record if it has one, or its log."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from mmtool.diagnose.load import Run
from mmtool.diagnose.metrics.balance import Balance, Reference
from mmtool.diagnose.tables import number, rows
from mmtool.diagnose.verdict.estimates import Quantity
from mmtool.diagnose.verdict.evidence import Case, Losses
from mmtool.diagnose.verdict.from_deep import DeepEvidence, read_evidence
from mmtool.diagnose.verdict.from_log import last_number, read_log, read_losses, solo_scores
from mmtool.runlog.deep import DeepRecord, read_deep


@dataclass(frozen=True, slots=True)
class Read:
    """A case, and the deep record behind it where there is one."""

    case: Case
    deep: DeepEvidence | None


def read_case(
    run: Run,
    balance: Balance | None,
    references: Mapping[str, Reference],
    epoch: int | None = None,
) -> Read:
    """Gather what is known about a run at an epoch; unless given, that of the deep record."""
    val = read_deep(run.path, "val")
    fits = val is not None and set(val.modalities) == set(run.modalities) and val.n > 0
    if val is not None and fits and epoch in (None, val.head.get("epoch")):
        return _from_deep(run, balance, references, val)
    return Read(_from_log(run, balance), None)


def _from_deep(
    run: Run, balance: Balance | None, references: Mapping[str, Reference], val: DeepRecord
) -> Read:
    solo = {m: q for (_, m), q in solo_scores(references).items()}
    deep = read_evidence(val, read_deep(run.path, "train"), solo)
    head = val.head
    epoch = int(head.get("epoch") or 0)
    losses = read_losses(run, epoch)
    quantities = dict(deep.quantities) | _drawn_losses(losses, deep.quantities)
    case = Case(
        modalities=run.modalities,
        basis="deep",
        n=val.n,
        num_epochs=balance.num_epochs if balance else epoch + 1,
        chance=_chance(run, head.get("chance")),
        task=run.task,
        metric=run.metric,
        log_classes=run.log_classes,
        quantities=quantities,
        lacking=deep.lacking,
        effective_rank=_numbers(head.get("effective_rank")),
        update_norm=_numbers(head.get("update_norm")),
        frozen=frozenset(m for m, on in (head.get("trainable") or {}).items() if not on),
        losses=losses,
        owners=deep.owners_of(run.modalities),
        train_joint=deep.train_joint if deep.train else _train_joint(run, epoch),
        clusters=(deep.drawn.kind, deep.drawn.num_clusters),
        since_epoch=balance.since_epoch if balance else None,
        epoch=epoch,
        solo_runs={**{m: r.run for m, r in references.items()}, **(head.get("solo") or {})},
    )
    return Read(case, deep)


def _from_log(run: Run, balance: Balance | None) -> Case:
    case = Case(
        modalities=run.modalities,
        basis="log",
        n=0,
        num_epochs=0,
        chance=_chance(run, None),
        task=run.task,
        metric=run.metric,
        log_classes=run.log_classes,
        lacking=(
            ("no per-modality columns in this log", "what foreign-log says, in the training")
            if run.foreign
            else ("no per-modality validation rows", "let the run finish at least one epoch"),
        ),
    )
    if balance is None:
        return case
    quantities, lacking = read_log(balance)
    return replace(
        case,
        n=balance.n,
        num_epochs=balance.num_epochs,
        quantities=quantities,
        lacking=lacking,
        effective_rank=_last(run, "erank", "effective_rank"),
        losses=read_losses(run, balance.epoch),
        train_joint=_train_joint(run, balance.epoch),
        clusters=("sample", balance.n),
        since_epoch=balance.since_epoch,
        epoch=balance.epoch,
        solo_runs={m.modality: m.reference.run for m in balance.modalities if m.reference},
    )


def _chance(run: Run, given: object) -> float:
    if run.task == "regression":
        return 0.0
    if isinstance(given, int | float):
        return float(given)
    return run.chance or 0.0


def _numbers(table: Mapping[str, object] | None) -> dict[str, float]:
    return {m: float(v) for m, v in (table or {}).items() if isinstance(v, int | float)}


def _last(run: Run, *columns: str) -> dict[str, float]:
    known = [(m, last_number(run, m, *columns)) for m in run.modalities]
    return {m: value for m, value in known if value is not None}


def _train_joint(run: Run, epoch: int) -> float | None:
    row = next(iter(rows(run.tables.epochs, split="train", epoch=epoch)), {})
    return number(row, "acc")


def _drawn_losses(
    losses: Mapping[str, Losses], found: Mapping[tuple[str, str], Quantity]
) -> dict[tuple[str, str], Quantity]:
    """Give validation losses of the log with the relative error of those of the re-fitted probe."""
    drawn = {}
    for m, known in losses.items():
        probe = found.get(("probe_nll", m))
        if probe is not None and probe.value > 0:
            draws = probe.draws * (known.val / probe.value)
            drawn["nll", m] = Quantity(known.val, draws, probe.n, source=known.source)
    return drawn
