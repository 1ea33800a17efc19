"""Files that are either whole or absent: temporary name, fsync, rename."""

import contextlib
import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from mmtool.store.schema import FileInfo

_CHUNK_BYTES = 1 << 20


class ShardSource(Protocol):
    """Turns the name of a file of the store into a local path; all that a reader asks for.

    A local folder answers at once; a remote one would fetch the file into a cache first.
    """

    def path(self, name: str) -> Path:
        """Give a local path that holds the whole file."""


class FetchingSource(ABC):
    """A source whose files are fetched when asked for and may be dropped again later."""

    limit_bytes: int
    """What it keeps at most."""

    @abstractmethod
    def path(self, name: str) -> Path:
        """Fetch the file if it is not here and give its local path."""

    @abstractmethod
    def is_kept(self, name: str) -> bool:
        """Say whether the file is still here."""

    @abstractmethod
    def will_need(self, names: Sequence[str]) -> None:
        """Start fetching files in the background, the first ones first."""

    @abstractmethod
    def close(self) -> None:
        """Stop fetching."""


class LocalShards:
    """The files of a store in a local folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, name: str) -> Path:
        """Give the file's place in the folder."""
        return self.folder / name


def sha256_of(path: Path) -> str:
    """Give the SHA-256 of a file, reading it in pieces."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            found.update(chunk)
    return found.hexdigest()


def sync_folder(folder: Path) -> None:
    """Make renames inside a folder survive a power cut, where the system can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


class HashedFile:
    """A file written piece by piece under a temporary name, hashed on the way."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._temporary = path.with_name(path.name + ".tmp")
        self._file = self._temporary.open("wb")
        self._sha256 = hashlib.sha256()
        self._bytes = 0

    def write(self, data: bytes | memoryview) -> None:
        """Append bytes."""
        self._file.write(data)
        self._sha256.update(data)
        self._bytes += len(data)

    def commit(self) -> FileInfo:
        """Put the file in its place and say what it holds."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._temporary.replace(self.path)
        return FileInfo(self.path.name, self._bytes, self._sha256.hexdigest())

    def discard(self) -> None:
        """Drop what was written; harmless after `commit`."""
        # Closing flushes, which fails again where the disk is full.
        with contextlib.suppress(OSError):
            self._file.close()
        self._temporary.unlink(missing_ok=True)


def write_whole(path: Path, data: bytes) -> FileInfo:
    """Write a file so that readers see all of it or none of it."""
    file = HashedFile(path)
    try:
        file.write(data)
        return file.commit()
    finally:
        file.discard()
