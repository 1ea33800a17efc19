"""Rows of one column out of memory-mapped shards, into a buffer the caller reuses."""

from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mmtool.store.files import FetchingSource, ShardSource
from mmtool.store.index import IntArray
from mmtool.store.mapping import Piece, ShardMaps
from mmtool.store.schema import ColumnInfo, ShardInfo

AnyArray: TypeAlias = NDArray[Any]

LARGE_ROW_BYTES = 2048
"""From this size on, one copy per row beats computing an index per element."""


def shard_starts(shards: tuple[ShardInfo, ...]) -> IntArray:
    """Give the first row of each shard, and the number of rows last."""
    starts = np.zeros(len(shards) + 1, dtype=np.int64)
    np.cumsum([shard.rows for shard in shards], out=starts[1:])
    return starts


class _Column:
    """What both layouts share: where rows lie and which files hold them."""

    def __init__(
        self,
        name: str,
        info: ColumnInfo,
        shards: tuple[ShardInfo, ...],
        source: ShardSource,
        *,
        starts: IntArray,
        most_open: int,
    ) -> None:
        self.name = name
        self.info = info
        self._shards = shards
        self._source = source
        self._starts = starts
        self._maps = ShardMaps(source, most_open=most_open)

    @property
    def num_bytes(self) -> int:
        """Bytes of the column in all shards."""
        return sum(shard.files[self.name].bytes for shard in self._shards)

    def locate(self, rows: IntArray) -> tuple[IntArray, IntArray]:
        """Give the shard of each row and its place in it."""
        shard_of = np.searchsorted(self._starts, rows, side="right") - 1
        return shard_of, rows - self._starts[shard_of]

    def _groups(self, shard_of: IntArray) -> Iterator[tuple[list[int], range | list[int]]]:
        """Give shards with the positions of their rows, no more of them than may be open at once.

        Almost always that is all of them.
        """
        touched, most = np.unique(shard_of).tolist(), self._maps.most_open
        if len(touched) <= most:
            yield touched, range(shard_of.size)
            return
        for first in range(0, len(touched), most):
            some = touched[first : first + most]
            is_in = (shard_of >= some[0]) & (shard_of <= some[-1])
            yield some, np.flatnonzero(is_in).tolist()

    def fetch_ahead(self, shards: Iterable[int], source: FetchingSource) -> None:
        """Start fetching the files of these shards that are not here yet."""
        keys = (self.name, f"{self.name}.offsets") if self.info.ragged else (self.name,)
        source.will_need([self._shards[shard].files[key].name for shard in shards for key in keys])


class FixedColumn(_Column):
    """Samples of one shape."""

    @property
    def row_bytes(self) -> int:
        """Bytes of one sample."""
        return int(np.dtype(self.info.dtype).itemsize * np.prod(self.info.shape, dtype=np.int64))

    def gather(self, rows: IntArray, out: AnyArray | None) -> AnyArray:
        """Copy rows into `out` (or a new array) in the order asked for."""
        if out is None:
            out = np.empty((rows.size, *self.info.shape), dtype=self.info.dtype)
        shard_of, local = self.locate(rows)
        for shards, positions in self._groups(shard_of):
            arrays = {shard: self._array(shard) for shard in shards}
            if len(positions) == rows.size and len(shards) == 1:
                # Any other mode makes numpy copy through a buffer; the rows were checked before.
                np.take(arrays[shards[0]], local, axis=0, out=out, mode="clip")
            elif self.row_bytes >= LARGE_ROW_BYTES:
                numbers, places = shard_of.tolist(), local.tolist()
                for position in positions:
                    out[position] = arrays[numbers[position]][places[position]]
            else:
                for shard, array in arrays.items():
                    at = np.flatnonzero(shard_of == shard)
                    out[at] = array[local[at]]
        return out

    def will_need(self, rows: IntArray) -> None:
        """Ask for these rows to be read, or their shards to be fetched, in the background."""
        shard_of, local = self.locate(rows)
        touched = np.unique(shard_of).tolist()
        if isinstance(self._source, FetchingSource):
            self.fetch_ahead(touched, self._source)
            return
        for shard in touched:
            self._array(shard)
            starts = local[shard_of == shard] * self.row_bytes
            self._maps.will_need(shard, starts, starts + self.row_bytes)

    def _array(self, shard: int) -> AnyArray:
        info = self._shards[shard]
        name = info.files[self.name].name
        return self._maps.array(shard, Piece(name, self.info.dtype, (info.rows, *self.info.shape)))


class RaggedColumn(_Column):
    """Samples of varying length: flat values and, per shard, where each sample starts."""

    _lengths: IntArray | None = None

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._offsets: dict[int, IntArray] = {}

    @property
    def lengths(self) -> IntArray:
        """Time steps of every row."""
        if self._lengths is None:
            per_shard = [np.diff(self._offsets_of(s)) for s in range(len(self._shards))]
            self._lengths = np.concatenate([*per_shard, np.zeros(0, dtype=np.int64)])
        return self._lengths

    def lengths_of(self, rows: IntArray) -> IntArray:
        """Give the time steps of some rows; reads the offsets of their shards only."""
        if self._lengths is not None:
            return self._lengths[rows]
        shard_of, local = self.locate(rows)
        found = np.zeros(rows.size, dtype=np.int64)
        for shard in np.unique(shard_of).tolist():
            at = np.flatnonzero(shard_of == shard)
            offsets = self._offsets_of(shard)
            found[at] = offsets[local[at] + 1] - offsets[local[at]]
        return found

    def gather(self, rows: IntArray, out: AnyArray | None) -> tuple[AnyArray, IntArray]:
        """Copy rows, zero-padded at the end and cut to the width of `out`, with their lengths."""
        lengths = self.lengths_of(rows)
        if out is None:
            width = int(lengths.max(initial=0))
            out = np.zeros((rows.size, width, *self.info.shape), dtype=self.info.dtype)
        else:
            out[...] = 0
        lengths = np.minimum(lengths, out.shape[1])
        shard_of, local = self.locate(rows)
        numbers, places, sizes = shard_of.tolist(), local.tolist(), lengths.tolist()
        for shards, positions in self._groups(shard_of):
            opened = {shard: (self._offsets_of(shard), self._array(shard)) for shard in shards}
            # One slice per sample: an index per element was slower at every length tried, 1.4 times
            # for samples of 100 bytes and 20 times for samples of 8 kB.
            for position in positions:
                offsets, values = opened[numbers[position]]
                first = offsets[places[position]]
                out[position, : sizes[position]] = values[first : first + sizes[position]]
        return out, lengths

    def will_need(self, rows: IntArray) -> None:
        """Ask for these rows to be read, or their shards to be fetched, in the background."""
        shard_of, local = self.locate(rows)
        touched = np.unique(shard_of).tolist()
        if isinstance(self._source, FetchingSource):
            self.fetch_ahead(touched, self._source)
            return
        step = int(np.dtype(self.info.dtype).itemsize * np.prod(self.info.shape, dtype=np.int64))
        for shard in touched:
            self._array(shard)
            offsets, at = self._offsets_of(shard), local[shard_of == shard]
            self._maps.will_need(shard, offsets[at] * step, offsets[at + 1] * step)

    def _offsets_of(self, shard: int) -> IntArray:
        held = self._offsets.get(shard)
        if held is None:
            name = self._shards[shard].files[f"{self.name}.offsets"].name
            try:
                held = np.fromfile(self._source.path(name), dtype=np.int64)
            except OSError as err:
                raise self._maps.lost(shard, name, str(err)) from err
            if held.size != self._shards[shard].rows + 1:
                why = f"it has {held.size} numbers instead of {self._shards[shard].rows + 1}"
                raise self._maps.lost(shard, name, why)
            self._offsets[shard] = held
        return held

    def _array(self, shard: int) -> AnyArray:
        steps = int(self._offsets_of(shard)[-1])
        name = self._shards[shard].files[self.name].name
        return self._maps.array(shard, Piece(name, self.info.dtype, (steps, *self.info.shape)))
