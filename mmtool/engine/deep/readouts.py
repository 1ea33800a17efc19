"""Linear readouts of one modality's features, fitted to the optimum rather than trained beside.

    single_label   softmax regression       multi_label   a logistic regression for each label
    regression     least squares

Features are standardised on train. How strongly weights are shrunk is chosen on a fifth of the
groups of train, held out, and the readout is then fitted to all of it. Full batches and L-BFGS, so
that the same features give the same readout.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from mmtool.methods._task import task_loss
from mmtool.types import TaskKind

MOST_SAMPLES = 5000
SHRINKS = (1.0, 0.1, 0.01, 0.001, 0.0001)
"""Factors of half the squared weights of standardised features, against the mean loss."""
_HELD_OUT = 5
_LEAST_SAMPLES = 10
_ITERATIONS = 60
_SALT = 44


@dataclass(frozen=True, slots=True)
class Readout:
    """A linear function of features."""

    mean: Tensor
    deviation: Tensor
    weight: Tensor  # [dim, output]
    bias: Tensor  # [output]

    def __call__(self, features: Tensor) -> Tensor:
        """Give the logits of these features; [sample, output]."""
        return ((features - self.mean) / self.deviation) @ self.weight + self.bias


@dataclass(frozen=True, slots=True)
class Lesson:
    """What readouts are fitted to: samples of train."""

    label: Tensor
    group: Tensor
    task: TaskKind
    num_outputs: int
    seed: int

    def fit(self, features: Tensor, has: Tensor) -> Readout | None:
        """Fit a readout to the samples that have the modality; None where they are too few."""
        usable = has & torch.isfinite(features).all(1)
        features, label = features[usable], self.label[usable]
        if len(features) < _LEAST_SAMPLES:
            return None
        held = self._held_out(self.group[usable])
        shrink, start = self._choose(features, label, held)
        return next(self._fitted(features, label, (shrink,), start))

    def _held_out(self, group: Tensor) -> Tensor:
        """Choose a fifth of the groups, or of the samples where there are too few groups."""
        groups = torch.unique(group)
        if len(groups) < _HELD_OUT:
            group = groups = torch.arange(len(group), device=group.device)
        generator = np.random.Generator(np.random.Philox(key=[self.seed, _SALT]))
        order = torch.from_numpy(generator.permutation(len(groups))).to(group.device)
        return torch.isin(group, groups[order[: max(1, len(groups) // _HELD_OUT)]])

    def _choose(
        self, features: Tensor, label: Tensor, held: Tensor
    ) -> tuple[float, Readout | None]:
        """Give the factor that answers the held-out samples best, and what it gave.

        They go from strong to weak, and the first that makes it worse is the last one tried.
        """
        best, chosen, found = float("inf"), SHRINKS[0], None
        fitted = self._fitted(features[~held], label[~held], SHRINKS)
        for shrink, readout in zip(SHRINKS, fitted, strict=True):
            said = readout(features[held])
            loss = float(task_loss(said, label[held], self.task).double().mean())
            if not loss < best:
                break
            best, chosen, found = loss, shrink, readout
        return chosen, found

    def _fitted(
        self,
        features: Tensor,
        label: Tensor,
        shrinks: tuple[float, ...],
        start: Readout | None = None,
    ) -> Iterator[Readout]:
        """Fit one readout after the other, each from where the one before it ended."""
        mean, deviation = features.mean(0), features.std(0, correction=0)
        # Rounding makes a constant feature look as if it varied.
        deviation = torch.where(deviation > 1e-6 * mean.abs(), deviation, 1.0)
        inputs = (features - mean) / deviation
        weight = nn.Parameter(inputs.new_zeros(inputs.shape[1], self.num_outputs))
        bias = nn.Parameter(inputs.new_zeros(self.num_outputs))
        if start is not None:
            weight.data.copy_(start.weight)
            bias.data.copy_(start.bias)
        for shrink in shrinks:
            if self.task == "regression":
                yield Readout(mean, deviation, *_least_squares(inputs, label, shrink))
                continue
            with torch.enable_grad():
                _minimise(inputs, label, self.task, weight, bias, shrink)
            yield Readout(mean, deviation, weight.detach().clone(), bias.detach().clone())


def _minimise(
    inputs: Tensor,
    label: Tensor,
    task: TaskKind,
    weight: nn.Parameter,
    bias: nn.Parameter,
    shrink: float,
) -> None:
    optimizer = torch.optim.LBFGS(
        [weight, bias],
        max_iter=_ITERATIONS,
        tolerance_grad=1e-5,
        tolerance_change=1e-7,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = task_loss(inputs @ weight + bias, label, task).mean()
        loss = loss + 0.5 * shrink * weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)


def _least_squares(inputs: Tensor, label: Tensor, shrink: float) -> tuple[Tensor, Tensor]:
    x, y = inputs.double(), label.double()
    mean = y.mean(0)
    square = x.T @ x / len(x) + shrink * torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    weight = torch.linalg.solve(square, x.T @ (y - mean) / len(x))
    return weight.float(), mean.float()
