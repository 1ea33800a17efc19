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
_PIECE = 32_768


@dataclass(frozen=True, slots=True)
class ColumnTransform:
    """Everything done to one modality between the store and its encoder."""

    kind: InputKind
    mean: Tensor | None
    deviation: Tensor | None
    augment: Augment | None
    seed: int
    as_stored: bool = False
    """Only crop and leave values as they are, for a consumer that normalises on its own device."""

    def __call__(
        self,
        raw: Tensor,
        index: Tensor,
        lengths: Tensor | None,
        *,
        epoch: int | None,
    ) -> Tensor:
        """Give the encoder input of a batch on its device; `epoch` is None outside training.

        Never aliases `raw`.
        """
        if raw.device.type == "cpu":
            out = self.output(raw.shape, raw.dtype)
            self.write(raw, self.boxes(raw.shape, index, epoch), lengths, out)
            return out
        if self.kind == "tokens":
            return raw.to(torch.int64, copy=True)
        value = _to_float(raw, self.kind)
        if self.augment is not None:
            value = augmented(value, index, self.augment, seed=self.seed, epoch=epoch)
        return self._normalised(value, lengths)

    def boxes(self, shape: Sequence[int], index: Tensor, epoch: int | None) -> Tensor | None:
        """Give the crop of each sample of raw values [batch, ...], None where nothing is cropped.

        They are drawn for a whole batch at once: for a few samples it takes as long.
        """
        if self.augment is None:
            return None
        size = (shape[-2], shape[-1])
        return draw_boxes(index, self.augment, size, seed=self.seed, epoch=epoch)

    def write(self, raw: Tensor, boxes: Tensor | None, lengths: Tensor | None, out: Tensor) -> None:
        """Transform raw values on the host into `out`; any part of a batch on its own.

        Several threads do this at once, so that nothing here may start threads of its own, as
        torch does for large tensors.
        """
        source, target = raw.numpy(), out.numpy()
        if self.kind == "frames" and raw.dtype == torch.uint8:
            tables = None if self.as_stored else self._tables(raw.shape[-3])
            crop_on_host(source, None if boxes is None else boxes.numpy(), target, tables)
        elif boxes is not None:
            size = (target.shape[-2], target.shape[-1])
            target[...] = crop_on_device(_to_float(raw, self.kind), boxes, size).numpy()
        else:
            _copy(raw, out)
        if not self.as_stored:
            self._finish(target, raw.dtype, lengths)

    def _finish(self, target: np.ndarray, stored: torch.dtype, lengths: Tensor | None) -> None:
        is_tabled = self.kind == "frames" and stored == torch.uint8
        if self.kind == "wave" and not stored.is_floating_point:
            target *= np.float32(_WAVE_SCALE)
        is_shifted = self.mean is not None and self.deviation is not None
        if self.mean is not None and self.deviation is not None and not is_tabled:
            target -= self.mean.numpy()
            target /= self.deviation.numpy()
        if lengths is not None and is_shifted:  # padding stays zero after the shift
            target *= _inside(torch.from_numpy(target), lengths).numpy()

    def output(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Give host memory for the transformed form of raw values [batch, ...] of this type."""
        kept = torch.int64 if self.kind == "tokens" else torch.float32
        if self.as_stored:
            kept = dtype
        return torch.empty(*shape[:-2], *self._size(shape), dtype=kept)

    def _size(self, shape: Sequence[int]) -> tuple[int, ...]:
        if self.augment is None or self.augment.size is None:
            return tuple(shape[-2:])
        return (self.augment.size, self.augment.size)

    def _normalised(self, value: Tensor, lengths: Tensor | None) -> Tensor:
        if self.mean is None or self.deviation is None:
            return value
        value = (value - self.mean) / self.deviation
        if lengths is not None:  # padding stays zero after the shift
            value = value * _inside(value, lengths)
        return value

    def _tables(self, num_channels: int) -> np.ndarray:
        """Give what each byte becomes, by channel; [channel, 256] float32."""
        values = np.arange(256, dtype=np.float64) / _LARGEST_BYTE
        if self.mean is None or self.deviation is None:
            return np.tile(values.astype(np.float32), (num_channels, 1))
        mean, deviation = (x.double().reshape(-1, 1).numpy() for x in (self.mean, self.deviation))
        table = (values - mean) / deviation
        return np.broadcast_to(table, (num_channels, 256)).astype(np.float32)


def build_transforms(
    dataset: Dataset, *, seed: int, device: torch.device, as_stored: bool = False
) -> dict[Modality, ColumnTransform]:
    """Give the transform of each modality."""
    return {m: _build_transform(dataset, m, seed, device, as_stored) for m in dataset.modalities}


def _build_transform(
    dataset: Dataset, modality: Modality, seed: int, device: torch.device, as_stored: bool
) -> ColumnTransform:
    column = dataset.store.columns[dataset.columns[modality]]
    mean = deviation = None
    stats = column.stats.get(dataset.protocol)
    if dataset.config.normalize == "train" and stats is not None and column.kind != "tokens":
        mean = _per_channel(stats["mean"], column.kind, device)
        deviation = _per_channel(stats["std"], column.kind, device).clamp_min(_SMALLEST_DEVIATION)
    augment = dataset.config.augment.get(modality)
    return ColumnTransform(column.kind, mean, deviation, augment, seed, as_stored)


def _per_channel(values: Sequence[float], kind: str, device: torch.device) -> Tensor:
    vector = torch.tensor(list(values), dtype=torch.float32, device=device)
    return vector.view(-1, 1, 1) if kind == "frames" else vector


def _to_float(raw: Tensor, kind: str) -> Tensor:
    if kind == "frames":
        return raw.float() * (1.0 / _LARGEST_BYTE)
    if kind == "wave" and not raw.is_floating_point():
        return raw.float() * _WAVE_SCALE
    return raw.to(torch.float32, copy=True)


def _copy(source: Tensor, target: Tensor) -> None:
    """Copy and convert in pieces too small for torch to share out; numpy takes 30 times as long."""
    pieces = zip(source.view(-1).split(_PIECE), target.view(-1).split(_PIECE), strict=True)
    for piece, into in pieces:
        into.copy_(piece)


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
