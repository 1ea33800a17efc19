"""Rows of one column out of memory-mapped shards, into a buffer the caller reuses."""

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mmtool.store.files import ShardSource
from mmtool.store.index import IntArray
from mmtool.store.schema import ColumnInfo, ShardInfo

AnyArray: TypeAlias = NDArray[Any]

LARGE_ROW_BYTES = 2048
"""From this size on, one copy per row beats computing an index per element."""


def shard_starts(shards: tuple[ShardInfo, ...]) -> IntArray:
    """Give the first row of each shard, and the number of rows last."""
    starts = np.zeros(len(shards) + 1, dtype=np.int64)
    np.cumsum([shard.rows for shard in shards], out=starts[1:])
    return starts


def _map(source: ShardSource, name: str, dtype: str, shape: tuple[int, ...]) -> AnyArray:
    if 0 in shape:
        return np.zeros(shape, dtype=dtype)
    # A plain view of the mapping: np.memmap's subclass costs microseconds on every slice.
    return np.asarray(np.memmap(source.path(name), dtype=dtype, mode="r", shape=shape))


class FixedColumn:
    """Samples of one shape."""

    def __init__(
        self, name: str, info: ColumnInfo, shards: tuple[ShardInfo, ...], source: ShardSource
    ) -> None:
        self.info = info
        self._starts = shard_starts(shards)
        self._maps = [
            _map(source, shard.files[name].name, info.dtype, (shard.rows, *info.shape))
            for shard in shards
        ]
        self.row_bytes = int(np.dtype(info.dtype).itemsize * np.prod(info.shape, dtype=np.int64))

    def gather(self, rows: IntArray, out: AnyArray | None) -> AnyArray:
        """Copy rows into `out` (or a new array) in the order asked for."""
        if out is None:
            out = np.empty((rows.size, *self.info.shape), dtype=self.info.dtype)
        shard_of = np.searchsorted(self._starts, rows, side="right") - 1
        local = rows - self._starts[shard_of]
        touched = np.unique(shard_of)
        if touched.size == 1:
            # Any other mode makes numpy copy through a buffer; the rows were checked before.
            np.take(self._maps[touched[0]], local, axis=0, out=out, mode="clip")
        elif self.row_bytes >= LARGE_ROW_BYTES:
            pairs = zip(shard_of.tolist(), local.tolist(), strict=True)
            for position, (shard, row) in enumerate(pairs):
                out[position] = self._maps[shard][row]
        else:
            for shard in touched.tolist():
                at = np.flatnonzero(shard_of == shard)
                out[at] = self._maps[shard][local[at]]
        return out


class RaggedColumn:
    """Samples of varying length: flat values and, per shard, where each sample starts."""

    def __init__(
        self, name: str, info: ColumnInfo, shards: tuple[ShardInfo, ...], source: ShardSource
    ) -> None:
        self.info = info
        self._starts = shard_starts(shards)
        self._offsets = [
            np.array(_map(source, s.files[f"{name}.offsets"].name, "int64", (s.rows + 1,)))
            for s in shards
        ]
        self._maps = [
            _map(source, shard.files[name].name, info.dtype, (int(offsets[-1]), *info.shape))
            for shard, offsets in zip(shards, self._offsets, strict=True)
        ]
        per_shard = [np.diff(offsets) for offsets in self._offsets]
        self.lengths = np.concatenate([*per_shard, np.zeros(0, dtype=np.int64)])

    def gather(self, rows: IntArray, out: AnyArray | None) -> tuple[AnyArray, IntArray]:
        """Copy rows, zero-padded at the end and cut to the width of `out`, with their lengths."""
        lengths = self.lengths[rows]
        if out is None:
            width = int(lengths.max(initial=0))
            out = np.zeros((rows.size, width, *self.info.shape), dtype=self.info.dtype)
        else:
            out[...] = 0
        lengths = np.minimum(lengths, out.shape[1])
        shard_of = np.searchsorted(self._starts, rows, side="right") - 1
        local = rows - self._starts[shard_of]
        # One slice per sample: an index per element was slower at every length that was tried,
        # 1.4 times for samples of 100 bytes and 20 times for samples of 8 kB.
        triples = zip(shard_of.tolist(), local.tolist(), lengths.tolist(), strict=True)
        for position, (shard, row, length) in enumerate(triples):
            first = self._offsets[shard][row]
            out[position, :length] = self._maps[shard][first : first + length]
        return out, lengths
