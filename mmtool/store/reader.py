"""Open a prepared dataset, refuse a damaged one, and read rows from it."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mmtool.errors import StoreError, StoreLost, UnknownName
from mmtool.store.checks import check_files, read_manifest
from mmtool.store.columns import AnyArray, FixedColumn, RaggedColumn, shard_starts
from mmtool.store.files import FetchingSource, LocalShards, ShardSource
from mmtool.store.index import Index, IntArray, read_index
from mmtool.store.mapping import available_bytes, files_per_column
from mmtool.store.remote import connect, is_url
from mmtool.store.schema import REBUILD, ColumnInfo, Manifest
from mmtool.text import suggestion

Verify: TypeAlias = Literal["size", "full", "auto"]
_FULL_BELOW_BYTES = 256 << 20
_MOST_NAMED = 5


class Store:
    """A prepared dataset: facts in memory, arrays memory-mapped when first asked for.

    `path` is its folder (in the cache when it is remote), `location` the address it was opened by.
    """

    def __init__(
        self,
        path: Path,
        manifest: Manifest,
        index: Index,
        source: ShardSource,
        *,
        location: str | None = None,
    ) -> None:
        self.path = path
        self.location = location or str(path)
        self.manifest = manifest
        self.index = index
        self._source = source
        self._columns = MappingProxyType(dict(manifest.columns))
        self._open: dict[str, FixedColumn | RaggedColumn] = {}
        self._closed = False
        self._has_been_read: NDArray[np.bool_] | None = None
        self._fits_memory = True
        self.shard_starts = shard_starts(manifest.shards)

    @property
    def is_remote(self) -> bool:
        """Whether shards are fetched when needed."""
        return isinstance(self._source, FetchingSource)

    @property
    def cache_bytes(self) -> int | None:
        """Size that the cache of a remote store keeps to."""
        return self._source.limit_bytes if isinstance(self._source, FetchingSource) else None

    @property
    def hash(self) -> str:
        """Identity of the content."""
        return self.manifest.hash

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in label order."""
        return self.manifest.classes

    @property
    def modalities(self) -> tuple[str, ...]:
        """Modalities in sorted order: the columns of `index.present`."""
        return self.manifest.modalities

    @property
    def columns(self) -> Mapping[str, ColumnInfo]:
        """Column facts by name."""
        return self._columns

    @property
    def default_columns(self) -> Mapping[str, str]:
        """Modality -> the column that stands for it unless a recipe says otherwise."""
        found: dict[str, str] = {}
        for name, column in self.manifest.columns.items():
            found.setdefault(column.modality, name)
        return MappingProxyType(found)

    def gather(
        self, column: str, rows: IntArray, out: AnyArray | None = None
    ) -> tuple[AnyArray, IntArray | None]:
        """Copy rows of a column in the order given, into `out` where one is given.

        Ragged columns come zero-padded as [batch, step, ...] with their lengths, cut to the width
        of `out`; without `out` they are as wide as the longest of these rows.
        """
        rows = np.asarray(rows, dtype=np.int64)
        opened = self._column(column)
        num_rows = self.manifest.num_rows
        if rows.size and (int(rows.min()) < 0 or int(rows.max()) >= num_rows):
            raise IndexError(f"rows of {self.location} are 0..{num_rows - 1}")
        try:
            if isinstance(opened, RaggedColumn):
                if rows.size == 0:
                    return _nothing(opened.info, out), np.zeros(0, dtype=np.int64)
                return opened.gather(rows, out)
            if rows.size == 0:
                return _nothing(opened.info, out), None
            return opened.gather(rows, out), None
        except StoreLost as err:
            raise self._with_samples(err, opened, rows) from err

    def _with_samples(
        self, error: StoreLost, column: FixedColumn | RaggedColumn, rows: IntArray
    ) -> StoreLost:
        """Say which of the wanted samples a lost file held."""
        shard_of, _ = column.locate(rows)
        ids = self.index.ids(rows[shard_of == error.shard][:_MOST_NAMED])
        error.why += f"; it holds {column.name} of {', '.join(ids)}"
        return error

    def will_need(self, columns: Iterable[str], rows: IntArray) -> None:
        """Announce rows that are about to be gathered: their bytes are read in the background.

        A remote store fetches their shards in threads, in the order of the rows. A local one asks
        the system to read their pages, which doubled the speed from a cold disk; on pages that are
        in memory it would cost a third of the gather, so a row is announced once, and again only
        where the columns do not fit into memory.
        """
        rows = np.asarray(rows, dtype=np.int64)
        opened = [self._column(name) for name in columns]
        if not self.is_remote:
            if self._has_been_read is None:
                self._fits_memory = sum(c.num_bytes for c in opened) < available_bytes()
                self._has_been_read = np.zeros(self.manifest.num_rows, dtype=np.bool_)
            if self._fits_memory:
                rows = rows[~self._has_been_read[rows]]
                self._has_been_read[rows] = True
        if rows.size:
            for column in opened:
                try:
                    column.will_need(rows)
                except StoreLost as err:
                    raise self._with_samples(err, column, rows) from err

    def lengths(self, column: str, rows: IntArray | None = None) -> IntArray:
        """Give the length in time steps of some rows, or of all, of a ragged column."""
        opened = self._column(column)
        if isinstance(opened, FixedColumn):
            raise StoreError(
                f"column {column!r} has no lengths",
                where=self.location,
                why=f"every sample of it has the shape {list(opened.info.shape)}",
            )
        return opened.lengths if rows is None else opened.lengths_of(rows)

    def row_nbytes(self, column: str) -> int:
        """Give the bytes of one sample; of the longest one where lengths vary."""
        info = self._info(column)
        steps = info.max_length or 0 if info.ragged else 1
        return int(np.dtype(info.dtype).itemsize * np.prod(info.shape, dtype=np.int64)) * steps

    def nbytes(self) -> int:
        """Give the size of all arrays on disk."""
        return sum(file.bytes for file in self.manifest.files())

    def close(self) -> None:
        """Let go of the mapped files."""
        self._open.clear()
        self._closed = True
        if isinstance(self._source, FetchingSource):
            self._source.close()

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _info(self, column: str) -> ColumnInfo:
        known = self.manifest.columns
        if column not in known:
            raise UnknownName(
                f"this dataset has no column named {column!r}",
                where=self.location,
                why=f"it has {', '.join(known)}",
                fix=suggestion(column, known),
            )
        return known[column]

    def _column(self, name: str) -> FixedColumn | RaggedColumn:
        if self._closed:
            raise StoreError("this dataset was closed", where=self.location)
        if name not in self._open:
            info = self._info(name)
            kind = RaggedColumn if info.ragged else FixedColumn
            shards = self.manifest.shards
            self._open[name] = kind(
                name,
                info,
                shards,
                self._source,
                starts=self.shard_starts,
                most_open=files_per_column(len(self._columns), len(shards)),
            )
        return self._open[name]


def _nothing(info: ColumnInfo, out: AnyArray | None) -> AnyArray:
    if out is not None:
        return out
    steps = (0,) if info.ragged else ()
    return np.zeros((0, *steps, *info.shape), dtype=info.dtype)


def open_store(
    path: Path | str,
    *,
    verify: Verify = "auto",
    shards: ShardSource | None = None,
    cache: Path | None = None,
    cache_bytes: int | None = None,
    options: Mapping[str, Any] | None = None,
) -> Store:
    """Open a prepared dataset after checking that its files are whole.

    `verify` "size" compares sizes, "full" checksums too, and "auto" takes checksums where they are
    quick: below 256 MiB. A URL (`s3://bucket/path`) is fetched shard by shard into a cache (folder
    `cache` or `MMTOOL_CACHE`, at most `cache_bytes` or `MMTOOL_CACHE_GB`), always with checksums;
    `options` go to its fsspec file system.
    """
    if isinstance(path, str) and is_url(path):
        manifest, source = connect(path, cache=cache, cache_bytes=cache_bytes, options=options)
        if verify == "full":
            check_files(source, manifest, full=True)
        return _opened(source.cache.folder, manifest, source, location=path)
    folder = Path(path)
    manifest = read_manifest(folder)
    local = shards or LocalShards(folder)
    total = sum(file.bytes for file in manifest.files())
    full = verify == "full" or (verify == "auto" and total < _FULL_BELOW_BYTES)
    check_files(local, manifest, full=full)
    return _opened(folder, manifest, local, location=str(folder))


def _opened(path: Path, manifest: Manifest, source: ShardSource, *, location: str) -> Store:
    index = read_index(source.path(manifest.index.name), manifest.default_protocol)
    if index.num_rows != manifest.num_rows:
        raise StoreError(
            f"the index has {index.num_rows} rows, the shards {manifest.num_rows}",
            where=location,
            fix=REBUILD,
        )
    if index.is_multi_label != manifest.is_multi_label:
        raise StoreError(
            "the index and the manifest of this dataset differ in what a label is",
            where=location,
            fix=REBUILD,
        )
    return Store(path, manifest, index, source, location=location)
