"""One process at a time: a lock file that names its owner and that a crash does not leave held."""

import errno
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmtool.errors import EnvironmentLacks, RunDirectoryError

_NO_FLOCK = frozenset({errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL})


@contextmanager
def hold_lock(path: Path) -> Iterator[None]:
    """Hold the lock for the time of the block; refuse when another process holds it."""
    fd = _acquire(path)
    try:
        yield
    finally:
        # Unlinked before it is released: whoever waits on this file finds that it is gone.
        path.unlink(missing_ok=True)
        os.close(fd)


def _acquire(path: Path) -> int:
    while True:
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise EnvironmentLacks(
                f"the run cannot be locked: {error.strerror}", where=str(path)
            ) from error
        try:
            _lock_or_refuse(fd, path)
            if _is_same_file(fd, path):
                os.ftruncate(fd, 0)
                owner = {"host": socket.gethostname(), "pid": os.getpid()}
                os.pwrite(fd, json.dumps(owner).encode(), 0)
                return fd
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


def _lock_or_refuse(fd: int, path: Path) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        owner = _owner(fd)
        is_held = error.errno not in _NO_FLOCK or _may_be_running(owner)
        if not is_held:
            return
        host, pid = owner.get("host", "unknown host"), owner.get("pid", "unknown")
        raise RunDirectoryError(
            f"run {path.parent.name} is being written by process {pid} on {host}",
            where=str(path),
            why="two processes would mix their logs and checkpoints",
            fix=f"wait for it, or stop it: kill -TERM {pid}    # on {host}",
        ) from error


def _owner(fd: int) -> dict[str, Any]:
    try:
        owner = json.loads(os.pread(fd, 4096, 0))
    except (OSError, ValueError):
        return {}
    return owner if isinstance(owner, dict) else {}


def _may_be_running(owner: dict[str, Any]) -> bool:
    """Judge by name where the file system has no locks; another machine's process may live."""
    if not owner:
        return False
    if owner.get("host") != socket.gethostname():
        return True
    try:
        os.kill(int(owner["pid"]), 0)
    except (ProcessLookupError, KeyError, ValueError):
        return False
    except PermissionError:
        return True
    return True


def _is_same_file(fd: int, path: Path) -> bool:
    try:
        named = path.stat()
    except FileNotFoundError:
        return False
    held = os.fstat(fd)
    return (held.st_dev, held.st_ino) == (named.st_dev, named.st_ino)
