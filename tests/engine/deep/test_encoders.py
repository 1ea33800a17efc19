"""How far an encoder moved from where it began."""

import pytest
from torch import nn

from mmtool.engine.deep.encoders import update_norms


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
