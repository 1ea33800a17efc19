"""Whether the files of a prepared dataset are there, finished and whole."""

from pathlib import Path

from mmtool.errors import StoreError
from mmtool.store.files import ShardSource, sha256_of
from mmtool.store.schema import (
    MANIFEST_NAME,
    PARTIAL_SUFFIX,
    REBUILD,
    FileInfo,
    Manifest,
    parse_manifest,
)
from mmtool.text import human_bytes


def read_manifest(path: Path) -> Manifest:
    """Read the manifest of a store folder, or say why the folder is not a usable store."""
    file = path / MANIFEST_NAME
    partial = path.with_name(path.name + PARTIAL_SUFFIX)
    if path.name.endswith(PARTIAL_SUFFIX) or (not file.is_file() and partial.is_dir()):
        raise StoreError(
            "this dataset is not finished",
            where=str(path if path.name.endswith(PARTIAL_SUFFIX) else partial),
            why="prepare was interrupted or is still running",
            fix="run the same `mmtool prepare` command again; finished shards are kept",
        )
    if not file.is_file():
        raise StoreError(
            "there is no prepared dataset here",
            where=str(path),
            why=f"{MANIFEST_NAME} is missing" if path.is_dir() else "the folder does not exist",
            fix="name a folder written by `mmtool prepare`, or run: mmtool prepare NAME",
        )
    return parse_manifest(file.read_text(encoding="utf-8", errors="replace"), str(file))


def check_files(source: ShardSource, manifest: Manifest, *, full: bool) -> None:
    """Refuse a dataset of which a file is missing, cut short or (when `full`) changed."""
    for file in manifest.files():
        _check_file(source, file, full=full)


def _check_file(source: ShardSource, file: FileInfo, *, full: bool) -> None:
    """Refuse a file that is missing, of another size or (when `full`) of other content."""
    path = source.path(file.name)
    if not path.is_file():
        raise StoreError("a file of this dataset is missing", where=str(path), fix=REBUILD)
    size = path.stat().st_size
    if size != file.bytes:
        raise StoreError(
            f"a file of this dataset has {human_bytes(size)} instead of {human_bytes(file.bytes)}",
            where=str(path),
            why=f"{size} bytes found, {file.bytes} expected: it was cut short or overwritten",
            fix=REBUILD,
        )
    if full and sha256_of(path) != file.sha256:
        raise StoreError(
            "a file of this dataset has changed since it was written",
            where=str(path),
            why="its SHA-256 differs from the one in the manifest",
            fix=REBUILD,
        )
