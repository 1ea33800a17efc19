import pytest
import torch
from pydantic import ValidationError
from torch.utils.flop_counter import FlopCounterMode

from mmtool.errors import RequestError
from mmtool.models.encoders.cnn import Encoder, Options
from mmtool.types import InputSpec

SPECTROGRAM = InputSpec("spectrogram", (1, 40, 40))
IMAGE = InputSpec("frames", (3, 28, 20))
CLIP = InputSpec("frames", (4, 3, 16, 16))


def build(spec: InputSpec, **options: object) -> Encoder:
    torch.manual_seed(0)
    return Encoder(Options.model_validate(options), spec)


@pytest.mark.parametrize("spec", [SPECTROGRAM, IMAGE, CLIP])
@pytest.mark.parametrize("norm", ["group", "batch"])
@pytest.mark.parametrize("first_stride", [1, 2])
def test_every_input_it_accepts_becomes_four_widths(spec, norm, first_stride):
    encoder = build(spec, width=8, norm=norm, first_stride=first_stride)

    features = encoder(torch.randn(2, *spec.shape))

    assert features.shape == (2, encoder.out_dim) == (2, 32)
    assert spec.kind in encoder.accepts


def test_with_groups_a_feature_does_not_depend_on_the_rest_of_the_batch():
    encoder = build(IMAGE).train()
    x = torch.randn(6, *IMAGE.shape)

    torch.testing.assert_close(encoder(x)[:2], encoder(x[:2]), atol=1e-5, rtol=1e-4)


def test_with_batch_statistics_it_does_while_training_only():
    encoder = build(IMAGE, norm="batch")
    x = torch.randn(6, *IMAGE.shape)

    assert not torch.allclose(encoder(x)[:2], encoder(x[:2]), atol=1e-3)
    encoder.eval()
    torch.testing.assert_close(encoder(x)[:2], encoder(x[:2]), atol=1e-5, rtol=1e-4)


def test_frames_of_a_clip_are_averaged():
    encoder = build(CLIP).eval()
    x = torch.randn(2, *CLIP.shape)

    single = torch.stack([encoder(x[:, number]) for number in range(4)]).mean(0)

    torch.testing.assert_close(encoder(x), single, atol=1e-5, rtol=1e-4)


def test_a_first_stride_of_two_quarters_the_work():
    work = []
    for stride in (1, 2):
        encoder, x = build(SPECTROGRAM, first_stride=stride), torch.randn(1, *SPECTROGRAM.shape)
        with FlopCounterMode(display=False) as counter:
            encoder(x)
        work.append(counter.get_total_flops())

    assert work[1] / work[0] == pytest.approx(0.25, abs=0.01)


def test_its_matrices_are_its_three_convolutions():
    shapes = [tuple(p.shape) for p in build(IMAGE, width=4).parameters() if p.dim() > 1]

    assert shapes == [(4, 3, 3, 3), (8, 4, 3, 3), (16, 8, 3, 3)]


@pytest.mark.parametrize("norm", ["group", "batch"])
def test_every_parameter_learns(norm):
    encoder = build(SPECTROGRAM, norm=norm, width=4)
    target = torch.randn(8, encoder.out_dim)

    (encoder(torch.randn(8, *SPECTROGRAM.shape)) * target).sum().backward()

    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name


def test_groups_that_do_not_divide_the_width_are_refused():
    with pytest.raises(ValidationError, match="groups"):
        Options(width=6, groups=4)
    assert Options(width=6, groups=4, norm="batch").width == 6
    assert build(IMAGE, width=2, groups=4).out_dim == 8  # fewer channels than groups: one each


def test_an_input_that_the_pooling_would_use_up_is_refused():
    with pytest.raises(RequestError, match="3 x 9") as caught:
        build(InputSpec("frames", (1, 3, 9)))
    assert "mlp" in caught.value.fix
    assert build(InputSpec("frames", (1, 4, 4))).out_dim == 64
