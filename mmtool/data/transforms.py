"""Turn raw gathered columns into encoder inputs, batched, on the device.

Per-sample randomness is a function of (seed, epoch, sample id), so neither the order of samples nor
the number of ranks changes an augmentation. What has no randomness was computed by prepare.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from mmtool.config.schema import Augment
from mmtool.data.dataset import Dataset
from mmtool.randomness import sample_uniform
from mmtool.types import Modality

_WAVE_SCALE = 1.0 / 32768.0
_SMALLEST_DEVIATION = 1e-6
_SALT_FLIP, _SALT_AREA, _SALT_ASPECT, _SALT_TOP, _SALT_LEFT = range(101, 106)


@dataclass(frozen=True, slots=True)
class ColumnTransform:
    """Everything done to one modality between the store and its encoder."""

    kind: str
    mean: Tensor | None
    deviation: Tensor | None
    augment: Augment | None
    seed: int

    def __call__(
        self, raw: Tensor, index: Tensor, lengths: Tensor | None, *, epoch: int | None
    ) -> Tensor:
        """Give the encoder input; `epoch` is None outside training. Never aliases `raw`."""
        if self.kind == "tokens":
            return raw.long()
        value = _to_float(raw, self.kind)
        if self.augment is not None:
            value = augmented(value, index, self.augment, seed=self.seed, epoch=epoch)
        if self.mean is not None and self.deviation is not None:
            value = (value - self.mean) / self.deviation
            if lengths is not None:  # padding stays zero after the shift
                value = value * _inside(value, lengths)
        return value


def build_transforms(
    dataset: Dataset, *, seed: int, device: torch.device
) -> dict[Modality, ColumnTransform]:
    """Give the transform of each modality."""
    return {m: _build_transform(dataset, m, seed, device) for m in dataset.modalities}


def _build_transform(
    dataset: Dataset, modality: Modality, seed: int, device: torch.device
) -> ColumnTransform:
    column = dataset.store.columns[dataset.columns[modality]]
    mean = deviation = None
    stats = column.stats.get(dataset.protocol)
    if dataset.config.normalize == "train" and stats is not None and column.kind != "tokens":
        mean = _per_channel(stats["mean"], column.kind, device)
        deviation = _per_channel(stats["std"], column.kind, device).clamp_min(_SMALLEST_DEVIATION)
    return ColumnTransform(column.kind, mean, deviation, dataset.config.augment.get(modality), seed)


def _per_channel(values: Sequence[float], kind: str, device: torch.device) -> Tensor:
    vector = torch.tensor(list(values), dtype=torch.float32, device=device)
    return vector.view(-1, 1, 1) if kind == "frames" else vector


def _to_float(raw: Tensor, kind: str) -> Tensor:
    if kind == "frames":
        return raw.float() * (1.0 / 255.0)
    if kind == "wave" and not raw.is_floating_point():
        return raw.float() * _WAVE_SCALE
    return raw.to(torch.float32, copy=True)


def _inside(value: Tensor, lengths: Tensor) -> Tensor:
    steps = torch.arange(value.shape[1], device=value.device)
    mask = steps < lengths.unsqueeze(1)  # [batch, time]
    return mask.view(*mask.shape, *([1] * (value.dim() - 2)))


def augmented(
    frames: Tensor, index: Tensor, augment: Augment, *, seed: int, epoch: int | None
) -> Tensor:
    """Crop, resize and mirror frames [batch, (time,) channel, height, width] with own parameters.

    Without an epoch (evaluation) only the resize to `augment.size` remains.
    """
    flat = frames.unsqueeze(1) if frames.dim() == 4 else frames  # [batch, time, c, h, w]
    batch, time, channels, height, width = flat.shape
    out_height, out_width = (
        (augment.size, augment.size) if augment.size is not None else (height, width)
    )
    theta = _boxes(index, augment, seed=seed, epoch=epoch, aspect=width / height)
    grid = functional.affine_grid(
        theta, [batch, channels, out_height, out_width], align_corners=False
    )
    sampled = functional.grid_sample(
        flat.reshape(batch, time * channels, height, width),
        grid,
        mode="bilinear",
        padding_mode="border",
        align_corners=False,
    )
    sampled = sampled.view(batch, time, channels, out_height, out_width)
    return sampled.squeeze(1) if frames.dim() == 4 else sampled


def _boxes(
    index: Tensor, augment: Augment, *, seed: int, epoch: int | None, aspect: float
) -> Tensor:
    """Affine maps [batch, 2, 3] from output to input coordinates in [-1, 1]."""
    zero = torch.zeros(index.shape[0], device=index.device)
    one = torch.ones_like(zero)
    half_width, half_height, center_x, center_y, sign = one, one, zero, zero, one
    if epoch is not None and augment.crop_scale is not None:
        low, high = augment.crop_scale
        area = low + (high - low) * sample_uniform(index, seed, epoch, _SALT_AREA)
        # The reference draws the crop's aspect ratio log-uniformly from 3/4 to 4/3.
        spread = 2.0 * sample_uniform(index, seed, epoch, _SALT_ASPECT) - 1.0
        ratio = torch.exp(spread * math.log(4.0 / 3.0))
        half_width = (area * ratio / aspect).sqrt().clamp(max=1.0)
        half_height = (area / ratio * aspect).sqrt().clamp(max=1.0)
        center_x = (1 - half_width) * (2 * sample_uniform(index, seed, epoch, _SALT_LEFT) - 1)
        center_y = (1 - half_height) * (2 * sample_uniform(index, seed, epoch, _SALT_TOP) - 1)
    if epoch is not None and augment.flip:
        mirrored = sample_uniform(index, seed, epoch, _SALT_FLIP) < 0.5
        sign = torch.where(mirrored, -one, one)
    row_x = torch.stack([sign * half_width, zero, center_x], dim=1)
    row_y = torch.stack([zero, half_height, center_y], dim=1)
    return torch.stack([row_x, row_y], dim=1)
