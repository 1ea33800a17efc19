"""Host to device on a stream of its own, so that the next batch arrives while this one trains.

The thread that loads issues copies and transforms on the side stream; the thread that trains lets
its stream wait for them, without waiting itself. Memory of a batch belongs to the side stream, so
it is marked as used by the training stream too: else it could be handed out again, and overwritten,
while a kernel of the step still reads it. Without CUDA everything happens at once.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from mmtool.types import Batch


class Transfer:
    """The side stream of one loader."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._side = torch.cuda.Stream(device) if device.type == "cuda" else None

    def begin(self) -> None:
        """Let what is issued from now on see all that the calling thread's stream did before."""
        if self._side is not None:
            self._side.wait_stream(torch.cuda.current_stream(self.device))

    @contextmanager
    def issue(self) -> Iterator[None]:
        """Run copies and kernels inside on the side stream; streams belong to a thread."""
        if self._side is None:
            yield
            return
        with torch.cuda.stream(self._side):
            yield

    def mark(self) -> "torch.cuda.Event | None":
        """Give an event that comes after all that was issued so far."""
        if self._side is None:
            return None
        event = torch.cuda.Event()
        event.record(self._side)
        return event

    def receive(self, batches: Iterable[Batch], issued: "torch.cuda.Event | None") -> None:
        """Make batches safe to use, and to free, on the calling thread's stream."""
        if issued is None:
            return
        stream = torch.cuda.current_stream(self.device)
        stream.wait_event(issued)
        for batch in batches:
            for tensor in tensors_of(batch):
                tensor.record_stream(stream)


def tensors_of(batch: Batch) -> list[Tensor]:
    """Give every tensor of a batch."""
    found = [*batch.inputs.values(), *batch.lengths.values()]
    found += [batch.present, batch.label, batch.index]
    return found if batch.weight is None else [*found, batch.weight]
