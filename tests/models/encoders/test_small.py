"""The encoders that read series, tokens and anything flat."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmtool.errors import RequestError
from mmtool.models.encoders import mlp, series, tokens
from mmtool.types import InputSpec

RAGGED = InputSpec("series", (3,), ragged=True)


@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 17), min_size=2, max_size=4),
    extra=st.integers(0, 9),
    kernel=st.integers(1, 6),
    stride=st.integers(1, 3),
    layers=st.integers(1, 3),
)
def test_a_series_feature_depends_neither_on_padding_nor_on_the_other_clips(
    lengths, extra, kernel, stride, layers
):
    torch.manual_seed(0)
    options = series.Options(width=5, kernel=kernel, stride=stride, layers=layers)
    encoder = series.Encoder(options, RAGGED)
    x = torch.randn(len(lengths), max(lengths) + extra, 3)  # what lies past the length is noise

    together = encoder(x, torch.tensor(lengths))

    for row, length in enumerate(lengths):
        alone = encoder(x[row : row + 1, :length])
        torch.testing.assert_close(together[row : row + 1], alone, atol=1e-5, rtol=1e-4)


def test_a_series_of_length_zero_has_a_zero_feature_and_no_gradient():
    encoder = series.Encoder(series.Options(width=4), RAGGED)

    feature = encoder(torch.randn(2, 8, 3), torch.tensor([0, 8]))
    feature[0].sum().backward()

    assert not feature[0].any()
    assert feature[1].any()
    assert all(p.grad is None or not p.grad.any() for p in encoder.parameters())


@pytest.mark.parametrize(
    ("spec", "shape"),
    [
        (InputSpec("wave", (), ragged=True), (2, 50)),
        (InputSpec("wave", (50,)), (2, 50)),
        (InputSpec("series", (20, 3)), (2, 20, 3)),
        (InputSpec("series", (20,)), (2, 20)),
        (RAGGED, (2, 20, 3)),
    ],
)
def test_series_reads_waves_and_series_of_one_or_any_length(spec, shape):
    encoder = series.Encoder(series.Options(width=6), spec)

    assert encoder(torch.randn(shape)).shape == (2, 6)


def test_tokens_past_the_length_are_not_read():
    encoder = tokens.Encoder(
        tokens.Options(num_tokens=10, dim=4), InputSpec("tokens", (), ragged=True)
    )
    x = torch.tensor([[1, 2, 7, 9], [3, 4, 5, 6]], dtype=torch.int32)
    shorter = encoder(x, torch.tensor([2, 4]))

    torch.testing.assert_close(shorter[:1], encoder(x[:1, :2], torch.tensor([2])))
    torch.testing.assert_close(shorter[:1], encoder(torch.tensor([[1, 2, 0, 0]])))
    assert not torch.allclose(shorter[:1], encoder(x[:1]))


def test_token_ids_beyond_the_vocabulary_share_its_last_entry():
    encoder = tokens.Encoder(tokens.Options(num_tokens=10), InputSpec("tokens", (), ragged=True))

    assert torch.equal(encoder(torch.tensor([[12]])), encoder(torch.tensor([[9]])))


def test_a_text_without_tokens_has_a_finite_feature():
    encoder = tokens.Encoder(tokens.Options(num_tokens=10), InputSpec("tokens", (), ragged=True))

    assert encoder(torch.zeros(1, 3, dtype=torch.int64)).isfinite().all()


@pytest.mark.parametrize("shape", [(1, 4, 5), (3, 4, 5), (2, 3, 4, 5), (7,)])
def test_mlp_flattens_whatever_has_a_fixed_size(shape):
    encoder = mlp.Encoder(mlp.Options(hidden=(8, 6)), InputSpec("frames", shape))

    assert encoder(torch.randn(2, *shape)).shape == (2, encoder.out_dim) == (2, 6)


def test_mlp_refuses_clips_of_any_length():
    with pytest.raises(RequestError, match="one size") as caught:
        mlp.Encoder(mlp.Options(), RAGGED)
    assert "series" in caught.value.fix


def test_mlp_drops_activations_while_training_only():
    encoder = mlp.Encoder(mlp.Options(hidden=(64,), dropout=0.5), InputSpec("series", (4,)))
    x = torch.ones(1, 4)

    assert not torch.equal(encoder(x), encoder(x))
    encoder.eval()
    assert torch.equal(encoder(x), encoder(x))
