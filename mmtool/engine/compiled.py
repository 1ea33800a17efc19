"""Encoders through torch.compile, one graph each, and what became of them.

Encoders are compiled in place, so that parameter names and checkpoints stay as they are. Compiling
happens in the first steps and again when a batch has another size; what torch could not put into
one graph is counted and told with its reason.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from mmtool.models.multimodal import MultimodalModel

_MOST_REASONS = 3


@dataclass(frozen=True, slots=True)
class CompileReport:
    """What torch.compile has made of the encoders so far."""

    num_graphs: int
    num_breaks: int
    reasons: tuple[str, ...] = field(default=())

    def as_fields(self) -> dict[str, Any]:
        """Give the fields of the `compile` event of the run log."""
        text = f"torch.compile: {self.num_graphs} graphs, {self.num_breaks} graph breaks"
        if self.reasons:
            text = f"{text}: {'; '.join(self.reasons)}"
        return {"message": text, "graphs": self.num_graphs, "graph_breaks": self.num_breaks}


class CompiledEncoders:
    """Compiles the encoders of a model, or nothing, and reports once when they have run."""

    def __init__(self, model: MultimodalModel, *, is_used: bool, backend: str = "inductor") -> None:
        self._is_waiting = is_used
        if not is_used:
            return
        self._before = _counts()
        for modality in model.modalities:
            encoder: nn.Module = model.encoders[modality]
            encoder.compile(backend=backend)

    def report(self) -> CompileReport | None:
        """Give the report at the first call after compiled encoders ran, None at any other."""
        if not self._is_waiting:
            return None
        graphs, breaks = _counts()
        graphs, breaks = graphs - self._before[0], breaks - self._before[1]
        if not graphs.total():
            return None
        self._is_waiting = False
        reasons = tuple(f"{n}x {_first_line(r)}" for r, n in breaks.most_common(_MOST_REASONS))
        return CompileReport(graphs.total(), breaks.total(), reasons)


def _counts() -> tuple[Counter[str], Counter[str]]:
    counters: Any = torch._dynamo.utils.counters
    graphs = Counter({"graphs": int(counters["stats"]["unique_graphs"])})
    return graphs, Counter(counters["graph_break"])


def _first_line(reason: str) -> str:
    return reason.strip().splitlines()[0][:120]
