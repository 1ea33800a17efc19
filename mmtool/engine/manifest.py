"""Folders that are whole or absent: a temporary name, a manifest with checksums, a rename.

No format of weights notices a flipped bit, so the manifest carries the SHA-256 of every file.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from mmtool.errors import NotWritable
from mmtool.text import human_bytes

SCHEMA = "mmtool-checkpoint/1"
MANIFEST = "manifest.json"
_PARTIAL, _REPLACED = ".partial", ".replaced"
_SPARE = 1.02
_SPARE_BYTES = 1 << 16


def begin(folder: Path, name: str) -> Path:
    """Give an empty temporary folder for what will be called `name`."""
    temporary = folder / f".{name}{_PARTIAL}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    return temporary


def seal(temporary: Path, facts: Mapping[str, Any]) -> Path:
    """Write the manifest of what the temporary folder holds and bring all of it to the disk."""
    files = sorted(path for path in temporary.rglob("*") if path.is_file())
    listed = {
        path.relative_to(temporary).as_posix(): {"bytes": _size(path), "sha256": _sha256(path)}
        for path in files
    }
    manifest = {"schema": SCHEMA, **facts, "files": listed}
    (temporary / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    for path in (*files, temporary / MANIFEST):
        _flush(path)
    for folder in {path.parent for path in files} | {temporary}:
        _flush(folder)
    return temporary


def publish(temporary: Path) -> Path:
    """Give a sealed folder its name; one of that name is replaced."""
    folder = temporary.parent
    final = folder / temporary.name.removeprefix(".").removesuffix(_PARTIAL)
    replaced = folder / f".{final.name}{_REPLACED}"
    shutil.rmtree(replaced, ignore_errors=True)
    if final.exists():  # the same step of an earlier attempt
        final.rename(replaced)
    temporary.rename(final)
    _flush(folder)
    shutil.rmtree(replaced, ignore_errors=True)
    return final


def discard(temporary: Path) -> None:
    """Drop an unfinished folder."""
    shutil.rmtree(temporary, ignore_errors=True)


def need_room(folder: Path, num_bytes: int) -> None:
    """Refuse to begin what the disk has no room for."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = int(num_bytes * _SPARE) + _SPARE_BYTES
    free = shutil.disk_usage(folder).free
    if free < wanted:
        raise NotWritable(
            f"a checkpoint takes {human_bytes(wanted)}, the disk has {human_bytes(free)} free",
            where=str(folder),
            why="earlier checkpoints are untouched",
            fix="free some space, then: mmtool train --resume RUN",
        )


def newest_first(folder: Path, kind: str) -> list[Path]:
    """Give the checkpoints of a kind by their steps, the last one first."""
    found = [p for p in folder.glob(f"{kind}[0-9]*") if p.name.removeprefix(kind).isdecimal()]
    return sorted(found, key=lambda path: int(path.name.removeprefix(kind)), reverse=True)


def read_manifest(path: Path) -> dict[str, Any]:
    """Give what the manifest says; raises OSError or ValueError."""
    manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
    if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), dict):
        raise ValueError("it lists no files")  # noqa: TRY004 - as other unreadable text
    return manifest


def verify(path: Path) -> str | None:
    """Give what is wrong with a checkpoint, or None."""
    try:
        manifest = read_manifest(path)
    except (OSError, ValueError) as err:
        return f"{path.name}/{MANIFEST} is unreadable ({err})"
    if manifest.get("schema") != SCHEMA:
        return f"{path.name} has schema {manifest.get('schema')!r}, this mmtool reads {SCHEMA!r}"
    for name, wanted in manifest["files"].items():
        item = path / name
        if not item.is_file():
            return f"{path.name}/{name} is missing"
        if _size(item) != wanted["bytes"]:
            return f"{path.name}/{name} has {_size(item)} bytes instead of {wanted['bytes']}"
        if _sha256(item) != wanted["sha256"]:
            return f"{path.name}/{name} does not match its checksum"
    return None


def prune(folder: Path, kind: str, kept: Collection[Path]) -> None:
    """Remove the checkpoints of a kind that are not kept, oldest first, and what was unfinished."""
    for path in [*reversed(newest_first(folder, kind)), *folder.glob(f".{kind}[0-9]*")]:
        if path not in kept:
            # What cannot be removed only takes room; the next prune tries again.
            shutil.rmtree(path, ignore_errors=True)


def _size(path: Path) -> int:
    return path.stat().st_size


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
