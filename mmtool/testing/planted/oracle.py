"""What a large sample of a problem tells, without any multimodal training: a check of its truth."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from mmtool.testing.planted.problem import Problem

_HIDDEN = 128
_BATCH = 256
_STEPS = 700
_LR = 3e-3


def readout(problem: Problem, modalities: Sequence[str], *, steps: int = _STEPS) -> float:
    """Give the validation score of one network on the raw values of these modalities together.

    Accuracy, of several labels accuracy per label, of a regression R^2.
    """
    predicted, target = read_out(problem, modalities, steps=steps)
    if problem.task == "regression":
        wrong = ((predicted[:, 0] - target) ** 2).mean()
        return float(1 - wrong / target.var())
    if problem.task == "multi_label":
        return float(((predicted > 0) == target).mean())
    return float((predicted.argmax(1) == target).mean())


def read_out(
    problem: Problem, modalities: Sequence[str], *, steps: int = _STEPS
) -> tuple[np.ndarray, np.ndarray]:
    """Give what that network puts out for validation, [sample, output], and what is right."""
    inputs = np.concatenate([_standardised(problem, m) for m in modalities], axis=1)
    x = torch.from_numpy(inputs.astype(np.float32))
    target = _target(problem)
    outputs = 1 if problem.task == "regression" else problem.num_classes
    generator = torch.Generator().manual_seed(7)
    with torch.random.fork_rng():
        torch.manual_seed(7)
        model = nn.Sequential(
            nn.Linear(x.shape[1], _HIDDEN), nn.ReLU(), nn.Linear(_HIDDEN, outputs)
        )
    optimizer = torch.optim.AdamW(model.parameters(), lr=_LR, weight_decay=0.01, fused=True)
    y = torch.from_numpy(target)
    for step in range(steps):
        rows = torch.randint(0, problem.num_train, (_BATCH,), generator=generator)
        for group in optimizer.param_groups:
            group["lr"] = _LR * (1 - step / steps)
        optimizer.zero_grad()
        _loss(problem, model(x[rows]), y[rows]).backward()
        optimizer.step()
    with torch.no_grad():
        predicted = model(x[problem.val])
    return predicted.numpy(), target[problem.val]


def _loss(problem: Problem, said: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    if problem.task == "regression":
        return nn.functional.mse_loss(said[:, 0], target.float())
    if problem.task == "multi_label":
        return nn.functional.binary_cross_entropy_with_logits(said, target.float())
    return nn.functional.cross_entropy(said, target)


def _target(problem: Problem) -> np.ndarray:
    if problem.values is not None:
        return problem.values
    return problem.labels if problem.label_sets is None else problem.label_sets


def _standardised(problem: Problem, modality: str) -> np.ndarray:
    values = problem.inputs[modality]
    known = values[problem.train]
    return (values - known.mean(0)) / (known.std() + 1e-9)


def chance(problem: Problem) -> float:
    """Give the best score of one and the same answer on validation."""
    if problem.task == "regression":
        return 0.0
    if problem.label_sets is not None:
        rate = problem.label_sets[problem.val].mean(0)
        return float(np.maximum(rate, 1 - rate).mean())
    return float(np.bincount(problem.labels[problem.val]).max() / len(problem.labels[problem.val]))
