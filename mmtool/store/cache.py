"""A folder of fetched files that the processes of a machine share and that keeps to a size.

    <root>/stores/<first 16 digits of the store's hash>/shard-00000.audio.bin
                                                       /locks/shard-00000.audio.bin

Folders are named after content: a store that changes at its address gets a new folder, and the
same store at two addresses is kept once. What was used longest ago is dropped first.
"""

import contextlib
import errno
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from mmtool.errors import EnvironmentLacks, RequestError
from mmtool.paths import cache_root
from mmtool.store.files import sync_folder
from mmtool.text import human_bytes

DEFAULT_CACHE_GB = 64.0
_SECONDS_BETWEEN_TOUCHES = 20.0
_OFFSETS = ".offsets.bin"
_TEMPORARY = ".fetching"


def cache_limit(given: int | None = None) -> int:
    """Give the size the cache keeps to, in bytes: the argument, `MMTOOL_CACHE_GB`, or 64 GB."""
    if given is not None:
        return given
    text = os.environ.get("MMTOOL_CACHE_GB") or str(DEFAULT_CACHE_GB)
    try:
        size_gb = float(text)
    except ValueError:
        size_gb = -1.0
    if not 0 < size_gb < float("inf"):
        raise RequestError(
            f"MMTOOL_CACHE_GB is {text!r}, which is no size",
            fix="export MMTOOL_CACHE_GB=64",
        )
    return int(size_gb * 1e9)


class StoreCache:
    """The part of the cache that holds one store."""

    def __init__(
        self, identity: str, *, root: Path | None = None, limit_bytes: int | None = None
    ) -> None:
        self.stores = cache_root(root) / "stores"
        self.folder = self.stores / identity[:16]
        self.limit_bytes = cache_limit(limit_bytes)
        self._touched: dict[str, float] = {}
        try:
            (self.folder / "locks").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise cache_error(self.folder, error) from error

    def kept(self, name: str, size: int) -> Path | None:
        """Give the place of a file if it is here and of the right size."""
        path = self.folder / name
        try:
            if path.stat().st_size == size:
                return path
        except OSError:
            pass
        return None

    def touch(self, name: str) -> None:
        """Note that a file is in use, so that others are dropped before it."""
        now = time.monotonic()
        if now - self._touched.get(name, -_SECONDS_BETWEEN_TOUCHES) >= _SECONDS_BETWEEN_TOUCHES:
            self._touched[name] = now
            with contextlib.suppress(OSError):
                os.utime(self.folder / name)

    @contextlib.contextmanager
    def lock(self, name: str) -> Iterator[bool]:
        """Keep others from fetching the same file meanwhile; give whether that could be done."""
        with (self.folder / "locks" / name).open("ab") as file:
            # Where the file system knows no locks two processes may fetch the same file twice,
            # which costs time only: a file comes to its place by a rename.
            is_alone = False
            with contextlib.suppress(ImportError, OSError):
                import fcntl

                fcntl.flock(file, fcntl.LOCK_EX)
                is_alone = True
            yield is_alone

    def temporary(self, name: str, *, is_alone: bool) -> Path:
        """Give a fresh name for a download; who is alone removes what a killed process left."""
        if is_alone:
            for leftover in self.folder.glob(f"{name}.*{_TEMPORARY}"):
                leftover.unlink(missing_ok=True)
        return self.folder / f"{name}.{os.getpid()}-{threading.get_ident()}{_TEMPORARY}"

    def accept(self, temporary: Path, name: str) -> Path:
        """Put a finished download into its place."""
        path = self.folder / name
        temporary.replace(path)
        sync_folder(self.folder)
        self._touched.pop(name, None)
        self.touch(name)
        return path

    def make_room(self, num_bytes: int) -> None:
        """Drop files, the one used longest ago first, until so many more bytes fit."""
        found: list[tuple[float, int, Path]] = []
        total = num_bytes
        for path in self.stores.glob("*/*"):
            try:
                status = path.stat()
            except OSError:
                continue
            total += status.st_size
            if path.suffix == ".bin" and not path.name.endswith(_OFFSETS):
                found.append((status.st_mtime, status.st_size, path))
        for _, size, path in sorted(found):
            if total <= self.limit_bytes:
                return
            path.unlink(missing_ok=True)
            total -= size


def cache_error(where: Path, error: OSError) -> EnvironmentLacks:
    """Say why the cache cannot be written and how to give it another place."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        limit = human_bytes(cache_limit())
        return EnvironmentLacks(
            "the disk of the cache is full",
            where=str(where),
            why=f"the cache may grow to {limit}",
            fix="export MMTOOL_CACHE_GB=10, or name a larger disk: export MMTOOL_CACHE=DIR",
        )
    return EnvironmentLacks(
        "the cache of fetched datasets cannot be written",
        where=str(where),
        why=str(error),
        fix="name a folder that can be written: export MMTOOL_CACHE=DIR",
    )
