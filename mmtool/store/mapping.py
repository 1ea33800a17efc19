"""Shard files of one column as arrays, mapped when first touched and dropped when too many."""

import mmap
import resource
import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mmtool.errors import StoreError, StoreLost
from mmtool.store.files import FetchingSource, ShardSource

AnyArray: TypeAlias = NDArray[Any]

_MOST_FILES = 32_768
"""Linux allows 65,530 mappings in a process by default."""
_FILES_FOR_OTHERS = 128
_NUM_ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class Piece:
    """One file: its name, type and shape."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Mapped:
    array: AnyArray
    memory: mmap.mmap | None


class ShardMaps:
    """The files of one column by shard; a file is mapped when it is first asked for."""

    def __init__(self, source: ShardSource, *, most_open: int) -> None:
        self._source = source
        self.most_open = max(1, most_open)
        self._open: OrderedDict[int, tuple[str, _Mapped]] = OrderedDict()
        self._lock = threading.Lock()

    def array(self, shard: int, piece: Piece) -> AnyArray:
        """Give the values of a shard's file; they stay valid while the caller holds them."""
        held = self._open.get(shard)
        if held is not None and len(self._open) < self.most_open:
            self._refuse_cut(shard, held)
            return held[1].array
        with self._lock:
            held = self._open.get(shard)
            if held is None:
                self._make_room()
                try:
                    held = self._open[shard] = (piece.name, _map(self._source, piece))
                except (OSError, ValueError) as err:
                    raise self.lost(shard, piece.name, str(err)) from err
            self._open.move_to_end(shard)
            self._refuse_cut(shard, held)
            return held[1].array

    def _refuse_cut(self, shard: int, held: tuple[str, _Mapped]) -> None:
        """Refuse a file that has become shorter: reading past its end would kill the process.

        Asking for its size takes half a microsecond per file and batch.
        """
        memory = held[1].memory
        if memory is not None and memory.size() < len(memory):
            why = f"it has {memory.size()} bytes, it had {len(memory)} when it was opened"
            raise self.lost(shard, held[0], why)

    def lost(self, shard: int, name: str, why: str) -> StoreLost:
        """Give the error of a file that cannot be read any more."""
        return StoreLost(
            f"file {name} of the dataset was cut short or is gone",
            shard=shard,
            where=str(self._source.path(name)),
            why=why,
            fix="prepare the dataset again: mmtool prepare NAME --overwrite",
        )

    def will_need(self, shard: int, starts: NDArray[np.int64], stops: NDArray[np.int64]) -> None:
        """Ask the system to read byte ranges of a mapped shard in the background."""
        held = self._open.get(shard)
        if held is None or held[1].memory is None:
            return
        memory = held[1].memory
        for start, size in zip(*page_ranges(starts, stops, limit=len(memory)), strict=True):
            memory.madvise(mmap.MADV_WILLNEED, start, size)

    def _make_room(self) -> None:
        if isinstance(self._source, FetchingSource):
            # A mapping of a file that the cache has dropped would keep its room on the disk.
            for shard, (name, _) in list(self._open.items()):
                if not self._source.is_kept(name):
                    self._open.pop(shard, None)
        while len(self._open) >= self.most_open:
            self._open.popitem(last=False)


def page_ranges(
    starts: NDArray[np.int64], stops: NDArray[np.int64], *, limit: int
) -> tuple[list[int], list[int]]:
    """Give start and size of the page-aligned byte ranges that cover these, merged if they meet."""
    order = np.argsort(starts, kind="stable")
    first = starts[order] // mmap.PAGESIZE * mmap.PAGESIZE
    last = np.maximum.accumulate(np.minimum(stops[order], limit))
    is_new = np.ones(len(first), dtype=np.bool_)
    is_new[1:] = first[1:] > last[:-1]
    at = np.flatnonzero(is_new)
    ends = last[np.append(at[1:], len(first)) - 1] if len(at) else last
    sizes = ends - first[at]
    return first[at][sizes > 0].tolist(), sizes[sizes > 0].tolist()


def files_per_column(num_columns: int, num_shards: int) -> int:
    """Give how many files a column may keep open, after asking for as many as it would like.

    A mapping holds a file descriptor, and shells often allow no more than 1024.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(num_columns * num_shards, _MOST_FILES) + 2 * _FILES_FOR_OTHERS
    infinity = resource.RLIM_INFINITY
    if soft != infinity and soft < wanted:
        reachable = wanted if hard == infinity else min(hard, wanted)
        if reachable > soft:
            resource.setrlimit(resource.RLIMIT_NOFILE, (reachable, hard))
            soft = reachable
    room = _MOST_FILES if soft == infinity else min(soft, _MOST_FILES)
    return max(1, (room - min(_FILES_FOR_OTHERS, room // 2)) // max(1, num_columns))


def available_bytes() -> int:
    """Give the memory that files could fill without pushing anything else out."""
    import psutil

    return int(psutil.virtual_memory().available)


def _map(source: ShardSource, piece: Piece) -> _Mapped:
    if 0 in piece.shape:
        return _Mapped(np.zeros(piece.shape, dtype=piece.dtype), None)
    for _ in range(_NUM_ATTEMPTS):
        path = source.path(piece.name)
        try:
            with path.open("rb") as file:
                memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except FileNotFoundError:
            # Another process may have dropped it from the cache since the path was given.
            if isinstance(source, FetchingSource):
                continue
            raise
        flat = np.frombuffer(memory, dtype=piece.dtype, count=int(np.prod(piece.shape)))
        return _Mapped(flat.reshape(piece.shape), memory)
    raise StoreError(
        f"{piece.name} was dropped from the cache again and again before it could be read",
        why="several processes share a cache that is too small for what they need at once",
        fix="give the cache more room: export MMTOOL_CACHE_GB=100",
    )
