"""What steps leave behind until the next flush, so that a bad one can be explained (`nonfinite`).

These are references to what a step has computed anyway: a good step pays nothing.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from mmtool.types import Modality


@dataclass(slots=True)
class Evidence:
    """What one step leaves behind until the next flush."""

    step: int
    losses: list[tuple[Tensor, dict[str, Tensor]]] = field(default_factory=list)
    """Store rows and loss terms of every micro-batch of this rank."""
    features: dict[Modality, Tensor] = field(default_factory=dict)
    """Sums over the batch and all ranks."""

    def add_features(self, sums: Mapping[Modality, Tensor]) -> None:
        """Keep the sums of a sub-step."""
        self.features.update(sums)


class EvidenceLog:
    """The evidence of the steps since the last flush."""

    def __init__(self, num_steps: int) -> None:
        self._steps: deque[Evidence] = deque(maxlen=num_steps)

    def begin(self, step: int) -> Evidence:
        """Give an empty record for a step."""
        self._steps.append(Evidence(step))
        return self._steps[-1]

    def of(self, step: int) -> Evidence:
        """Give the record of a step, empty where there is none any more."""
        return next((e for e in self._steps if e.step == step), Evidence(step))

    def clear(self) -> None:
        """Forget all steps."""
        self._steps.clear()
