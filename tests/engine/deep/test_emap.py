"""The projection onto sums over modalities: nothing is lost of a sum, everything of a product."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from mmtool.engine.deep.emap import project
from mmtool.engine.deep.record import Judge
from mmtool.engine.evaluate import Encoded
from mmtool.methods._base import BalancingMethod


class Product(nn.Module):
    """Says yes where the product of the first features is positive."""

    def forward(self, features):
        product = torch.stack([f[:, 0] for f in features.values()]).prod(0)
        return torch.stack([-product, product], 1)


class Sum(nn.Module):
    """Adds up functions of single modalities, none of them linear."""

    def forward(self, features):
        total = sum(f[:, 0].sin() * (3 + at) for at, f in enumerate(features.values()))
        return torch.stack([-total, total + 0.2], 1)


def job_with(fusion, num_modalities):
    """As much of a job as a prediction from features takes."""
    names = tuple(f"m{at}" for at in range(num_modalities))
    model = SimpleNamespace(modalities=names, fuse=fusion, unimodal=None)
    recipe = SimpleNamespace(train=SimpleNamespace(seed=0))
    return SimpleNamespace(model=model, method=BalancingMethod(None), recipe=recipe)


def encoded(num_modalities, n=200, missing=()):
    generator = torch.Generator().manual_seed(0)
    features = {f"m{at}": torch.randn(n, 1, generator=generator) for at in range(num_modalities)}
    present = torch.ones(n, num_modalities, dtype=torch.bool)
    present[list(missing), 0] = False
    product = torch.stack([f[:, 0] for f in features.values()]).prod(0)
    return Encoded(features, present, (product > 0).long(), torch.arange(n) + 1000)


def judge(samples):
    return Judge(samples.label, "single_label", torch.ones(1))


@pytest.mark.parametrize("num_modalities", [2, 3])
def test_a_product_loses_everything(num_modalities):
    samples = encoded(num_modalities)
    found = project(job_with(Product(), num_modalities), samples, judge(samples))

    assert found.arrays["emap.full_right"].mean() == 1.0
    assert found.arrays["emap.right"].mean() < 0.75


@pytest.mark.parametrize(
    ("num_modalities", "how"), [(2, "exact"), (3, "additive"), (4, "additive")]
)
def test_a_sum_loses_nothing(num_modalities, how):
    samples = encoded(num_modalities)
    found = project(job_with(Sum(), num_modalities), samples, judge(samples))

    assert found.about["how"] == how
    assert found.about["n"] == 200
    difference = found.arrays["emap.full_gain"] - found.arrays["emap.gain"]
    assert abs(difference).max() < 1e-4
    assert (found.arrays["emap.right"] == found.arrays["emap.full_right"]).all()


def test_two_modalities_are_projected_as_the_formula_says():
    samples = encoded(2, n=7)
    found = project(job_with(Product(), 2), samples, judge(samples))
    a, b = samples.features["m0"][:, 0], samples.features["m1"][:, 0]
    table = a[:, None] * b[None, :]
    added = table.mean(1) + table.mean(0) - table.mean()
    right = (added > 0).long() == samples.label

    assert found.arrays["emap.right"].tolist() == right.float().tolist()


def test_only_samples_with_everything_take_part():
    samples = encoded(2, n=20, missing=(3, 4))
    found = project(job_with(Sum(), 2), samples, judge(samples))

    assert found.about["n"] == 18
    assert 1003 not in found.arrays["emap.row"]


def test_many_samples_are_thinned_out_in_order_and_always_alike():
    samples = encoded(2, n=900)
    first, again = (
        project(job_with(Sum(), 2), samples, judge(samples)).arrays["emap.row"] for _ in range(2)
    )

    assert len(first) == 400
    assert (first == sorted(first)).all()
    assert (first == again).all()


def test_one_modality_has_no_projection():
    samples = encoded(1)

    assert project(job_with(Sum(), 1), samples, judge(samples)) is None
