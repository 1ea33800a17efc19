"""Step metrics wait on the device and leave in one copy every `log.every_steps` steps."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from mmtool.engine.timing import PhaseClock


@dataclass(slots=True)
class MetricLog:
    """Collects one row of 0-d device tensors per step."""

    clock: PhaseClock
    _rows: list[Tensor] = field(default_factory=list)
    _names: list[tuple[str, ...]] = field(default_factory=list)
    _facts: list[dict[str, Any]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, metrics: dict[str, Tensor], **facts: Any) -> None:
        """Keep the metrics of a step beside what the host knows of it (step, epoch, n, lr)."""
        self._names.append(tuple(metrics))
        self._rows.append(torch.stack([value.double().reshape(()) for value in metrics.values()]))
        self._facts.append(facts)

    def flush(self) -> list[dict[str, Any]]:
        """Copy everything to the host once and give it as `step` events."""
        if not self._rows:
            return []
        values = iter(torch.cat(self._rows).tolist())
        steps = []
        for names, facts, times in zip(self._names, self._facts, self.clock.read(), strict=True):
            found = {n: next(values) for n in names} | {n: t for n, t in times.items() if "." in n}
            ms = {n: t for n, t in times.items() if "." not in n}
            known = {n: int(ms.pop(n)) for n in ("queue_empty",) if n in ms}
            steps.append({**facts, **known, "ms": ms, **_nested(found)})
        self._rows, self._names, self._facts = [], [], []
        return steps


def _nested(flat: dict[str, float]) -> dict[str, Any]:
    """Turn `score.audio` into m.audio.score, `terms.fused` into terms.fused; add up the loss."""
    record: dict[str, Any] = {"terms": {}, "m": {}}
    for name, value in flat.items():
        kind, _, owner = name.partition(".")
        if not owner:
            record[kind] = value
        elif kind == "terms":
            record["terms"][owner] = value
        else:
            record["m"].setdefault(owner, {})[kind] = value
    record["skipped"] = bool(record.get("skipped", 0.0))
    record["loss"] = sum(record["terms"].values())
    return record
