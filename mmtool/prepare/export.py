"""Write a store anew in a format that other tools stream: MDS, or tar files for WebDataset.

Both hold one record per clip: `id`, `label`, `class`, `split` (by protocol), `group`, `present` (by
modality), `lengths` (time steps by ragged column) and one array per column; absent modalities are
zeros, as in the store. Where clips have any number of classes, `label` and `class` are lists; where
they have numbers beside their labels, `value` is the number or null. `dataset.json` beside them has
the facts of the manifest.

`webdataset` needs no package: `000000012.json` and `000000012.audio.npy` and so on lie together in
`shard-000003.tar`, and the same store gives the same bytes. `mds` is written by MosaicML's format
writer as the package streaming-community carries it on (`pip install "mmtool[mds]"`); its arrays
cannot be empty, so a ragged sample of no steps has one step of zeros there and the length 0.
"""

import importlib
import io
import shutil
import tarfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np

from mmtool.errors import EnvironmentLacks, RequestError
from mmtool.store.columns import AnyArray
from mmtool.store.files import sync_folder, write_whole
from mmtool.store.reader import Store, open_store
from mmtool.store.schema import PARTIAL_SUFFIX, SPLITS, ColumnInfo, canonical_json

ExportFormat: TypeAlias = Literal["mds", "webdataset"]
ExportProgress: TypeAlias = Callable[[int, int], None]
"""Called with the records written and their total."""

DEFAULT_SHARD_BYTES = 128 << 20
FACTS_NAME = "dataset.json"
_ROWS_AT_ONCE = 16
_MOST_SHARD_BYTES = (1 << 32) - 1
"""MDS counts the bytes of a shard in 32 bits."""
_COLUMN_FACTS = ("id", "label", "class", "split", "group", "present", "lengths", "value")
_MDS_TYPES = {
    "id": "str", "label": "int", "class": "str", "split": "json", "group": "str",
    "present": "json", "lengths": "json",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class ExportResult:
    """What was written."""

    path: Path
    records: int
    shards: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Record:
    """One clip: its number, facts and arrays by column."""

    row: int
    facts: Mapping[str, Any]
    arrays: Mapping[str, AnyArray]


class RecordWriter(Protocol):
    """Takes records one after the other."""

    def write(self, record: Record) -> None:
        """Append a record."""


def export_store(
    store_path: Path | str,
    out: Path,
    to: ExportFormat,
    *,
    shard_bytes: int = DEFAULT_SHARD_BYTES,
    progress: ExportProgress | None = None,
) -> ExportResult:
    """Write every clip of a store to a new folder, which appears when it is complete.

    An export that was interrupted starts over; a folder that holds anything is left alone.
    """
    if not 1 <= shard_bytes <= _MOST_SHARD_BYTES:
        raise RequestError(
            f"{shard_bytes} is no size for a shard",
            why=f"it is a number of bytes up to {_MOST_SHARD_BYTES}",
            fix="take 134217728, which is 128 MiB",
        )
    _refuse_occupied(out)
    partial = out.with_name(out.name + PARTIAL_SUFFIX)
    shutil.rmtree(partial, ignore_errors=True)
    with ExitStack() as stack:
        store = stack.enter_context(open_store(store_path))
        partial.parent.mkdir(parents=True, exist_ok=True)
        writer = stack.enter_context(_open_writer(to, partial, store, shard_bytes))
        total = store.index.num_rows
        for record in records(store):
            writer.write(record)
            if progress is not None:
                progress(record.row + 1, total)
        facts = _facts(store)
    write_whole(partial / FACTS_NAME, (canonical_json(facts) + "\n").encode())
    files = [path for path in partial.rglob("*") if path.is_file()]
    num_shards = sum(path.suffix in (".tar", ".mds") for path in files)
    result = ExportResult(out, total, num_shards, sum(path.stat().st_size for path in files))
    if out.exists():
        out.rmdir()
    partial.replace(out)
    sync_folder(out.parent)
    return result


def records(store: Store) -> Iterator[Record]:
    """Give the clips of a store in their order."""
    index = store.index
    codes = {protocol: index.split_codes(protocol) for protocol in index.protocols}
    for first in range(0, index.num_rows, _ROWS_AT_ONCE):
        rows = np.arange(first, min(first + _ROWS_AT_ONCE, index.num_rows))
        gathered = {name: store.gather(name, rows) for name in store.columns}
        for place, (row, name) in enumerate(zip(rows.tolist(), index.ids(rows), strict=True)):
            lengths = {c: int(n[place]) for c, (_, n) in gathered.items() if n is not None}
            arrays = {
                c: values[place] if n is None else values[place][: int(n[place])]
                for c, (values, n) in gathered.items()
            }
            held = index.label_sets(rows[place : place + 1])[0]
            names = [store.classes[label] for label in held]
            present = zip(store.modalities, index.present[row].tolist(), strict=True)
            facts = {
                "id": name,
                "label": held if index.is_multi_label else held[0],
                "class": names if index.is_multi_label else names[0],
                "split": {p: SPLITS[c[row]] if c[row] >= 0 else None for p, c in codes.items()},
                "group": index.group_names[index.group[row]],
                "present": dict(present),
                "lengths": lengths,
            }
            if index.value is not None:
                value = float(index.value[row])
                facts["value"] = None if np.isnan(value) else value
            yield Record(row, facts, arrays)


class TarWriter:
    """Tar files in which the members of a record follow one another; a context manager."""

    def __init__(self, folder: Path, shard_bytes: int) -> None:
        self._folder = folder
        self._shard_bytes = shard_bytes
        self._tar: tarfile.TarFile | None = None
        self._number = 0

    def __enter__(self) -> "TarWriter":
        self._folder.mkdir(parents=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._tar is not None:
            self._tar.close()

    def write(self, record: Record) -> None:
        """Append a record, to a new file when it no longer fits."""
        members = {"json": canonical_json(record.facts).encode()}
        for column, array in record.arrays.items():
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, np.ascontiguousarray(array), allow_pickle=False)
            members[f"{column}.npy"] = buffer.getvalue()
        # A member takes its size in blocks and a block for its name; a file ends with two more.
        block = tarfile.BLOCKSIZE
        size = sum(block + -(-len(data) // block) * block for data in members.values())
        tar = self._file_with_room(size + 2 * block)
        for suffix, data in members.items():
            # What WebDataset calls a key ends at the first dot, which an id may contain.
            info = tarfile.TarInfo(f"{record.row:09d}.{suffix}")
            info.size, info.mode = len(data), 0o644
            tar.addfile(info, io.BytesIO(data))

    def _file_with_room(self, num_bytes: int) -> tarfile.TarFile:
        tar = self._tar
        if tar is not None and tar.offset + num_bytes > self._shard_bytes:
            tar.close()
            tar = None
        if tar is None:
            path = self._folder / f"shard-{self._number:06d}.tar"
            tar = self._tar = tarfile.open(path, "w", format=tarfile.PAX_FORMAT)  # noqa: SIM115
            self._number += 1
        return tar


class MdsWriter:
    """Records in MDS, through the package that defines it; a context manager."""

    def __init__(self, folder: Path, shard_bytes: int, store: Store) -> None:
        columns = store.columns
        try:
            streaming = importlib.import_module("streaming")
        except ImportError as error:
            raise EnvironmentLacks(
                "writing MDS needs a package that is not installed",
                why=str(error),
                fix='pip install "mmtool[mds]", or export with --to webdataset',
            ) from error
        self._columns = columns
        self._writer: AbstractContextManager[Any] = streaming.MDSWriter(
            columns={**_fact_types(store), **{name: _mds_type(c) for name, c in columns.items()}},
            out=str(folder),
            hashes=["sha256"],
            size_limit=shard_bytes,
        )
        self._opened: Any = None

    def __enter__(self) -> "MdsWriter":
        self._opened = self._writer.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._writer.__exit__(kind, error, trace)

    def write(self, record: Record) -> None:
        """Append a record."""
        arrays = {name: self._fit(name, array) for name, array in record.arrays.items()}
        self._opened.write({**record.facts, **arrays})

    def _fit(self, name: str, array: AnyArray) -> AnyArray:
        if array.size == 0 or array.ndim == 0:
            shape = (1, *self._columns[name].shape)
            return np.zeros(shape, array.dtype) if array.size == 0 else array.reshape(1)
        return np.ascontiguousarray(array)


def _mds_type(column: ColumnInfo) -> str:
    if column.ragged:
        return f"ndarray:{column.dtype}"
    return f"ndarray:{column.dtype}:{','.join(map(str, column.shape or (1,)))}"


def _fact_types(store: Store) -> dict[str, str]:
    several = {"label": "json", "class": "json"} if store.index.is_multi_label else {}
    numbers = {} if store.index.value is None else {"value": "json"}
    return {**_MDS_TYPES, **several, **numbers}


def _open_writer(
    to: ExportFormat, folder: Path, store: Store, shard_bytes: int
) -> AbstractContextManager[RecordWriter]:
    taken = sorted(set(store.columns) & set(_COLUMN_FACTS))
    if taken:
        raise RequestError(
            f"a column named {taken[0]!r} cannot be exported",
            where=store.location,
            why="records have a field of that name already",
            fix="rename the column in the preparer and prepare the dataset again",
        )
    if to == "webdataset":
        return TarWriter(folder, shard_bytes)
    return MdsWriter(folder, shard_bytes, store)


def _facts(store: Store) -> dict[str, Any]:
    manifest = store.manifest
    kept = ("name", "title", "licence", "source", "citation", "hash", "default_protocol")
    return {
        **{name: getattr(manifest, name) for name in kept},
        "classes": list(manifest.classes),
        "modalities": list(manifest.modalities),
        "columns": {name: asdict(column) for name, column in manifest.columns.items()},
        "protocols": {name: dict(counts) for name, counts in manifest.protocols.items()},
    }


def _refuse_occupied(out: Path) -> None:
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    raise RequestError(
        "the destination of the export exists",
        where=str(out),
        why="an export replaces nothing",
        fix=f"choose another folder, or remove it: rm -r {out}",
    )
