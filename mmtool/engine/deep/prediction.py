"""The answer of the whole model to any features, as an evaluation computes it."""

from collections.abc import Mapping

import torch
from torch import Tensor

from mmtool.engine.job import Job
from mmtool.methods._base import BalancingMethod
from mmtool.types import Modality, Outputs

_CHUNK = 4096


class Predictor:
    """Fuses features and lets the method predict, in pieces that bound the memory."""

    def __init__(self, job: Job) -> None:
        self._model, self._method = job.model, job.method
        # Most methods predict by the fusion alone; logits per modality may cost a fusion each.
        self._asks_each = type(job.method).predict is not BalancingMethod.predict

    def __call__(self, features: Mapping[Modality, Tensor], present: Tensor) -> Tensor:
        """Give the logits of these samples; [sample, class]."""
        pieces = [
            self._some({m: f[start : start + _CHUNK] for m, f in features.items()}, some)
            for start, some in zip(
                range(0, max(1, len(present)), _CHUNK), present.split(_CHUNK), strict=True
            )
        ]
        return torch.cat(pieces)

    def _some(self, features: dict[Modality, Tensor], present: Tensor) -> Tensor:
        logits = self._model.fuse(features)
        each = self._model.unimodal(features) if self._asks_each else {}
        outputs = Outputs(features, logits, each, present=present)
        return self._method.predict(outputs).float()
