import pytest
import torch
import torchvision
from safetensors.torch import save_file

from mmtool.errors import EnvironmentLacks, RequestError
from mmtool.models.encoders.resnet18 import Encoder, Options
from mmtool.types import InputSpec

SPECTROGRAM = InputSpec("spectrogram", (1, 33, 40))
IMAGE = InputSpec("frames", (3, 32, 32))
CLIP = InputSpec("frames", (2, 3, 32, 32))


@pytest.fixture(scope="module")
def pretrained():
    torch.manual_seed(1)
    return torchvision.models.resnet18(weights=None).eval()


@pytest.mark.parametrize("spec", [SPECTROGRAM, IMAGE, CLIP])
@pytest.mark.parametrize("norm", ["batch", "group"])
def test_every_input_it_accepts_becomes_512_values(spec, norm):
    encoder = Encoder(Options(norm=norm), spec)

    assert encoder(torch.randn(2, *spec.shape)).shape == (2, encoder.out_dim) == (2, 512)


def test_with_a_file_of_weights_it_equals_torchvision(pretrained, tmp_path):
    torch.save(pretrained.state_dict(), tmp_path / "net.pth")
    encoder = Encoder(Options(weights=str(tmp_path / "net.pth")), IMAGE).eval()
    x = torch.randn(2, 3, 64, 64)

    with torch.no_grad():
        torch.testing.assert_close(pretrained.fc(encoder(x)), pretrained(x))


def test_one_channel_reads_what_three_equal_channels_would(pretrained, tmp_path):
    save_file(pretrained.state_dict(), tmp_path / "net.safetensors")
    options = Options(weights=str(tmp_path / "net.safetensors"))
    grey, colour = Encoder(options, SPECTROGRAM).eval(), Encoder(options, IMAGE).eval()
    x = torch.randn(2, 1, 33, 40)

    with torch.no_grad():
        torch.testing.assert_close(grey(x), colour(x.expand(2, 3, 33, 40)), atol=1e-4, rtol=1e-4)


def test_frames_of_a_clip_are_averaged_over_time_and_space():
    encoder = Encoder(Options(), CLIP).eval()
    clip = torch.randn(3, 2, 3, 32, 32)

    with torch.no_grad():
        single = torch.stack([encoder(clip[:, 0]), encoder(clip[:, 1])]).mean(0)
        torch.testing.assert_close(encoder(clip), single, atol=1e-4, rtol=1e-4)


def test_its_matrices_are_its_convolutions():
    shapes = [p.dim() for p in Encoder(Options(), IMAGE).parameters()]

    assert shapes.count(4) == 20
    assert {dim for dim in shapes if dim >= 2} == {4}


def test_weights_of_another_network_are_refused_by_name(pretrained, tmp_path):
    state = pretrained.state_dict()
    state["layer1.0.conv1.weight"] = torch.zeros(1)
    torch.save(state, tmp_path / "net.pth")

    with pytest.raises(RequestError, match=r"layer1\.0\.conv1\.weight"):
        Encoder(Options(weights=str(tmp_path / "net.pth")), IMAGE)


def test_a_missing_file_of_weights_is_named(tmp_path):
    with pytest.raises(EnvironmentLacks, match="nowhere"):
        Encoder(Options(weights=str(tmp_path / "nowhere.pth")), IMAGE)
