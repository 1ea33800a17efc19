"""ResNet-18 without its classifier, for images, clips of frames and spectrograms.

He et al., "Deep residual learning for image recognition", CVPR 2016; the layers are torchvision's,
started with Kaiming-normal convolutions. The input has one channel (spectrogram) or three (frames).
Frames of a clip [batch, time, channel, height, width] are folded into the batch and the feature
maps are averaged over time and space together, as in the OGM-GE reference recipe. The feature has
512 values.
"""

from pathlib import Path
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torchvision.models import resnet18

from mmtool.config import schema
from mmtool.errors import EnvironmentLacks, RequestError
from mmtool.types import InputKind, InputSpec

_NUM_GROUPS = 32


class Options(schema.Options):
    """Where weights come from and how layers are normalised."""

    weights: str | None = None
    """File with ImageNet weights as torchvision names them (.pth or .safetensors); unset trains
    from scratch. With one input channel the first layer's weights are summed over colours."""
    norm: Literal["batch", "group"] = "batch"
    """Normalisation; group is independent of the batch size and of the number of GPUs."""


class Encoder(nn.Module):
    """Residual network whose feature is the mean of its last feature map."""

    accepts: ClassVar[frozenset[InputKind]] = frozenset({"spectrogram", "frames"})
    folds_frames: ClassVar[bool] = True

    def __init__(self, options: Options, spec: InputSpec) -> None:
        super().__init__()
        norm = nn.BatchNorm2d if options.norm == "batch" else _group_norm
        network = resnet18(weights=None, norm_layer=norm)
        num_channels = spec.shape[-3]
        if num_channels != network.conv1.in_channels:
            network.conv1 = nn.Conv2d(num_channels, 64, 7, stride=2, padding=3, bias=False)
            nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
        self.out_dim = int(network.fc.in_features)
        self.body = nn.Sequential()
        for name, layer in network.named_children():
            if name not in ("avgpool", "fc"):
                self.body.add_module(name, layer)
        self.stage_dims = (64, 128, 256, 512)
        if options.weights is not None:
            load_weights(self.body, Path(options.weights))

    def stages(self) -> list[nn.Module]:
        """Give the four groups of residual blocks, the first with what comes before it."""
        layers = list(self.body.children())
        return [nn.Sequential(*layers[:-3]), *layers[-3:]]

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Give one feature per sample; [batch, (time,) channel, height, width] -> [batch, 512]."""
        del lengths
        if x.dim() == 4:
            return self.body(x).mean((2, 3))
        maps = self.body(x.flatten(0, 1))  # [batch * time, 512, h, w]
        return maps.unflatten(0, (x.shape[0], x.shape[1])).mean((1, 3, 4))


def _group_norm(num_channels: int) -> nn.Module:
    return nn.GroupNorm(min(_NUM_GROUPS, num_channels), num_channels)


def load_weights(body: nn.Module, path: Path) -> None:
    """Fill a body from a torchvision state dict; its classifier, if any, is left out."""
    state = {k: v for k, v in _read_state(path).items() if not k.startswith("fc.")}
    own = body.state_dict()
    first = state.get("conv1.weight")
    if first is not None and first.shape[1] == 3 and own["conv1.weight"].shape[1] == 1:
        state["conv1.weight"] = first.sum(1, keepdim=True)
    wrong = [
        k for k in sorted({*own, *state}) if k not in own or k not in state
        or own[k].shape != state[k].shape
    ]  # fmt: skip
    if wrong:
        raise RequestError(
            f"{path} does not fit this ResNet-18: {len(wrong)} tensors differ, first {wrong[0]!r}",
            why="names and shapes must be those of torchvision's resnet18 with the same norm",
            fix="remove the option weights, or name a file that fits",
        )
    body.load_state_dict(state)


def _read_state(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise EnvironmentLacks(
            f"there is no weights file {path}",
            fix="remove the option weights, or give the path of a local file",
        )
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    return torch.load(path, map_location="cpu", weights_only=True)
