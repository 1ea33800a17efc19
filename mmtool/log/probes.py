"""Linear probes that are trained beside a model, on features it cannot be trained through."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

_LR = 5e-3
_MOMENTUM = 0.1
_FLOOR = 1e-5


def pooled(features: Tensor) -> Tensor:
    """Give a vector per sample: the mean over tokens of [n, t, d], over places of [n, d, h, w]."""
    if features.dim() == 3:
        return features.mean(dim=1)
    return features.flatten(2).mean(dim=2) if features.dim() > 3 else features


class Probes:
    """One linear classifier per modality, made when its features are first seen.

    Features are standardised by running statistics, so that their scale says nothing. Weights begin
    at zero: no random number is drawn from the generators of the training that is watched.
    """

    def __init__(self, num_classes: int) -> None:
        self._num_classes = num_classes
        self._heads: dict[str, _Head] = {}

    def train(self, modality: str, features: Any, labels: Any) -> dict[str, Tensor]:
        """Take one step on a batch and give how right the probe was before it."""
        with torch.inference_mode(False), torch.enable_grad():
            rows = pooled(_tensor(features).detach().float().clone())
            truth = _tensor(labels).detach().to(rows.device).long().clone()
            if modality not in self._heads:
                self._heads[modality] = _Head(rows.shape[1], self._num_classes, rows.device)
            return self._heads[modality].train(rows, truth)

    def judge(self, features: Mapping[str, Any], labels: Any) -> dict[str, dict[str, Any]]:
        """Give accuracy and mean loss of each probe on a split."""
        found = {}
        with torch.no_grad():
            for modality, values in features.items():
                head = self._heads.get(modality)
                rows = pooled(_tensor(values).detach().float())
                if head is None or not len(rows):
                    continue
                logits = head.logits(rows.to(head.weight.device))
                truth = _tensor(labels).to(logits.device).long()
                right = (logits.argmax(1) == truth).float().mean()
                acc, nll = float(right), float(cross_entropy(logits, truth))
                found[modality] = {
                    "probe": acc, "probe_nll": nll, "acc": acc, "nll": nll, "how": "head",
                }  # fmt: skip
        return found

    def take_trained(self) -> dict[str, dict[str, Any]]:
        """Give accuracy and mean loss on the batches since the last call, and begin anew."""
        found = {m: head.take_sums() for m, head in self._heads.items()}
        return {m: {**sums, "how": "head"} for m, sums in found.items() if sums}


class _Head:
    def __init__(self, size: int, num_classes: int, device: torch.device) -> None:
        self.weight = torch.zeros(num_classes, size, device=device, requires_grad=True)
        self.bias = torch.zeros(num_classes, device=device, requires_grad=True)
        self._optimizer = torch.optim.Adam([self.weight, self.bias], lr=_LR)
        self._mean: Tensor | None = None
        self._variance = torch.ones(size, device=device)
        self._sums = torch.zeros(3, device=device)  # right answers, loss, samples

    def logits(self, rows: Tensor) -> Tensor:
        mean = 0 if self._mean is None else self._mean
        scaled = (rows - mean) * (self._variance + _FLOOR).rsqrt()
        with torch.autocast(rows.device.type, enabled=False):
            return scaled @ self.weight.T + self.bias

    def train(self, rows: Tensor, truth: Tensor) -> dict[str, Tensor]:
        self._adapt(rows)
        logits = self.logits(rows)
        loss = cross_entropy(logits, truth)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        with torch.no_grad():
            right = (logits.argmax(1) == truth).float()
            total = torch.stack([right.sum(), loss * len(truth), loss.new_tensor(len(truth))])
            self._sums += torch.where(torch.isfinite(loss), total, torch.zeros_like(total))
        return {"acc": right.mean(), "nll": loss.detach()}

    def take_sums(self) -> dict[str, float]:
        right, loss, size = self._sums.tolist()
        self._sums.zero_()
        return {"acc": right / size, "nll": loss / size} if size else {}

    @torch.no_grad()
    def _adapt(self, rows: Tensor) -> None:
        mean, variance = rows.mean(0), rows.var(0, unbiased=False)
        if self._mean is None:
            self._mean, self._variance = mean, variance
            return
        self._mean = torch.lerp(self._mean, mean, _MOMENTUM)
        self._variance = torch.lerp(self._variance, variance, _MOMENTUM)


def _tensor(values: Any) -> Tensor:
    return values if isinstance(values, Tensor) else torch.as_tensor(values)
