"""The few shapes that rooms hand to each other; torch is imported for type checking only.

A sample's life: store rows -> `Batch` -> encoders -> `Outputs` -> named losses -> gradients.
Modalities are always iterated in the sorted order of the recipe, so that every rank issues its
collectives in the same order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

if TYPE_CHECKING:
    from torch import Tensor

Modality: TypeAlias = str
GroupName: TypeAlias = str

FUSION_GROUP: GroupName = "fusion"
"""Name of the parameter group that belongs to no single modality."""

PROBE_GROUP: GroupName = "probes"
"""Name of the group of detached linear probes; never clipped, modulated or counted in norms."""

InputKind = Literal["wave", "spectrogram", "frames", "series", "tokens"]
UnimodalWay = Literal["decompose", "head", "ablate"]
ParameterKind = Literal["all", "matrix", "conv"]
TaskKind = Literal["single_label", "multi_label", "regression"]
TASKS: frozenset[TaskKind] = frozenset(("single_label", "multi_label", "regression"))


@dataclass(frozen=True, slots=True)
class InputSpec:
    """What one modality looks like when it reaches its encoder."""

    kind: InputKind
    shape: tuple[int, ...]
    """Of one sample: frames [channels, height, width] or [num_frames, channels, height, width],
    spectrogram [1, mel, time]; of one time step when ragged: series [channels], wave, tokens []."""
    ragged: bool = False


@dataclass(frozen=True, slots=True)
class Batch:
    """One micro-batch of one rank, on the device."""

    inputs: dict[Modality, Tensor]  # modality -> [batch, ...]
    lengths: dict[Modality, Tensor]  # ragged modalities only -> [batch], true lengths
    present: Tensor  # [batch, modality] bool, columns in `modalities` order
    label: Tensor  # [batch] int64; multi_label and regression: [batch, output] float32
    index: Tensor  # [batch] int64, row in the store
    modalities: tuple[Modality, ...]
    weight: Tensor | None = None  # [batch] loss weight, None for ones; 0 marks padding
    task: TaskKind = "single_label"

    @property
    def size(self) -> int:
        """Number of samples in this micro-batch on this rank."""
        return int(self.label.shape[0])

    def only(self, modalities: Sequence[Modality]) -> Batch:
        """Give the same samples with every other modality marked absent and its input dropped."""
        present = self.present.clone()
        for position, modality in enumerate(self.modalities):
            if modality not in modalities:  # a mask made of Python values would be waited for
                present[:, position].fill_(False)
        return replace(
            self,
            inputs={m: x for m, x in self.inputs.items() if m in modalities},
            present=present,
        )

    def alone(self, modality: Modality) -> Batch:
        """Give the same samples as a batch that has one modality and knows of no other."""
        position = self.modalities.index(modality)
        return replace(
            self,
            inputs={m: x for m, x in self.inputs.items() if m == modality},
            lengths={m: x for m, x in self.lengths.items() if m == modality},
            present=self.present[:, position : position + 1],
            modalities=(modality,),
        )


Fuse: TypeAlias = "Callable[[Mapping[Modality, Tensor]], Tensor]"
"""Features of every modality -> fused logits in float32, [batch, class]."""


@dataclass(frozen=True, slots=True)
class Outputs:
    """What the model returns for a batch."""

    features: dict[Modality, Tensor]  # modality -> [batch, dim], pooled encoder output
    logits: Tensor  # [batch, class]
    unimodal: dict[Modality, Tensor] = field(default_factory=dict)  # -> [batch, class]
    fuse: Fuse | None = None
    """Fuses any features, with gradient; only for methods with `Needs.subsets`."""
    absent: dict[Modality, Tensor] = field(default_factory=dict)
    """What stands for a modality left out, as `Needs.subsets` says; -> [1 or batch, dim]."""
    teacher_features: dict[Modality, Tensor] = field(default_factory=dict)  # -> [batch, dim]
    teacher_logits: dict[Modality, Tensor] = field(default_factory=dict)  # -> [batch, class]
    present: Tensor | None = None
    """Which modalities the samples have, for `predict`; [batch, modality] bool, None for all."""


@dataclass(frozen=True, slots=True)
class Needs:
    """What a method asks of the model, the data and the engine; checked before anything runs."""

    unimodal: Literal["none", "any", "decompose", "head", "ablate"] = "none"
    """How logits per modality are obtained; `any` lets the model choose by its fusion."""
    trains_heads: bool = False
    """The gradient of the unimodal logits reaches the encoders (heads are not detached)."""
    term_gradients: tuple[str, ...] = ()
    """Names of losses whose gradients are wanted separately, per parameter group."""
    epoch_statistics: frozenset[str] = frozenset()
    """Statistics collected by a pass over data between epochs: features, class_means, losses."""
    snapshots: frozenset[Literal["initial", "epoch_start"]] = frozenset()
    sample_index: bool = False
    held_out: bool = False
    subsets: Literal["none", "mean", "zero", "blank"] = "none"
    """Whether losses fuse features themselves (`Outputs.fuse`), and what `Outputs.absent` holds:
    the modality's mean feature, zeros, or the encoder's feature of an all-zero input."""
    teachers: bool = False
    """Frozen unimodal models run beside the student; named by the method's option `teachers`."""
    teacher_width: bool = False
    """Compares features with the teachers', which must be equally wide."""
    branches: bool = False
    """Trains for some epochs along branches that are taken back afterwards (`plan_branches`)."""
    gradient_products: bool = False
    """Compares gradients of its losses between epochs (`EpochContext.gradient_products`)."""
    second_order: bool = False
    scales_gradients: bool = False
    """Multiplies gradients by a coefficient, which Adam largely cancels."""
    min_modalities: int = 1
    max_modalities: int | None = None
    fusions: frozenset[str] = frozenset()
    """Fusions it can work with; empty means any."""
    tasks: frozenset[TaskKind] = TASKS


@dataclass(frozen=True, slots=True)
class SubStep:
    """One optimiser step within a batch; most methods have exactly one."""

    modalities: tuple[Modality, ...]
    """Encoders that run; the others are absent from the batch."""
    groups: tuple[GroupName, ...]
    """Parameter groups that are updated."""
    name: str = "joint"
    frozen: tuple[Modality, ...] = ()
    """Encoders that run as in evaluation: with running statistics, which stay as they are."""


class GradGroups(Protocol):
    """The only door to gradients: tensors grouped by modality, already reduced over ranks.

    Every factor is a 0-d device tensor; nothing here reads a value back to the host.
    """

    def names(self) -> tuple[GroupName, ...]:
        """Group names in collective order: modalities sorted, then `fusion`."""

    def tensors(self, group: GroupName, kind: ParameterKind = "all") -> Sequence[Tensor]:
        """Gradients of one group; `conv` keeps 3-d and larger, `matrix` 2-d and larger.

        With a fusion that exchanges between encoders, `exchange.<modality>` names what of it lets
        that encoder hear the others; for reading here and in `values`.
        """

    def scale(self, group: GroupName, factor: Tensor, kind: ParameterKind = "all") -> None:
        """Multiply the gradients of a group in place."""

    def scale_update(self, group: GroupName, factor: Tensor, kind: ParameterKind = "all") -> None:
        """Multiply the coming optimiser update instead of the gradient (for Adam)."""

    def add_noise(self, group: GroupName, strength: Tensor, kind: ParameterKind = "all") -> None:
        """Add N(0, (strength * std)^2) noise per tensor, the same on every rank.

        std is the unbiased standard deviation of the gradient as it was before any `scale`.
        """

    def norm(self, group: GroupName) -> Tensor:
        """Euclidean norm over a group, 0-d."""

    def values(self, group: GroupName, kind: ParameterKind = "all") -> Sequence[Tensor]:
        """Parameter values that belong to `tensors(group, kind)`, one for one; to be read only."""

    def snapshot(
        self, group: GroupName, moment: str, kind: ParameterKind = "all"
    ) -> Sequence[Tensor]:
        """Values at a moment of `Needs.snapshots`, one for one with `tensors(group, kind)`."""

    def replace(
        self, group: GroupName, tensors: Sequence[Tensor], kind: ParameterKind = "all"
    ) -> None:
        """Put other gradients in the place of `tensors(group, kind)`, one for one."""


def sorted_modalities(names: Iterable[Modality]) -> tuple[Modality, ...]:
    """Give the one order in which modalities are iterated everywhere."""
    return tuple(sorted(names))
