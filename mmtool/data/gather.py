"""Rows of all columns out of the store, in parts that fit into a processor's cache, on threads.

For a GPU the parts are gathered into one (pinned) buffer that is reused and sent as a whole; for
the CPU each part is gathered into a small scratch and transformed from there.
"""

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from mmtool.data.dataset import Dataset
from mmtool.data.samplers import Visits, split_evenly
from mmtool.data.transforms import ColumnTransform
from mmtool.errors import WorkFailed
from mmtool.types import Modality

_PART_BYTES = 4 << 20
_MOST_THREADS = 4


@dataclass(slots=True)
class Slot:
    """Reused host memory for one micro-batch on its way to a GPU."""

    buffers: dict[Modality, Tensor] = field(default_factory=dict)  # flat, grown when needed
    copied: "torch.cuda.Event | None" = None

    def wait(self) -> None:
        """Wait until the copy out of this slot is done."""
        if self.copied is not None:
            self.copied.synchronize()


@dataclass(frozen=True, slots=True)
class Visited:
    """The small host tensors of one micro-batch."""

    rows: Tensor
    label: Tensor
    present: Tensor
    weight: Tensor | None
    lengths: Mapping[Modality, Tensor]
    longest: Mapping[Modality, int]


class Gatherer:
    """Reads micro-batches of one dataset."""

    def __init__(self, dataset: Dataset, *, pin: bool) -> None:
        self.dataset = dataset
        self._pin = pin
        # The columns are kept in store order; the recipe may use fewer modalities.
        store_order = list(dataset.store.modalities)
        self._present_columns = [store_order.index(m) for m in dataset.modalities]
        self._num_threads = max(1, min(_MOST_THREADS, torch.get_num_threads()))
        self._pool = ThreadPoolExecutor(self._num_threads, "mmtool-gather")
        self._scratch = threading.local()

    def look_up(self, visits: Visits) -> Visited:
        """Give labels, masks and lengths of a micro-batch."""
        store, index, rows = self.dataset.store, self.dataset.store.index, visits.rows
        present = index.present[rows][:, self._present_columns]
        if visits.keep is not None:
            present = present & visits.keep
        lengths, longest = {}, {}
        for modality in self.dataset.modalities:
            name = self.dataset.columns[modality]
            if store.columns[name].ragged:
                found = store.lengths(name, rows)
                lengths[modality] = self._host(found)
                longest[modality] = max(1, int(found.max(initial=1)))
        weight = None if visits.weight is None else self._host(visits.weight)
        label, mask = self._host(self.dataset.labels(rows)), self._host(present)
        return Visited(self._host(rows), label, mask, weight, lengths, longest)

    def gather(self, slot: Slot, visited: Visited) -> dict[Modality, Tensor]:
        """Fill a slot with raw rows and give them; they live until the slot is filled again."""
        rows = visited.rows.numpy()
        raw = {}
        for modality in self.dataset.modalities:
            shape, dtype = self.raw_form(modality, len(rows), visited.longest)
            raw[modality] = self._buffer(slot.buffers, modality, shape, dtype, pin=self._pin)

        def fill(part: slice) -> None:
            for modality, out in raw.items():
                self._read(modality, rows[part], out[part])

        self._in_parts(fill, len(rows), visited.longest)
        return raw

    def transformed(
        self,
        visited: Visited,
        transforms: Mapping[Modality, ColumnTransform],
        *,
        epoch: int | None,
    ) -> dict[Modality, Tensor]:
        """Give the encoder inputs of a micro-batch, in new memory of the host."""
        rows = visited.rows.numpy()
        outputs, boxes = {}, {}
        for modality, transform in transforms.items():
            shape, dtype = self.raw_form(modality, len(rows), visited.longest)
            outputs[modality] = transform.output(shape, dtype)
            boxes[modality] = transform.boxes(shape, visited.rows, epoch)

        def fill(part: slice) -> None:
            held = self._scratch.__dict__.setdefault("buffers", {})
            for modality, transform in transforms.items():
                shape, dtype = self.raw_form(modality, part.stop - part.start, visited.longest)
                raw = self._buffer(held, modality, shape, dtype, pin=False)
                self._read(modality, rows[part], raw)
                crops, lengths = boxes[modality], visited.lengths.get(modality)
                transform.write(
                    raw,
                    None if crops is None else crops[part],
                    None if lengths is None else lengths[part],
                    outputs[modality][part],
                )

        self._in_parts(fill, len(rows), visited.longest)
        return outputs

    def raw_form(
        self, modality: Modality, num_rows: int, longest: Mapping[Modality, int]
    ) -> tuple[tuple[int, ...], torch.dtype]:
        """Give shape and type of a modality's raw batch."""
        column = self.dataset.store.columns[self.dataset.columns[modality]]
        steps = (longest[modality],) if column.ragged else ()
        dtype = torch.from_numpy(np.empty(0, column.dtype)).dtype
        return (num_rows, *steps, *column.shape), dtype

    def _in_parts(
        self, work: Callable[[slice], None], num_rows: int, longest: Mapping[Modality, int]
    ) -> None:
        total = 0
        for modality in self.dataset.modalities:
            shape, dtype = self.raw_form(modality, num_rows, longest)
            total += int(np.prod(shape)) * dtype.itemsize
        parts = split_evenly(num_rows, max(1, min(num_rows, total // _PART_BYTES)))
        if len(parts) == 1 or self._num_threads == 1:
            for part in parts:
                work(part)
            return
        for _ in self._pool.map(work, parts):
            pass

    def _read(self, modality: Modality, rows: np.ndarray, out: Tensor) -> None:
        store, name = self.dataset.store, self.dataset.columns[modality]
        try:
            store.gather(name, rows, out.numpy())
        except (OSError, ValueError) as err:
            raise WorkFailed(
                f"reading column {name!r} of {store.location} failed: {err}",
                fix=f"prepare the dataset again, or check the disk of {store.path}",
            ) from err

    @staticmethod
    def _buffer(
        held: dict[Modality, Tensor],
        modality: Modality,
        shape: tuple[int, ...],
        dtype: torch.dtype,
        *,
        pin: bool,
    ) -> Tensor:
        size = int(np.prod(shape))
        flat = held.get(modality)
        if flat is None or flat.numel() < size:
            flat = held[modality] = torch.empty(size, dtype=dtype, pin_memory=pin)
        return flat[:size].view(shape)

    def _host(self, values: np.ndarray) -> Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(values))
        return tensor.pin_memory() if self._pin else tensor
