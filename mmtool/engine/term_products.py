"""Inner products between gradients of a method's losses on samples of two splits.

    P_jk = < grad T_j on the first split, grad T_k on the second >

What a loss weight does to a held-out loss follows from them without second derivatives: one step
theta - eta sum_k a_k grad T_k changes the loss T_j of other data by -eta a_k P_jk for each k.

Encoders run in evaluation mode, in full precision and without augmentation; weights, gradients,
running statistics and random numbers stay as they are. The samples are the same in every epoch.
Each rank takes its share; gradients are summed before products are formed, so all get the same.
"""

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import Parameter

from mmtool.data.samplers import Share, Visits, num_batches, rank_share
from mmtool.engine.absent import absent_features
from mmtool.engine.evaluate import evaluation_mode
from mmtool.engine.job import Job
from mmtool.errors import Bug, RequestError
from mmtool.methods._base import GradientProducts, StepContext
from mmtool.randomness import fold
from mmtool.types import Batch, Modality, Outputs

_SALT = 0x7E54


def gradient_products(job: Job, first: str, second: str, num_samples: int) -> GradientProducts:
    """Compare the gradients of the method's losses on two splits, equal on every rank.

    Twice the same split gives two samples of it that have none in common.
    """
    if not job.method.asked().gradient_products:
        raise Bug(f"method {job.recipe.method.name!r} did not ask for Needs.gradient_products")
    rows, others = _samples(job, first, second, num_samples)
    gradients, held = _gradients(job, rows), _gradients(job, others)
    names = tuple(sorted(gradients))
    products = [[_inner(gradients[one], held[other]) for other in sorted(held)] for one in names]
    return GradientProducts(
        names,
        torch.stack([torch.stack(row) for row in products]),
        torch.stack([_inner(gradients[n], gradients[n]).sqrt() for n in names]),
        torch.stack([_inner(held[n], held[n]).sqrt() for n in names]),
    )


def _samples(job: Job, first: str, second: str, wanted: int) -> tuple[np.ndarray, np.ndarray]:
    for split in (first, second):
        if len(job.dataset.rows(split)) == 0:
            raise RequestError(
                f"protocol {job.dataset.protocol!r} has no split {split!r}",
                why=f"method {job.recipe.method.name!r} compares gradients on it",
                fix="prepare with a validation split (val_fraction)",
            )
    if first != second:
        return _chosen(job, first, wanted), _chosen(job, second, wanted)
    both = _chosen(job, first, 2 * wanted)
    half = len(both) // 2
    if half == 0:
        raise RequestError(
            f"split {first!r} has a single sample, of which no two halves can be compared",
            fix="prepare more data",
        )
    return np.sort(both[:half]), np.sort(both[half:])


def _chosen(job: Job, split: str, wanted: int) -> np.ndarray:
    """Give so many rows of a split, the same in every epoch, in random order."""
    rows = job.dataset.rows(split)
    key = [job.recipe.train.seed, _SALT]
    generator = np.random.Generator(np.random.Philox(key=key))
    return rows[generator.permutation(len(rows))[:wanted]]


def _gradients(job: Job, rows: np.ndarray) -> dict[str, list[Tensor]]:
    """Give the mean gradient of each loss over these rows, for all parameters in group order."""
    parameters = [p for name in job.gradients.names() for _, p in job.groups[name]]
    shares = _shares(job, rows)
    num_parts = job.ranks.world * sum(len(share.micro) for share in shares)
    sums: dict[str, list[Tensor]] = {}
    with _untouched(job), closing(job.loader.run(shares, epoch=None)) as loaded:
        for batch in (batch for share in loaded for batch in share.batches):
            for name, term in _terms(job, batch).items():
                weighted = term if batch.weight is None or not term.dim() else term * batch.weight
                value = weighted.sum() / len(rows) if term.dim() else term / num_parts
                found = _differentiated(value, parameters)
                before = sums.get(name)
                if before is not None:
                    found = [b + g for b, g in zip(before, found, strict=True)]
                sums[name] = found
    for name in sorted(sums):
        job.ranks.sum_many_(sums[name], f"products.{name}")
    return sums


def _shares(job: Job, rows: np.ndarray) -> list[Share]:
    batch_size, ranks = job.recipe.train.batch_size, job.ranks
    return [
        rank_share(
            Visits(rows),
            step,
            batch_size=batch_size,
            rank=ranks.rank,
            world=ranks.world,
            micro_batches=job.recipe.train.accumulate,
        )
        for step in range(num_batches(len(rows), batch_size))
    ]


@contextmanager
def _untouched(job: Job) -> Iterator[None]:
    """Compute as in evaluation but with gradients, and leave random numbers as they were."""
    device = job.device
    with (
        evaluation_mode(job.model),
        torch.random.fork_rng([device] if device.type == "cuda" else []),
        torch.backends.cudnn.flags(enabled=False),  # its recurrent layers differentiate in training
        torch.enable_grad(),
    ):
        yield


def _terms(job: Job, batch: Batch) -> dict[str, Tensor]:
    """Give the method's losses of a batch, as the training step would."""
    model, method, ctx = job.model, job.method, _context(job)
    encoded = model.encode(batch, method.hears(ctx))
    edited = method.edit_features(dict(encoded), batch, ctx)
    outputs = Outputs(
        edited,
        model.fuse(edited).float(),
        {
            m: z.float()
            for m, z in model.unimodal(encoded, trained=method.needs.trains_heads).items()
        },
        fuse=partial(_fuse, job),
        absent=absent_features(job, batch, edited),
        **job.teachers.answers(batch),
    )
    return method.losses(outputs, batch, ctx)


def _fuse(job: Job, features: Mapping[Modality, Tensor]) -> Tensor:
    return job.model.fuse(features).float()


def _context(job: Job) -> StepContext:
    generator = torch.Generator(device=job.device)
    generator.manual_seed(fold(job.recipe.train.seed, _SALT, job.progress.epoch) >> 1)
    return StepContext(
        modalities=job.dataset.modalities,
        num_classes=job.dataset.num_classes,
        epoch=job.progress.epoch,
        step=job.progress.step,
        epochs=job.recipe.train.epochs,
        steps_per_epoch=job.steps_per_epoch(),
        generator=generator,
    )


def _differentiated(value: Tensor, parameters: list[Parameter]) -> list[Tensor]:
    if not value.requires_grad:
        return [torch.zeros_like(p) for p in parameters]
    grads = torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, grads, strict=True)]


def _inner(one: list[Tensor], other: list[Tensor]) -> Tensor:
    pairs = zip(one, other, strict=True)
    return torch.stack([(a.double() * b.double()).sum() for a, b in pairs]).sum()
