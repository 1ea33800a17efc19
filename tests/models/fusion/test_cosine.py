"""The cosine head: values by hand, bounds, scale, and the features at which it could break."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mmtool.models.fusion.cosine import Fusion, Options, cosines, directions

DIMS = {"audio": 2, "image": 3}


def fusion_of(scale=10.0, dims=DIMS, classes=2):
    torch.manual_seed(0)
    return Fusion(Options(scale=scale), dims, classes)


def features_of(dims=DIMS, size=5, seed=1):
    torch.manual_seed(seed)
    return {m: torch.randn(size, dim) for m, dim in dims.items()}


def test_logits_are_scaled_sums_of_cosines():
    fusion = fusion_of(scale=4.0)
    with torch.no_grad():
        fusion.weights["audio"].copy_(torch.tensor([[1.0, 0.0], [3.0, 4.0]]))
        fusion.weights["image"].copy_(torch.tensor([[0.0, 0.0, 2.0], [0.0, -1.0, 0.0]]))

    z = fusion({"audio": torch.tensor([[5.0, 0.0]]), "image": torch.tensor([[0.0, 3.0, 4.0]])})

    # The cosines of audio are 1 and 3/5, those of image 4/5 and -3/5.
    torch.testing.assert_close(z, torch.tensor([[4 * (1 + 0.8), 4 * (0.6 - 0.6)]]))


def test_parts_add_up_to_the_fused_logits_and_there_is_no_bias():
    fusion, f = fusion_of(), features_of()
    total = torch.stack(list(fusion.split(f).values())).sum(0)

    torch.testing.assert_close(fusion(f), total)
    assert [name for name, _ in fusion.named_parameters()] == ["weights.audio", "weights.image"]


@given(st.floats(1e-3, 1e4), st.floats(1e-3, 1e3), st.integers(0, 1000))
def test_neither_length_of_features_nor_of_weights_matters(factor, other, seed):
    fusion, f = fusion_of(), features_of(seed=seed)
    before = fusion(f)
    with torch.no_grad():
        fusion.weights["image"].mul_(other)

    after = fusion({**f, "audio": factor * f["audio"]})

    torch.testing.assert_close(before, after, atol=1e-3, rtol=1e-3)


@given(st.integers(0, 1000), st.floats(0.1, 100.0))
def test_a_modality_says_at_most_the_scale(seed, scale):
    fusion = fusion_of(scale=scale)
    for part in fusion.split(features_of(seed=seed)).values():
        assert bool((part.abs() <= scale * (1 + 1e-5)).all())


def test_a_feature_of_length_zero_adds_zero_and_gets_a_finite_gradient():
    fusion = fusion_of()
    zero = torch.zeros(1, 2, requires_grad=True)
    z = fusion.split({"audio": zero, "image": torch.ones(1, 3)})["audio"]
    z.sum().backward()

    assert not z.any()
    assert bool(torch.isfinite(zero.grad).all())
    assert bool(torch.isfinite(fusion.weights["audio"].grad).all())


def test_directions_have_length_one_or_zero():
    vectors = torch.tensor([[3.0, 4.0], [0.0, 0.0], [1e-9, 0.0]])
    expected = torch.tensor([[0.6, 0.8], [0.0, 0.0], [0.0, 0.0]])

    torch.testing.assert_close(directions(vectors), expected)


def test_half_precision_does_not_reach_the_cosines():
    torch.manual_seed(0)
    f, w = torch.randn(6, 32), torch.randn(4, 32)
    with torch.autocast("cpu", torch.bfloat16):
        under = cosines(f, w)

    assert under.dtype == torch.float32
    assert torch.equal(under, cosines(f, w))


def test_gradients_are_those_of_finite_differences():
    torch.manual_seed(0)
    f = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    w = torch.randn(2, 4, dtype=torch.float64, requires_grad=True)

    assert torch.autograd.gradcheck(cosines, (f, w))


def test_a_scale_must_be_positive():
    with pytest.raises(ValueError, match="scale"):
        Options(scale=0.0)
