"""Whole columns as tensors on the device: no gather on the host and next to nothing to transfer."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mmtool.data.dataset import Dataset
from mmtool.errors import EnvironmentLacks
from mmtool.store.mapping import available_bytes
from mmtool.text import human_bytes
from mmtool.types import Modality

_AUTO_SHARE = 0.25
"""Largest share of the free device memory that `placement = "auto"` takes."""
_CHUNK_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class ResidentColumn:
    """All samples of one modality; those of varying length end to end."""

    values: Tensor  # [row, ...], or [step over all rows, ...]
    starts: Tensor | None = None  # [row], where lengths vary

    def take(self, rows: Tensor, lengths: Tensor | None, longest: int) -> Tensor:
        """Give raw samples in the order of rows, padded with zeros to `longest` steps."""
        if self.starts is None or lengths is None:
            return self.values.index_select(0, rows)
        steps = torch.arange(longest, device=rows.device)
        at = self.starts.index_select(0, rows).unsqueeze(1) + steps  # [batch, longest]
        inside = steps < lengths.unsqueeze(1)
        flat = self.values.index_select(0, torch.where(inside, at, 0).flatten())
        padded = flat.view(*at.shape, *self.values.shape[1:])
        return torch.where(inside.view(*at.shape, *[1] * (padded.dim() - 2)), padded, 0)


def resident_columns(dataset: Dataset, device: torch.device) -> dict[Modality, ResidentColumn]:
    """Give the columns that live on the device, all or none, as the recipe and its memory say."""
    placement, wanted = dataset.config.placement, num_bytes(dataset)
    if placement == "host":
        return {}
    free = _free_bytes(device)
    if placement == "auto":
        # A remote store would be fetched whole before the first step.
        is_fit = device.type == "cuda" and wanted <= _AUTO_SHARE * free
        if not is_fit or dataset.store.is_remote:
            return {}
    elif wanted > free:
        raise EnvironmentLacks(
            f"the columns of this recipe take {human_bytes(wanted)}, "
            f"{device} has {human_bytes(free)} free",
            why='data.placement = "device" puts all of them there',
            fix="-s data.placement=host",
        )
    return {m: _resident(dataset, m, device) for m in dataset.modalities}


def num_bytes(dataset: Dataset) -> int:
    """Bytes of the columns a recipe uses."""
    store, total = dataset.store, 0
    for name in dataset.columns.values():
        column = store.columns[name]
        steps = int(store.lengths(name).sum()) if column.ragged else len(store.index.label)
        total += steps * np.dtype(column.dtype).itemsize * int(np.prod(column.shape))
    return total


def _free_bytes(device: torch.device) -> int:
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else available_bytes()


def _resident(dataset: Dataset, modality: Modality, device: torch.device) -> ResidentColumn:
    store, name = dataset.store, dataset.columns[modality]
    column, num_rows = store.columns[name], len(store.index.label)
    dtype = torch.from_numpy(np.empty(0, column.dtype)).dtype
    if not column.ragged:
        values = torch.empty((num_rows, *column.shape), dtype=dtype, device=device)
        for rows in _chunks(num_rows, store.row_nbytes(name)):
            found, _ = store.gather(name, rows)
            values[rows[0] : rows[-1] + 1].copy_(torch.from_numpy(found))
        return ResidentColumn(values)
    lengths = store.lengths(name)
    starts = np.cumsum(lengths) - lengths
    values = torch.empty((int(lengths.sum()) + 1, *column.shape), dtype=dtype, device=device)
    for rows in _chunks(num_rows, store.row_nbytes(name)):
        found, _ = store.gather(name, rows)
        inside = np.arange(found.shape[1]) < lengths[rows][:, None]
        first, last = int(starts[rows[0]]), int(starts[rows[-1]] + lengths[rows[-1]])
        values[first:last].copy_(torch.from_numpy(found[inside]))
    return ResidentColumn(values, torch.from_numpy(starts).to(device))


def _chunks(num_rows: int, row_bytes: int) -> Iterator[np.ndarray]:
    size = max(1, _CHUNK_BYTES // max(1, row_bytes))
    for first in range(0, num_rows, size):
        yield np.arange(first, min(first + size, num_rows))
