"""What a launcher shares with its ranks: the socket they meet at, and how far each of them is.

Marking a step is one store of eight bytes, so it costs a training step nothing.
"""

import mmap
import os
import struct

LISTEN_FD = "MMTOOL_LISTEN_FD"
"""Environment variable: file descriptor of the launcher's listening socket, inherited by rank 0."""

PULSE_FD = "MMTOOL_PULSE_FD"
"""Environment variable: file descriptor of the shared memory, inherited by every rank."""

_FORMAT = "<q"
_SIZE = struct.calcsize(_FORMAT)


class PulseBoard:
    """The launcher's side: the step each of its ranks has begun."""

    def __init__(self, world: int) -> None:
        self._world = world
        self.fd = os.memfd_create("mmtool-pulse")
        os.ftruncate(self.fd, world * _SIZE)
        self._memory = mmap.mmap(self.fd, world * _SIZE)

    def steps(self) -> tuple[int, ...]:
        """Give the step each rank is in (0-based), -1 before its first."""
        return tuple(n - 1 for (n,) in struct.iter_unpack(_FORMAT, self._memory[:]))

    def close(self) -> None:
        """Release the memory; a rank that still lives keeps its own view."""
        self._memory.close()
        os.close(self.fd)


class Pulse:
    """A rank's side; does nothing where no launcher watches."""

    def __init__(self, rank: int) -> None:
        inherited = os.environ.get(PULSE_FD)
        self._memory = None if inherited is None else mmap.mmap(int(inherited), 0)
        self._offset = rank * _SIZE

    def mark(self, step: int) -> None:
        """Note that the rank begins a step."""
        if self._memory is not None:
            struct.pack_into(_FORMAT, self._memory, self._offset, step + 1)
