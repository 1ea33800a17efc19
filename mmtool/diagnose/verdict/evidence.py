"""What a verdict is decided from: named numbers on the samples, or on one resample of them.

Numbers of one modality, each an `Estimate` or None where it is not known:

    share      part of the decision that rests on it: of the Shapley values under permutation, or,
               from the log alone, of the predictions that flip
    drop       fused score minus that with the modality permuted
    alone      fused score with all others replaced by their mean feature
    probe      linear readout of its encoder's features
    floor      the same of the encoder before the first step
    reference  after training it alone: solo run, or headroom of this checkpoint's encoder
    potential  the larger of probe and reference
    gap        reference minus probe
    train_share, memorised   share on train, and Shapley value on train minus on val
    nll        validation loss of its own readout

and of the run: joint, synergy (joint minus joint without interactions), surplus (joint minus the
best potential).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mmtool.diagnose.rules import _thresholds as limits
from mmtool.diagnose.verdict.estimates import Estimate, Quantity

Gap = tuple[str, str]
"""What is lacking, and what would supply it."""


@dataclass(frozen=True, slots=True)
class Losses:
    """Losses of a modality's own readout over the epochs."""

    train: float
    val: float
    lowest_val: float
    lowest_epoch: int
    epoch: int
    source: str


@dataclass(frozen=True, slots=True)
class Case:
    """Everything known about a run, with every number on all resamples."""

    modalities: tuple[str, ...]
    basis: str
    """Where the numbers come from: deep or log."""
    n: int
    num_epochs: int
    chance: float
    task: str = "single_label"
    metric: str = "accuracy"
    log_classes: float = 1.0
    quantities: Mapping[tuple[str, str], Quantity] = field(default_factory=dict)
    lacking: tuple[Gap, ...] = ()
    effective_rank: Mapping[str, float] = field(default_factory=dict)
    update_norm: Mapping[str, float] = field(default_factory=dict)
    frozen: frozenset[str] = frozenset()
    losses: Mapping[str, Losses] = field(default_factory=dict)
    owners: NDArray[np.int64] | None = None
    """[1 + resample, class]: place of the modality that owns a class, -1 for none."""
    train_joint: float | None = None
    chance_train: float | None = None
    clusters: tuple[str, int] = ("sample", 0)
    since_epoch: int | None = None
    epoch: int | None = None
    solo_runs: Mapping[str, str] = field(default_factory=dict)
    """Runs of one modality alone that serve as references."""

    def quantity(self, name: str, modality: str = "") -> Quantity | None:
        """Give one number with all its resamples."""
        return self.quantities.get((name, modality))

    def estimate(self, name: str, modality: str = "") -> Estimate | None:
        """Give one number with its interval."""
        found = self.quantity(name, modality)
        return None if found is None else found.estimate

    @property
    def num_resamples(self) -> int:
        """How often the samples were drawn anew."""
        return max((len(q.draws) for q in self.quantities.values()), default=0)

    def whole(self) -> Evidence:
        """Give the evidence on the samples."""
        return Evidence(self, {name: q.estimate for name, q in self.quantities.items()}, 0)

    def views(self) -> Sequence[Evidence]:
        """Give the evidence on the samples, first, and on every resample."""
        names = list(self.quantities)
        columns = [[part.tolist() for part in self.quantities[name].resampled()] for name in names]
        drawn = [
            Evidence(
                self,
                {
                    name: Estimate(value[r], low[r], high[r])
                    for name, (value, low, high) in zip(names, columns, strict=True)
                },
                r + 1,
            )
            for r in range(self.num_resamples)
        ]
        return [self.whole(), *drawn]


@dataclass(frozen=True, slots=True)
class Evidence:
    """The numbers as they are on the samples, or on one resample."""

    case: Case
    estimates: Mapping[tuple[str, str], Estimate]
    row: int
    takes_probes: bool = False
    """Whether a probe counts for what a modality could reach, to see what would be said then."""

    def get(self, name: str, modality: str = "") -> Estimate | None:
        """Give one number, or None when it is not known."""
        return self.estimates.get((name, modality))

    @property
    def joint(self) -> Estimate:
        """Give the fused score; a run without one is stopped by the first rule."""
        return self.estimates.get(("joint", ""), Estimate(self.case.chance, 0.0, 1.0))

    @property
    def has_signal(self) -> bool:
        """Whether the fused score is above that of a constant answer, interval included."""
        return self.joint.low > self.case.chance

    @property
    def dominant(self) -> str | None:
        """The modality with the largest share."""
        known = [(m, e.value) for m in self.case.modalities if (e := self.get("share", m))]
        return max(known, key=lambda pair: pair[1])[0] if known else None

    @property
    def weak(self) -> tuple[str, ...]:
        """Modalities whose share is far below a fair one, interval included."""
        bound = limits.weak_share(len(self.case.modalities))
        return tuple(
            m for m in self.case.modalities if (e := self.get("share", m)) and e.high < bound
        )

    def owns(self, modality: str, bound: float | None = None) -> bool:
        """Tell whether the decision rests on this modality, interval included."""
        share = self.get("share", modality)
        least = limits.dominant_share(len(self.case.modalities)) if bound is None else bound
        return share is not None and share.low > least

    def is_known(self, modality: str) -> bool:
        """Tell whether it was measured what the modality could reach."""
        return self.takes_probes or self.get("reference", modality) is not None

    def at_chance(self, modality: str) -> bool | None:
        """Tell whether nothing could be read from the modality; None when that is not known."""
        potential = self.get("potential", modality)
        return None if potential is None else potential.low <= self.case.chance

    def ratio(self, modality: str) -> float | None:
        """Give what a modality could reach above chance, relative to the one most relied on."""
        top = self.dominant
        own = self.get("potential", modality)
        best = self.get("potential", top) if top else None
        if own is None or best is None or best.value <= self.case.chance:
            return None
        return (own.value - self.case.chance) / (best.value - self.case.chance)

    def is_informative(self, modality: str) -> bool:
        """Tell whether a modality could reach nearly as much as the one most relied on."""
        ratio = self.ratio(modality)
        return ratio is not None and ratio >= limits.INFORMATIVE_RATIO

    def is_behind(self, modality: str) -> bool:
        """Tell whether training it alone gets further than its encoder got here."""
        gap = self.get("gap", modality)
        return gap is not None and gap.low > limits.REFERENCE_GAP

    def held_back(self) -> tuple[str, ...]:
        """Give the weak modalities that could reach nearly as much as the leader."""
        return tuple(m for m in self.weak if m != self.dominant and self.is_informative(m))

    def owners(self) -> tuple[int, ...]:
        """Give the place of the modality that owns each class, -1 for none."""
        found = self.case.owners
        return () if found is None else tuple(int(place) for place in found[self.row])
