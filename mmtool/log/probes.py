"""Linear probes that are trained beside a model, on features it cannot be trained through."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, log_softmax, pad

_LR = 5e-3
_MOMENTUM = 0.1
_BETA1, _BETA2 = 0.9, 0.999
_FLOOR, _TINY = 1e-5, 1e-12
"""Of the mean variance, and absolute: what a feature that does not vary is divided by."""


def pooled(features: Tensor) -> Tensor:
    """Give a vector per sample: the mean over tokens of [n, t, d], over places of [n, d, h, w]."""
    if features.dim() == 3:
        return features.mean(dim=1)
    return features.flatten(2).mean(dim=2) if features.dim() > 3 else features


def finite(rows: Tensor) -> Tensor:
    """Put 0 in the place of what is not finite: a batch that overflowed shall not end a probe."""
    return torch.nan_to_num(rows, nan=0.0, posinf=0.0, neginf=0.0)


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
        # What is made here is changed in place later, which tensors of inference forbid.
        with torch.inference_mode(False), torch.no_grad():
            rows = finite(pooled(_tensor(features).detach().float()))
            truth = _tensor(labels).detach().to(rows.device).long()
            if modality not in self._heads:
                self._heads[modality] = _Head(rows.shape[1], self._num_classes, rows.device)
            return self._heads[modality].train(rows, truth)

    def judge(self, features: Mapping[str, Any], labels: Any) -> dict[str, dict[str, Any]]:
        """Give accuracy and mean loss of each probe on a split."""
        found = {}
        with torch.no_grad():
            for modality, values in features.items():
                head = self._heads.get(modality)
                rows = finite(pooled(_tensor(values).detach().float()))
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
    """A softmax regression with Adam; its gradient is written out, which needs no autograd."""

    def __init__(self, size: int, num_classes: int, device: torch.device) -> None:
        self.weight = torch.zeros(num_classes, size + 1, device=device)  # the last column is a bias
        self._first = torch.zeros_like(self.weight)
        self._second = torch.zeros_like(self.weight)
        self._num_steps = 0
        self._mean = torch.zeros(size, device=device)
        self._variance = torch.ones(size, device=device)
        self._sums = torch.zeros(3, device=device)  # right answers, loss, samples

    def logits(self, rows: Tensor) -> Tensor:
        return self._multiplied(self._scaled(rows))

    def train(self, rows: Tensor, truth: Tensor) -> dict[str, Tensor]:
        self._adapt(rows)
        scaled = self._scaled(rows)
        logs = log_softmax(self._multiplied(scaled), dim=1)
        at = truth.unsqueeze(1)
        losses = -logs.gather(1, at).squeeze(1)
        right = (logs.argmax(1) == truth).float()
        error = logs.exp()  # -> minus one at the label: the gradient of the loss by the logits
        error.scatter_add_(1, at, torch.full_like(at, -1, dtype=error.dtype))
        with torch.autocast(rows.device.type, enabled=False):
            self._update(error.T @ scaled / len(truth))
        self._sums += torch.stack([right.sum(), losses.sum(), torch.ones_like(losses).sum()])
        return {"acc": right.mean(), "nll": losses.mean()}

    def take_sums(self) -> dict[str, float]:
        right, loss, size = self._sums.tolist()
        self._sums.zero_()
        return {"acc": right / size, "nll": loss / size} if size else {}

    def _scaled(self, rows: Tensor) -> Tensor:
        floor = _FLOOR * self._variance.mean() + _TINY
        return pad((rows - self._mean) * (self._variance + floor).rsqrt(), (0, 1), value=1.0)

    def _multiplied(self, scaled: Tensor) -> Tensor:
        with torch.autocast(scaled.device.type, enabled=False):
            return scaled @ self.weight.T

    def _update(self, gradient: Tensor) -> None:
        self._num_steps += 1
        self._first.lerp_(gradient, 1 - _BETA1)
        self._second.mul_(_BETA2).addcmul_(gradient, gradient, value=1 - _BETA2)
        first, second = (1 - beta**self._num_steps for beta in (_BETA1, _BETA2))
        spread = (self._second / second).sqrt_().add_(1e-8)
        self.weight.addcdiv_(self._first, spread, value=-_LR / first)

    def _adapt(self, rows: Tensor) -> None:
        variance, mean = torch.var_mean(rows, dim=0, correction=0)
        share = 1.0 if self._num_steps == 0 else _MOMENTUM
        self._mean.lerp_(mean, share)
        self._variance.lerp_(variance, share)


def _tensor(values: Any) -> Tensor:
    return values if isinstance(values, Tensor) else torch.as_tensor(values)
