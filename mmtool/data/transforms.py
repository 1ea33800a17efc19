"""Turn raw gathered columns into encoder inputs, batched, where they will be used.

Per-sample randomness is a function of (seed, epoch, sample id), so neither the order of samples nor
the number of ranks changes an augmentation. What has no randomness was computed by prepare.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mmtool.config.schema import Augment
from mmtool.data.crops import crop_on_device, crop_on_host, draw_boxes
from mmtool.data.dataset import Dataset
from mmtool.types import InputKind, Modality

_WAVE_SCALE = 1.0 / 32768.0
_LARGEST_BYTE = 255.0
_SMALLEST_DEVIATION = 1e-6


@dataclass(frozen=True, slots=True)
class ColumnTransform:
    """Everything done to one modality between the store and its encoder."""

    kind: InputKind
    mean: Tensor | None
    deviation: Tensor | None
    augment: Augment | None
    seed: int
    as_bytes: bool = False
    """Leave cropped frames as bytes, for a consumer that normalises them on its own device."""

    def __call__(
        self,
        raw: Tensor,
        index: Tensor,
        lengths: Tensor | None,
        *,
        epoch: int | None,
        out: Tensor | None = None,
    ) -> Tensor:
        """Give the encoder input, in `out` where given; `epoch` is None outside training.

        Never aliases `raw`. Every sample is computed on its own, so a batch may come in parts.
        """
        if self.kind == "frames" and raw.dtype == torch.uint8 and raw.device.type == "cpu":
            return self._bytes_on_host(raw, index, lengths, epoch=epoch, out=out)
        value = self._value(raw, index, lengths, epoch)
        return value if out is None else out.copy_(value)

    def output(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Give host memory for the transformed form of raw values [batch, ...] of this type."""
        if self.kind == "tokens":
            return torch.empty(*shape, dtype=torch.int64)
        is_bytes = self.as_bytes and dtype == torch.uint8
        kept = torch.uint8 if is_bytes else torch.float32
        return torch.empty(*shape[:-2], *self._size(shape), dtype=kept)

    def _size(self, shape: Sequence[int]) -> tuple[int, ...]:
        if self.augment is None or self.augment.size is None:
            return tuple(shape[-2:])
        return (self.augment.size, self.augment.size)

    def _value(
        self, raw: Tensor, index: Tensor, lengths: Tensor | None, epoch: int | None
    ) -> Tensor:
        if self.kind == "tokens":
            return raw.to(torch.int64, copy=True)
        value = _to_float(raw, self.kind)
        if self.augment is not None:
            value = augmented(value, index, self.augment, seed=self.seed, epoch=epoch)
        if self.mean is not None and self.deviation is not None:
            value = (value - self.mean) / self.deviation
            if lengths is not None:  # padding stays zero after the shift
                value = value * _inside(value, lengths)
        return value

    def _bytes_on_host(
        self,
        raw: Tensor,
        index: Tensor,
        lengths: Tensor | None,
        *,
        epoch: int | None,
        out: Tensor | None,
    ) -> Tensor:
        if out is None:
            out = self.output(raw.shape, raw.dtype)
        boxes = None
        if self.augment is not None:
            size = (raw.shape[-2], raw.shape[-1])
            boxes = draw_boxes(index, self.augment, size, seed=self.seed, epoch=epoch).numpy()
        tables = None if self.as_bytes else self._tables(raw.shape[-3])
        crop_on_host(raw.numpy(), boxes, out.numpy(), tables)
        return out if lengths is None else out.mul_(_inside(out, lengths))

    def _tables(self, num_channels: int) -> np.ndarray:
        """Give what each byte becomes, by channel; [channel, 256] float32."""
        values = np.arange(256, dtype=np.float64) / _LARGEST_BYTE
        if self.mean is None or self.deviation is None:
            return np.tile(values.astype(np.float32), (num_channels, 1))
        mean, deviation = (x.double().reshape(-1, 1).numpy() for x in (self.mean, self.deviation))
        table = (values - mean) / deviation
        return np.broadcast_to(table, (num_channels, 256)).astype(np.float32)


def build_transforms(
    dataset: Dataset, *, seed: int, device: torch.device, as_bytes: bool = False
) -> dict[Modality, ColumnTransform]:
    """Give the transform of each modality."""
    return {m: _build_transform(dataset, m, seed, device, as_bytes) for m in dataset.modalities}


def _build_transform(
    dataset: Dataset, modality: Modality, seed: int, device: torch.device, as_bytes: bool
) -> ColumnTransform:
    column = dataset.store.columns[dataset.columns[modality]]
    mean = deviation = None
    stats = column.stats.get(dataset.protocol)
    if dataset.config.normalize == "train" and stats is not None and column.kind != "tokens":
        mean = _per_channel(stats["mean"], column.kind, device)
        deviation = _per_channel(stats["std"], column.kind, device).clamp_min(_SMALLEST_DEVIATION)
    augment = dataset.config.augment.get(modality)
    return ColumnTransform(column.kind, mean, deviation, augment, seed, as_bytes)


def _per_channel(values: Sequence[float], kind: str, device: torch.device) -> Tensor:
    vector = torch.tensor(list(values), dtype=torch.float32, device=device)
    return vector.view(-1, 1, 1) if kind == "frames" else vector


def _to_float(raw: Tensor, kind: str) -> Tensor:
    if kind == "frames":
        return raw.float() * (1.0 / _LARGEST_BYTE)
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
    height, width = frames.shape[-2:]
    boxes = draw_boxes(index, augment, (height, width), seed=seed, epoch=epoch)
    size = (height, width) if augment.size is None else (augment.size, augment.size)
    return crop_on_device(frames, boxes, size)
