"""Dimensions that tell classes apart, transfer along some of them, and samples kept by slot."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from mmtool.methods._dimensions import effective_dimensions, remembered_sums, transfer_loss


def test_effective_dimensions_of_an_example():
    # means of dimension 0: 0 and 10, all nearest to their own; of dimension 1: 3 and 2, two of four
    features = torch.tensor([[0.0, 0.0], [0.0, 6.0], [10.0, 0.0], [10.0, 4.0]])
    label = torch.tensor([0, 0, 1, 1])

    assert effective_dimensions(features, label, 2).tolist() == [True, False]
    assert effective_dimensions(features.flip(1), label, 2).tolist() == [False, True]


def test_a_class_without_samples_is_nobodys_nearest():
    features = torch.tensor([[0.0, 0.0], [0.0, 6.0], [10.0, 0.0], [10.0, 4.0]])
    label = torch.tensor([0, 0, 2, 2])

    assert effective_dimensions(features, label, 4).tolist() == [True, False]
    assert effective_dimensions(features[:0], label[:0], 4).tolist() == [False, False]


@settings(deadline=None)
@given(st.integers(0, 100), st.permutations(range(5)))
def test_effective_dimensions_depend_on_neither_order_nor_scale(seed, order):
    torch.manual_seed(seed)
    features, label = torch.randn(30, 5).double(), torch.randint(3, (30,))
    found, order = effective_dimensions(features, label, 3), list(order)

    scale = torch.tensor([1.0, 2.0, 4.0, 0.5, 8.0])
    torch.testing.assert_close(effective_dimensions(features * scale, label, 3), found)
    torch.testing.assert_close(effective_dimensions(features[:, order], label, 3), found[order])
    shuffled = torch.randperm(30)
    torch.testing.assert_close(effective_dimensions(features[shuffled], label[shuffled], 3), found)


def test_the_transfer_of_an_example():
    # products over the first dimension, tau = 2: own 2 * 1 / 2 = 1, the other 2 * 3 / 2 = 3
    target, source = torch.tensor([[2.0, 9.0]]), torch.tensor([[1.0, 7.0]])
    others = torch.tensor([[3.0, 5.0], [50.0, 50.0]])
    mask, is_other = torch.tensor([True, False]), torch.tensor([[True, False]])

    found = transfer_loss(target, source, others, is_other, mask, 2.0)
    assert float(found) == pytest.approx(-math.log(math.e / (math.e + math.e**3)), rel=1e-6)


def test_nothing_is_transferred_without_dimensions_or_others():
    features = torch.randn(3, 4, requires_grad=True)
    known, none = torch.ones(3, 2, dtype=torch.bool), torch.zeros(4, dtype=torch.bool)
    empty = transfer_loss(features, torch.randn(3, 4), torch.randn(2, 4), known, none, 1.0)
    assert empty.tolist() == [0.0, 0.0, 0.0]
    alone = transfer_loss(features, torch.randn(3, 4), torch.randn(2, 4), ~known, ~none, 1.0)
    assert alone.tolist() == [0.0, 0.0, 0.0]
    (empty + alone).sum().backward()
    assert not features.grad.any()


@settings(deadline=None)
@given(st.integers(0, 100))
def test_with_the_rest_of_a_batch_it_is_the_loss_of_the_paper(seed):
    torch.manual_seed(seed)
    target, source, mask = torch.randn(5, 4), torch.randn(5, 4), torch.rand(4) < 0.7
    found = transfer_loss(target, source, source, ~torch.eye(5, dtype=torch.bool), mask, 3.0)

    products = target[:, mask] @ source[:, mask].T / 3.0
    expected = cross_entropy(products, torch.arange(5), reduction="none")
    torch.testing.assert_close(found, torch.where(mask.any(), expected, 0.0))


def test_a_slot_keeps_the_one_sample_that_fell_into_it():
    features = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [7.0, 8.0]])
    index, known = torch.tensor([8, 9, 12, 13]), torch.tensor([True, True, True, False])
    found = remembered_sums(features, index, known, 4)

    assert found["count"].tolist() == [2.0, 1.0, 0.0, 0.0]  # 8 and 12 collide, 13 is not known
    assert found["index"][1] == 9
    assert found["feature"][1].tolist() == [3.0, 4.0]
