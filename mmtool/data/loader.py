"""A thread that gathers from memory-mapped columns into a ring of reused buffers.

No worker processes and no fresh batch memory: both cost ten times the gather itself. Buffers are
pinned when the device is a GPU; a slot is refilled only after its copy to the device has completed.
"""

import queue
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from mmtool.data.dataset import Dataset
from mmtool.data.samplers import Share, Visits
from mmtool.data.transforms import ColumnTransform, build_transforms
from mmtool.errors import WorkFailed
from mmtool.types import Batch, Modality


@dataclass(slots=True)
class _Slot:
    """Reused host memory for one micro-batch."""

    buffers: dict[Modality, Tensor] = field(default_factory=dict)  # flat, grown when needed
    filled: dict[Modality, Tensor] = field(default_factory=dict)
    lengths: dict[Modality, Tensor] = field(default_factory=dict)
    label: Tensor | None = None
    present: Tensor | None = None
    rows: Tensor | None = None
    weight: Tensor | None = None
    copied: "torch.cuda.Event | None" = None


@dataclass(frozen=True, slots=True)
class LoadedShare:
    """One rank's micro-batches of a step, on the device, with what it cost to get them."""

    step: int
    global_size: int
    batches: tuple[Batch, ...]
    wait_ms: float
    transfer_ms: float


class Loader:
    """Turns shares of an epoch into batches on the device; gathers ahead in one thread."""

    def __init__(
        self, dataset: Dataset, *, device: torch.device, seed: int, num_slots: int = 4
    ) -> None:
        self.dataset = dataset
        self.device = device
        self.transforms = build_transforms(dataset, seed=seed, device=device)
        self._num_slots = num_slots
        self._pin = device.type == "cuda"
        # The columns are kept in store order; the recipe may use fewer modalities.
        store_order = list(dataset.store.modalities)
        self._present_columns = [store_order.index(m) for m in dataset.modalities]

    def run(self, shares: Iterable[Share], *, epoch: int | None) -> Iterator[LoadedShare]:
        """Give the batches of every share; `epoch` None switches augmentation off."""
        free: queue.Queue[_Slot] = queue.Queue()
        ready: queue.Queue[tuple[Share, list[_Slot]] | BaseException | None] = queue.Queue()
        stop = threading.Event()
        for _ in range(self._num_slots):
            free.put(_Slot())
        arguments = (shares, free, ready, stop)
        thread = threading.Thread(target=self._produce, args=arguments, daemon=True)
        thread.start()
        try:
            while True:
                started = time.perf_counter()
                item = ready.get()
                waited = time.perf_counter()
                if item is None:
                    return
                if isinstance(item, BaseException):
                    raise item
                share, slots = item
                batches = tuple(self._to_device(slot, epoch) for slot in slots)
                for slot in slots:
                    free.put(slot)
                moved = time.perf_counter()
                yield LoadedShare(
                    share.step,
                    share.global_size,
                    batches,
                    (waited - started) * 1e3,
                    (moved - waited) * 1e3,
                )
        finally:
            stop.set()
            free.put(_Slot())  # wakes a producer that waits for a slot
            thread.join()

    def _produce(
        self,
        shares: Iterable[Share],
        free: "queue.Queue[_Slot]",
        ready: "queue.Queue[tuple[Share, list[_Slot]] | BaseException | None]",
        stop: threading.Event,
    ) -> None:
        try:
            for share in shares:
                slots: list[_Slot] = []
                for visits in share.micro:
                    # More micro-batches than slots would wait for ever: add memory instead.
                    slot = free.get() if len(slots) < self._num_slots else _Slot()
                    if stop.is_set():
                        return
                    self._fill(slot, visits)
                    slots.append(slot)
                ready.put((share, slots))
            ready.put(None)
        except BaseException as error:  # noqa: BLE001 - handed to the consumer, which raises it
            ready.put(error)

    def _fill(self, slot: _Slot, visits: Visits) -> None:
        if slot.copied is not None:
            slot.copied.synchronize()
        store, index = self.dataset.store, self.dataset.store.index
        rows = visits.rows
        present = index.present[rows][:, self._present_columns]
        if visits.keep is not None:
            present = present & visits.keep
        slot.label = self._host(index.label[rows])
        slot.present = self._host(present)
        slot.rows = self._host(rows)
        slot.weight = None if visits.weight is None else self._host(visits.weight)
        for modality in self.dataset.modalities:
            name = self.dataset.columns[modality]
            column = store.columns[name]
            shape = (len(rows), *column.shape)
            if column.ragged:
                longest = max(1, int(store.lengths(name)[rows].max(initial=1)))
                shape = (len(rows), longest, *column.shape)
            out = self._buffer(slot, modality, shape, np.dtype(column.dtype))
            try:
                _, lengths = store.gather(name, rows, out.numpy())
            except (OSError, ValueError) as err:
                raise WorkFailed(
                    f"reading column {name!r} of {store.path} failed: {err}",
                    fix=f"prepare the dataset again, or check the disk of {store.path}",
                ) from err
            slot.filled[modality] = out
            if lengths is not None:
                slot.lengths[modality] = self._host(lengths)

    def _buffer(
        self, slot: _Slot, modality: Modality, shape: tuple[int, ...], dtype: np.dtype
    ) -> Tensor:
        wanted = torch.from_numpy(np.empty(0, dtype)).dtype
        size = int(np.prod(shape))
        held = slot.buffers.get(modality)
        if held is None or held.numel() < size:
            held = torch.empty(size, dtype=wanted, pin_memory=self._pin)
            slot.buffers[modality] = held
        return held[:size].view(shape)

    def _host(self, values: np.ndarray) -> Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(values))
        return tensor.pin_memory() if self._pin else tensor

    def _to_device(self, slot: _Slot, epoch: int | None) -> Batch:
        def move(tensor: Tensor) -> Tensor:
            return tensor.to(self.device, non_blocking=True)

        assert slot.rows is not None
        assert slot.label is not None
        assert slot.present is not None
        index = move(slot.rows)
        lengths = {m: move(x) for m, x in slot.lengths.items()}
        inputs = {
            m: self._transformed(self.transforms[m], move(x), index, lengths.get(m), epoch)
            for m, x in slot.filled.items()
        }
        batch = Batch(
            inputs=inputs,
            lengths=lengths,
            present=move(slot.present),
            label=move(slot.label),
            index=index,
            modalities=self.dataset.modalities,
            weight=None if slot.weight is None else move(slot.weight),
        )
        if self._pin:
            slot.copied = torch.cuda.Event()
            slot.copied.record()
        return batch

    @staticmethod
    def _transformed(
        transform: ColumnTransform,
        raw: Tensor,
        index: Tensor,
        lengths: Tensor | None,
        epoch: int | None,
    ) -> Tensor:
        return transform(raw, index, lengths, epoch=epoch)
