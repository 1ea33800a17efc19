"""A thread that gathers from memory-mapped columns and hands over batches on the device.

No worker processes and no fresh batch memory for gathering: both cost ten times the gather itself.
For a GPU it fills a ring of reused pinned buffers, copied and transformed on a stream of its own;
a buffer is refilled only after its copy has completed. Where the whole store fits on the device
(`data.placement`), rows are picked there. For the CPU it crops and normalises while it gathers.
"""

import queue
import threading
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mmtool.data.dataset import Dataset
from mmtool.data.gather import Gatherer, Slot, Visited
from mmtool.data.resident import resident_columns
from mmtool.data.samplers import Share, Visits
from mmtool.data.transfer import Transfer
from mmtool.data.transforms import build_transforms
from mmtool.types import Batch, Modality

_READ_AHEAD = 1
"""Shares whose pages are announced to the system before they are gathered."""
_FETCH_AHEAD = 64
"""Shares whose shards are fetched ahead where the store is remote."""
_SHARES_AHEAD = 2
"""Shares that may be ready on the device before they are asked for."""


@dataclass(frozen=True, slots=True)
class LoadedShare:
    """One rank's micro-batches of a step, on the device, with what it cost to get them.

    Both times are those that the training thread spent waiting.
    """

    step: int
    global_size: int
    batches: tuple[Batch, ...]
    wait_ms: float
    transfer_ms: float


@dataclass(frozen=True, slots=True)
class _Ready:
    """What the loading thread hands over; `issued` comes after everything it put on a stream."""

    share: Share
    batches: tuple[Batch, ...]
    issued: "torch.cuda.Event | None"


class Loader:
    """Turns shares of an epoch into batches on the device; works ahead in one thread.

    `as_stored` only crops, for a consumer that normalises on its own device.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        device: torch.device,
        seed: int,
        num_slots: int = 4,
        as_stored: bool = False,
    ) -> None:
        self.dataset = dataset
        self.device = device
        self.transforms = build_transforms(dataset, seed=seed, device=device, as_stored=as_stored)
        self.resident = resident_columns(dataset, device)
        self._gatherer = Gatherer(dataset, pin=device.type == "cuda")
        self._transfer = Transfer(device)
        self._num_slots = num_slots
        # Kept between epochs, for pinned memory is slow to get; each run takes a ring of its own.
        self._rings: list[deque[Slot]] = []

    @property
    def is_resident(self) -> bool:
        """Whether the columns live on the device."""
        return bool(self.resident)

    def run(
        self, shares: Iterable[Share], *, epoch: int | None
    ) -> Generator[LoadedShare, None, None]:
        """Give the batches of every share; `epoch` None switches augmentation off."""
        ready: queue.Queue[_Ready | BaseException | None] = queue.Queue()
        room = threading.Semaphore(_SHARES_AHEAD)
        stop = threading.Event()
        self._transfer.begin()
        arguments = (shares, epoch, ready, room, stop)
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
                self._transfer.receive(item.batches, item.issued)
                moved = time.perf_counter()
                room.release()
                yield LoadedShare(
                    item.share.step,
                    item.share.global_size,
                    item.batches,
                    (waited - started) * 1e3,
                    (moved - waited) * 1e3,
                )
                del item  # a batch that was trained on must not be kept until the next one is there
        finally:
            stop.set()
            room.release()  # wakes a producer that waits for room
            thread.join()

    def _produce(
        self,
        shares: Iterable[Share],
        epoch: int | None,
        ready: "queue.Queue[_Ready | BaseException | None]",
        room: threading.Semaphore,
        stop: threading.Event,
    ) -> None:
        ring = self._rings.pop() if self._rings else deque(Slot() for _ in range(self._num_slots))
        try:
            for share in self._announced(shares):
                room.acquire()
                if stop.is_set():
                    return
                with self._transfer.issue():
                    batches = tuple(self._batch(ring, visits, epoch) for visits in share.micro)
                ready.put(_Ready(share, batches, self._transfer.mark()))
            ready.put(None)
        except BaseException as error:  # noqa: BLE001 - handed to the consumer, which raises it
            ready.put(error)
        finally:
            self._rings.append(ring)

    def _announced(self, shares: Iterable[Share]) -> Iterator[Share]:
        """Give the shares, each after the store has heard of the ones that follow it."""
        if self.is_resident:
            yield from shares
            return
        depth = _FETCH_AHEAD if self.dataset.store.is_remote else _READ_AHEAD
        waiting: deque[Share] = deque()
        for share in shares:
            if depth:
                self.dataset.will_need(np.concatenate([part.rows for part in share.micro]))
            waiting.append(share)
            if len(waiting) > depth:
                yield waiting.popleft()
        yield from waiting

    def _batch(self, ring: deque[Slot], visits: Visits, epoch: int | None) -> Batch:
        visited = self._gatherer.look_up(visits)
        index = self._moved(visited.rows)
        lengths = {m: self._moved(x) for m, x in visited.lengths.items()}
        return Batch(
            inputs=self._inputs(ring, visited, index, lengths, epoch),
            lengths=lengths,
            present=self._moved(visited.present),
            label=self._moved(visited.label),
            index=index,
            modalities=self.dataset.modalities,
            weight=None if visited.weight is None else self._moved(visited.weight),
            task=self.dataset.task,
        )

    def _inputs(
        self,
        ring: deque[Slot],
        visited: Visited,
        index: Tensor,
        lengths: dict[Modality, Tensor],
        epoch: int | None,
    ) -> dict[Modality, Tensor]:
        if not self.is_resident and self.device.type == "cpu":
            return self._gatherer.transformed(visited, self.transforms, epoch=epoch)
        if self.is_resident:
            raw = {
                m: column.take(index, lengths.get(m), visited.longest.get(m, 0))
                for m, column in self.resident.items()
            }
            return self._transformed(raw, index, lengths, epoch)
        slot = ring[0]
        ring.rotate(-1)
        slot.wait()
        raw = {m: self._moved(x) for m, x in self._gatherer.gather(slot, visited).items()}
        slot.copied = self._transfer.mark()
        return self._transformed(raw, index, lengths, epoch)

    def _transformed(
        self,
        raw: dict[Modality, Tensor],
        index: Tensor,
        lengths: dict[Modality, Tensor],
        epoch: int | None,
    ) -> dict[Modality, Tensor]:
        return {
            m: self.transforms[m](x, index, lengths.get(m), epoch=epoch) for m, x in raw.items()
        }

    def _moved(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.device, non_blocking=True)
