"""What a store's manifest says, and its form as JSON.

A store is a folder: `manifest.json`, `index.npz`, `report.json` and, per shard of a fixed range of
clips in id order, one `shard-00000.<column>.bin` per column (and `.offsets.bin` for ragged ones).
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from mmtool.errors import StoreError
from mmtool.types import InputKind

FORMAT = "mmtool-store"
VERSION = "2.0"
"""Newest version that is read; 2 came with rows of several classes."""
_VERSION_ONE_LABEL = "1.0"
"""Written where every row has one class, so that such a store stays what it was."""
MANIFEST_NAME = "manifest.json"
INDEX_NAME = "index.npz"
REPORT_NAME = "report.json"
PARTIAL_SUFFIX = ".partial"
SPLITS = ("train", "val", "test")

REBUILD = "prepare the dataset again: mmtool prepare NAME --overwrite"
"""How every damage to a store is mended."""


@dataclass(frozen=True, slots=True)
class FileInfo:
    """One file of the store with what proves it is whole."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class ShardInfo:
    """A range of rows and the files that hold it; the unit of resuming and of fetching."""

    rows: int
    files: Mapping[str, FileInfo]
    """File by column; the offsets of a ragged column are under `<column>.offsets`."""


@dataclass(frozen=True, slots=True)
class ColumnInfo:
    """What one column holds."""

    modality: str
    kind: InputKind
    dtype: str
    shape: tuple[int, ...]
    """Of one sample; of one time step when ragged."""
    ragged: bool
    max_length: int | None = None
    """Time steps of the longest sample of a ragged column."""
    rate_hz: int | None = None
    transform: Mapping[str, Any] = field(default_factory=dict)
    """How the values were derived from the raw source."""
    stats: Mapping[str, Mapping[str, Sequence[float]]] = field(default_factory=dict)
    """Protocol -> {mean, std} of its train split: one number for waves (in -1..1) and spectrograms,
    one per channel for frames (in 0..1) and series, none for tokens. A constant has std 1."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """Everything about a store except its arrays."""

    name: str
    title: str
    licence: str
    source: str
    citation: str
    hash: str
    classes: tuple[str, ...]
    modalities: tuple[str, ...]
    columns: Mapping[str, ColumnInfo]
    protocols: Mapping[str, Mapping[str, int]]
    """Protocol -> split -> number of clips."""
    default_protocol: str
    shards: tuple[ShardInfo, ...]
    index: FileInfo
    provenance: Mapping[str, Any]
    is_multi_label: bool = False
    """Whether a row holds any number of classes rather than one."""

    @property
    def num_rows(self) -> int:
        """Number of clips in the store."""
        return sum(shard.rows for shard in self.shards)

    def files(self) -> list[FileInfo]:
        """Give every file that the manifest vouches for."""
        return [self.index, *(f for shard in self.shards for f in shard.files.values())]


def canonical_json(value: object) -> str:
    """Give the one spelling of a value that is hashed and compared."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def digest(value: object) -> str:
    """Give the SHA-256 of a value's canonical JSON."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def content_hash(
    *,
    columns: Mapping[str, ColumnInfo],
    shards: Sequence[ShardInfo],
    index: FileInfo,
    classes: Sequence[str],
    preparer: str,
    options: Mapping[str, Any],
    is_multi_label: bool = False,
) -> str:
    """Give the identity of a store: equal for equal inputs and options, on any machine and day."""
    return digest(
        {
            "format": [FORMAT, version_of(is_multi_label=is_multi_label).partition(".")[0]],
            "columns": {name: asdict(column) for name, column in columns.items()},
            "data": [
                {"rows": s.rows, "sha256": {name: f.sha256 for name, f in s.files.items()}}
                for s in shards
            ],
            "index": index.sha256,
            "classes": list(classes),
            "preparer": preparer,
            "options": dict(options),
        }
    )


def version_of(*, is_multi_label: bool) -> str:
    """Give the version a store is written with: the oldest one that can read it."""
    return VERSION if is_multi_label else _VERSION_ONE_LABEL


def manifest_text(manifest: Manifest) -> str:
    """Give the manifest as the JSON that is written."""
    version = version_of(is_multi_label=manifest.is_multi_label)
    value = {"format": FORMAT, "version": version, **asdict(manifest)}
    if not manifest.is_multi_label:
        del value["is_multi_label"]
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def parse_manifest(text: str, where: str) -> Manifest:
    """Read a manifest, refusing other formats, newer versions and damage with a reason."""
    try:
        value = json.loads(text)
    except ValueError as error:
        raise StoreError(
            "the manifest of this dataset is damaged", where=where, why=str(error), fix=REBUILD
        ) from error
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        raise StoreError(
            "this folder is not a prepared dataset",
            where=where,
            why=f"its manifest does not say format = {FORMAT!r}",
            fix="name a folder written by `mmtool prepare`",
        )
    _check_version(str(value.get("version", "")), where)
    try:
        return _from_json(value)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StoreError(
            "the manifest of this dataset lacks something",
            where=where,
            why=f"{type(error).__name__}: {error}",
            fix=REBUILD,
        ) from error


def _check_version(version: str, where: str) -> None:
    known = int(VERSION.partition(".")[0])
    major = version.partition(".")[0]
    if not major.isdigit():
        raise StoreError(
            f"the manifest of this dataset has no version ({version!r})", where=where, fix=REBUILD
        )
    if int(major) > known:
        raise StoreError(
            f"this dataset has store version {version}, newer than this mmtool reads ({VERSION})",
            where=where,
            fix="upgrade: pip install --upgrade mmtool",
        )


def _from_json(value: Mapping[str, Any]) -> Manifest:
    names = ("name", "title", "licence", "source", "citation", "hash", "default_protocol")
    return Manifest(
        **{name: str(value[name]) for name in names},
        classes=tuple(value["classes"]),
        modalities=tuple(value["modalities"]),
        columns={
            name: ColumnInfo(**{**column, "shape": tuple(column["shape"])})
            for name, column in value["columns"].items()
        },
        protocols={
            name: {split: int(count) for split, count in counts.items()}
            for name, counts in value["protocols"].items()
        },
        shards=tuple(
            ShardInfo(
                rows=int(shard["rows"]),
                files={name: FileInfo(**file) for name, file in shard["files"].items()},
            )
            for shard in value["shards"]
        ),
        index=FileInfo(**value["index"]),
        provenance=dict(value["provenance"]),
        is_multi_label=bool(value.get("is_multi_label", False)),
    )
