"""Whether an encoder lives: the rank of what it says, and how far it moved."""

import math

import pytest
import torch
from torch import nn

from mmtool.engine.deep.encoders import effective_rank, update_norms


def test_equal_directions_count_one_each():
    corners = torch.cat([torch.eye(4), -torch.eye(4)])

    assert effective_rank(corners) == pytest.approx(4.0)
    assert effective_rank(3e-4 * corners + 0.02) == pytest.approx(4.0, rel=1e-3)


def test_one_direction_counts_one_whatever_its_length():
    line = torch.linspace(-1, 1, 50)[:, None] * torch.tensor([[3.0, 4.0]])

    assert effective_rank(line + 7.0) == pytest.approx(1.0, abs=1e-3)


def test_a_weak_direction_counts_less_than_a_strong_one():
    sizes = torch.tensor([1.0, 0.5])
    corners = torch.cat([torch.diag(sizes), -torch.diag(sizes)])
    share = sizes / sizes.sum()
    expected = math.exp(float(-(share * share.log()).sum()))

    assert effective_rank(corners) == pytest.approx(expected)


def test_a_dead_encoder_has_no_rank():
    assert effective_rank(torch.full((30, 5), 0.3)) == 0.0
    assert effective_rank(torch.zeros(30, 5)) == 0.0


def test_what_cannot_be_ranked_is_not():
    assert effective_rank(torch.zeros(0, 5)) is None
    assert effective_rank(torch.tensor([[1.0, float("nan")]])) is None


def model(*values):
    encoders = nn.ModuleDict({f"m{at}": nn.Linear(2, 1, bias=False) for at in range(len(values))})
    for encoder, value in zip(encoders.values(), values, strict=True):
        nn.init.constant_(encoder.weight, value)
    whole = nn.Module()
    whole.encoders = encoders
    return whole


def test_a_move_is_measured_in_units_of_where_it_began():
    assert update_norms(model(3.0, 1.0), model(2.0, 1.0)) == {"m0": pytest.approx(0.5), "m1": 0.0}
    assert update_norms(model(1.0), model(0.0)) == {"m0": None}
    assert update_norms(model(1.0), None) == {"m0": None}
