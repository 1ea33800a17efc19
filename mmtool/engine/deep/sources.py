"""Features of one modality that a linear readout is fitted to, by where the encoder comes from."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from mmtool.engine.deep.readouts import Lesson, Readout
from mmtool.engine.deep.record import Judge, host, masked
from mmtool.engine.evaluate import Encoded, encode_rows
from mmtool.engine.job import Job
from mmtool.types import Modality, TaskKind


@dataclass(slots=True)
class Part:
    """The samples of one split, as places among all that were encoded, and what they gave."""

    split: str
    places: Tensor
    judge: Judge
    arrays: dict[str, np.ndarray] = field(default_factory=dict)


@dataclass(slots=True)
class Readings:
    """Fits readouts to samples of train and keeps what they answer on every part."""

    lesson: Lesson
    taught: Tensor
    """Places of the samples they are fitted to."""
    present: Tensor  # [encoded sample, modality] bool
    modalities: tuple[Modality, ...]
    parts: tuple[Part, ...]
    answers: dict[str, dict[Modality, Tensor]] = field(default_factory=dict)
    """By source, the logits on every encoded sample; kept for solo runs alone."""

    def read(self, source: str, modality: Modality, features: Tensor) -> None:
        """Fit one readout and add its arrays `SOURCE/m.*` to every part."""
        has = self.present[:, self.modalities.index(modality)]
        readout = self.lesson.fit(features[self.taught], has[self.taught])
        logits = self._logits(readout, features)
        known = has & torch.isfinite(logits).all(1)
        if source == "solo":
            self.answers.setdefault(source, {})[modality] = logits
        self._keep(f"{source}/{modality}", logits, known, "right gain answer conf")

    def read_all(self, source: str, features: Mapping[Modality, Tensor]) -> None:
        """Fit a readout of every modality."""
        for modality in self.modalities:
            self.read(source, modality, features[modality])

    def join_solo(self) -> None:
        """Add the arrays `solo_joint.*`: what all solo runs say together."""
        logits = self.answers.get("solo", {})
        if not logits:
            return
        has = torch.stack([self.present[:, self.modalities.index(m)] for m in logits])
        usable = has & torch.stack([torch.isfinite(z).all(1) for z in logits.values()])
        joined = joint(torch.stack(list(logits.values())), usable, self.lesson.task)
        self._keep("solo_joint", joined, usable.any(0), "right gain answer")

    def _logits(self, readout: Readout | None, features: Tensor) -> Tensor:
        if readout is None:
            return features.new_full((len(features), self.lesson.num_outputs), float("nan"))
        return readout(features)

    def _keep(self, name: str, logits: Tensor, known: Tensor, wanted: str) -> None:
        for part in self.parts:
            marks = part.judge.marks(logits[part.places], names=wanted)
            kept = masked(marks, known[part.places])
            part.arrays |= {f"{name}.{k}": host(v) for k, v in kept.items()}


def joint(logits: Tensor, usable: Tensor, task: TaskKind) -> Tensor:
    """Give what several models say together of each sample; [model, sample, output] -> logits.

    Log probabilities are added; of a regression the mean is taken. Models that cannot say anything
    of a sample are left out of it.
    """
    said = logits.log_softmax(2) if task == "single_label" else logits
    total = torch.where(usable.unsqueeze(2), said, 0.0).sum(0)
    if task == "regression":
        total = total / usable.sum(0).clamp_min(1).unsqueeze(1)
    return total


def encode_once(job: Job, rows: np.ndarray) -> Encoded:
    """Encode rows in any order and give them in that order, each encoder by itself too."""
    ascending = np.unique(rows)
    encoded = encode_rows(job, ascending, isolated=True)
    at = torch.from_numpy(np.searchsorted(ascending, rows)).to(encoded.index.device)
    return encoded.at(at)
