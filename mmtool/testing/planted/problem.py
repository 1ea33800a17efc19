"""A problem with known truth: its samples, what diagnosis must say of it, and how it is trained."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mmtool.types import TaskKind

Floats: TypeAlias = NDArray[np.floating[Any]]
Labels: TypeAlias = NDArray[np.int64]
Mask: TypeAlias = NDArray[np.bool_]

HEALTHY = frozenset({"balanced", "balanced-redundant", "balanced-complementary"})
STARVED = frozenset({"under-trained", "neglected"})
NOTHING_NAMED: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Truth:
    """The verdict that is right."""

    codes: frozenset[str]
    """Codes of which any is right."""
    modalities: frozenset[str] = NOTHING_NAMED
    """Modalities the verdict has to name, no fewer and no others; empty where none is at fault."""
    finer: frozenset[str] = NOTHING_NAMED
    """Of `codes`, those that also get the finer point: redundant, or encoder against fusion."""
    additive: "Truth | None" = None
    """What is right where the fusion adds up a part per modality, if that differs."""

    @property
    def is_healthy(self) -> bool:
        """Whether an alarm about this problem would be a false one."""
        return self.codes <= HEALTHY

    def accepts(self, code: str, modalities: frozenset[str]) -> bool:
        """Tell whether a verdict is right."""
        named = modalities if self.modalities else NOTHING_NAMED
        return code in self.codes and named == self.modalities

    def in_words(self) -> str:
        """Give the verdict as it is written in tables."""
        codes = "balanced" if self.codes == HEALTHY else " or ".join(sorted(self.codes))
        return codes + (f":{','.join(sorted(self.modalities))}" if self.modalities else "")


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is drawn."""

    train: int = 2000
    val: int = 1000
    classes: int = 8

    @property
    def total(self) -> int:
        """Samples of both splits."""
        return self.train + self.val


@dataclass(frozen=True, slots=True)
class Problem:
    """Samples of a problem; the first `num_train` rows are to be trained on."""

    name: str
    inputs: Mapping[str, Floats]
    """Modality -> [sample, value]."""
    labels: Labels
    num_train: int
    num_classes: int
    truth: Truth
    task: TaskKind = "single_label"
    present: Mapping[str, Mask] = field(default_factory=dict)
    """Which samples have a modality, where not all have it; [sample]."""
    values: Floats | None = None
    """The number to be answered, of a regression; [sample]."""
    label_sets: Mask | None = None
    """The classes of each sample, of several labels; [sample, class]."""
    epochs: int = 15
    hidden: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Hidden layers of a modality's mlp, where they are not the usual ones."""
    dead: frozenset[str] = NOTHING_NAMED
    """Modalities whose encoder cannot learn: its last ReLU never opens."""

    @property
    def modalities(self) -> tuple[str, ...]:
        """Modalities by name."""
        return tuple(sorted(self.inputs))

    @property
    def train(self) -> slice:
        """Rows that are trained on."""
        return slice(0, self.num_train)

    @property
    def val(self) -> slice:
        """Rows that are held out."""
        return slice(self.num_train, len(self.labels))
