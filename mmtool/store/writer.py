"""Write a store shard by shard so that a kill at any moment loses at most one shard.

The work lies in `<out>.partial/`: `store/` holds finished shard files, `work/` one small JSON per
finished shard. The JSON is written last, so a shard that has one is whole. Publishing is a rename.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from mmtool.errors import Bug, RequestError
from mmtool.store.columns import AnyArray
from mmtool.store.files import HashedFile, sync_folder, write_whole
from mmtool.store.schema import (
    INDEX_NAME,
    MANIFEST_NAME,
    PARTIAL_SUFFIX,
    REPORT_NAME,
    ColumnInfo,
    FileInfo,
    Manifest,
    ShardInfo,
    manifest_text,
)


@dataclass(frozen=True, slots=True)
class FinishedShard:
    """A shard on disk with what the preparer noted about it."""

    info: ShardInfo
    notes: Mapping[str, Any]


class ShardWriter:
    """Appends samples of one shard to its column files; use as a context manager.

    Leaving the block without `commit` drops everything that was written.
    """

    def __init__(self, folder: Path, number: int, columns: Mapping[str, ColumnInfo]) -> None:
        self._folder = folder
        self._number = number
        self._columns = columns
        self._rows = 0
        self._files: dict[str, HashedFile] = {}
        self._offsets: dict[str, list[int]] = {n: [0] for n, c in columns.items() if c.ragged}

    def __enter__(self) -> "ShardWriter":
        for name in self._columns:
            self._files[name] = HashedFile(self._folder / f"{shard_stem(self._number)}.{name}.bin")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for file in self._files.values():
            file.discard()

    def append(self, arrays: Mapping[str, AnyArray | None]) -> None:
        """Append one sample; a column given as None is absent and stored as zeros."""
        for name, column in self._columns.items():
            array = arrays[name]
            if array is None:
                array = np.zeros((0 if column.ragged else 1, *column.shape), dtype=column.dtype)
            else:
                self._check(name, column, array)
            self._files[name].write(np.ascontiguousarray(array).tobytes())
            if column.ragged:
                self._offsets[name].append(self._offsets[name][-1] + len(array))
        self._rows += 1

    def commit(self) -> ShardInfo:
        """Put the files in their places."""
        files = {name: file.commit() for name, file in self._files.items()}
        for name, offsets in self._offsets.items():
            path = self._folder / f"{shard_stem(self._number)}.{name}.offsets.bin"
            files[f"{name}.offsets"] = write_whole(path, np.asarray(offsets, np.int64).tobytes())
        return ShardInfo(self._rows, files)

    @staticmethod
    def _check(name: str, column: ColumnInfo, array: AnyArray) -> None:
        shape = array.shape[1:] if column.ragged else array.shape
        if array.dtype != np.dtype(column.dtype) or shape != tuple(column.shape):
            raise Bug(
                f"column {name!r} is {column.dtype} {list(column.shape)}, "
                f"but a sample is {array.dtype} {list(shape)}"
            )


def shard_stem(number: int) -> str:
    """Give the common start of a shard's file names."""
    return f"shard-{number:05d}"


class StoreWriter:
    """Keeps the unfinished store beside its destination and publishes it."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.partial = out.with_name(out.name + PARTIAL_SUFFIX)
        self._store = self.partial / "store"
        self._work = self.partial / "work"
        self._replaced = self.partial / "replaced"

    def begin(self, *, overwrite: bool = False) -> None:
        """Make room for the work, refusing to touch a finished store unless asked to."""
        if self._replaced.exists() and not self.out.exists():
            self._replaced.replace(self.out)
        refuse_occupied(self.out, overwrite=overwrite)
        shutil.rmtree(self._replaced, ignore_errors=True)
        self._store.mkdir(parents=True, exist_ok=True)
        self._work.mkdir(parents=True, exist_ok=True)
        for leftover in self.partial.glob("*/*.tmp"):
            leftover.unlink()

    def finished(self, number: int, key: str) -> FinishedShard | None:
        """Give a shard of an earlier attempt, if it was made from the same plan and is whole."""
        try:
            value = json.loads(self._sidecar(number).read_text(encoding="utf-8"))
            if value["key"] != key:
                return None
            files = {name: FileInfo(**file) for name, file in value["files"].items()}
            for file in files.values():
                if (self._store / file.name).stat().st_size != file.bytes:
                    return None
            return FinishedShard(ShardInfo(int(value["rows"]), files), value["notes"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def shard(self, number: int, columns: Mapping[str, ColumnInfo]) -> ShardWriter:
        """Start a shard; an earlier one of that number stops counting as finished."""
        self._sidecar(number).unlink(missing_ok=True)
        return ShardWriter(self._store, number, columns)

    def note(self, number: int, key: str, info: ShardInfo, notes: Mapping[str, Any]) -> None:
        """Record that a shard is finished, from which plan, and what was noted."""
        sync_folder(self._store)
        value = {"key": key, **asdict(info), "notes": notes}
        write_whole(self._sidecar(number), json.dumps(value).encode())

    def write_index(self, data: bytes) -> FileInfo:
        """Write the index."""
        return write_whole(self._store / INDEX_NAME, data)

    def publish(self, manifest: Manifest, report: Mapping[str, Any]) -> None:
        """Write report and manifest and move the store to its place in one rename."""
        text = json.dumps(report, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        write_whole(self._store / REPORT_NAME, text.encode())
        self._drop_strangers(manifest)
        write_whole(self._store / MANIFEST_NAME, manifest_text(manifest).encode())
        sync_folder(self._store)
        if self.out.exists():
            self.out.replace(self._replaced)
        try:
            self._store.replace(self.out)
        except OSError:
            if self._replaced.exists():
                self._replaced.replace(self.out)
            raise
        sync_folder(self.out.parent)
        shutil.rmtree(self.partial)

    def abandon(self) -> None:
        """Remove the unfinished work."""
        shutil.rmtree(self.partial, ignore_errors=True)

    def remove_if_empty(self) -> None:
        """Remove the unfinished work if no shard of it is finished."""
        if not any(self._work.glob("*.json")):
            self.abandon()

    def _sidecar(self, number: int) -> Path:
        return self._work / f"{shard_stem(number)}.json"

    def _drop_strangers(self, manifest: Manifest) -> None:
        # An earlier attempt with other options may have left shards that this one does not have.
        keep: Sequence[str] = [REPORT_NAME, *(file.name for file in manifest.files())]
        for path in self._store.iterdir():
            if path.name not in keep:
                path.unlink()


def refuse_occupied(out: Path, *, overwrite: bool) -> None:
    """Refuse a destination that holds a finished store (unless `overwrite`) or anything else."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not (out / MANIFEST_NAME).is_file():
        raise RequestError(
            "the destination exists and is not a prepared dataset",
            where=str(out),
            why="mmtool replaces only what it wrote itself",
            fix="choose another folder with --out",
        )
    if not overwrite:
        raise RequestError(
            "the dataset is already prepared",
            where=str(out),
            fix="use it as it is, add --overwrite to replace it, or choose another --out",
        )
