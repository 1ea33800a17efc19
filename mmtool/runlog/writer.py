"""Append events to a JSON-lines file so that a kill at any moment loses no finished line.

Every event is one unbuffered write of one whole line, hence at most the last line of a file can be
torn; a writer that opens such a file closes the torn line before it adds its own.
"""

import json
import math
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from numbers import Integral, Real
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from mmtool.errors import Bug, EnvironmentLacks

FSYNC_KINDS = frozenset({"epoch", "checkpoint", "end"})
"""Kinds, and the `what` of events, after which the file is forced to the disk."""

EXACT_KEYS = frozenset({"t", "loss"})
"""Keys that keep every digit, so that two runs can be compared exactly; others keep six."""


class EventWriter:
    """Writes the events of one rank; may be shared by threads."""

    def __init__(
        self,
        path: Path,
        *,
        fsync_kinds: Iterable[str] = FSYNC_KINDS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._path = path
        self._clock = clock
        self._fsync_kinds = frozenset(fsync_kinds)
        self._lock = threading.Lock()
        self._fd = _open(path)
        self._is_torn = _ends_torn(path)

    @property
    def path(self) -> Path:
        """The file that is written."""
        return self._path

    def write(self, kind: str, **fields: Any) -> None:
        """Append one line; a number that is not finite becomes null and is named in `bad`."""
        line = encode_event(kind, fields, t=self._clock())
        with self._lock:
            if self._fd < 0:
                raise Bug(
                    f"event {kind!r} was written after the log was closed", where=str(self.path)
                )
            try:
                self._append(line)
                if kind in self._fsync_kinds or fields.get("what") in self._fsync_kinds:
                    os.fsync(self._fd)
            except OSError as error:
                raise EnvironmentLacks(
                    f"the run log cannot be written: {error.strerror or error}",
                    where=str(self._path),
                    fix=f"df -h {self._path.parent}    # make room, then resume the run",
                ) from error

    def close(self) -> None:
        """Close the file; closing twice is allowed."""
        with self._lock:
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _append(self, line: bytes) -> None:
        if self._is_torn:
            line = b"\n" + line
        left = memoryview(line)
        # Until the last byte is out, what follows a failure must start on a line of its own.
        self._is_torn = True
        while left:
            left = left[os.write(self._fd, left) :]
        self._is_torn = False


def encode_event(kind: str, fields: Mapping[str, Any], *, t: float) -> bytes:
    """Give an event as one line of strict JSON with its kind and time."""
    bad: list[str] = []
    record: dict[str, Any] = {"k": kind, "t": round(t, 3)}
    record |= {key: _plain(value, key, key, bad) for key, value in fields.items()}
    # What a line is and when it was written is not for a field of that name to say.
    record |= {"k": kind, "t": round(t, 3)}
    if bad:
        record["bad"] = bad
    return json.dumps(record, separators=(",", ":"), allow_nan=False).encode("ascii") + b"\n"


def _plain(value: Any, key: str, path: str, bad: list[str]) -> Any:
    """Give the value as JSON can hold it; `bad` collects the paths of non-finite numbers."""
    # The kinds a step is full of come first: the checks against abstract numbers are slow.
    if type(value) is float:
        return _rounded(value, key, path, bad)
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, Mapping):
        return {str(k): _plain(v, str(k), f"{path}.{k}", bad) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v, key, f"{path}.{i}", bad) for i, v in enumerate(value)]
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return _rounded(float(value), key, path, bad)
    raise Bug(
        f"a run log holds plain values only, {path!r} is a {type(value).__name__}",
        fix=f"give {path} as a number, for example with .item() or float(...)",
    )


def _rounded(number: float, key: str, path: str, bad: list[str]) -> float | None:
    if not math.isfinite(number):
        bad.append(path)
        return None
    return number if key in EXACT_KEYS else float(f"{number:.6g}")


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise EnvironmentLacks(
            f"the run log cannot be opened for writing: {error.strerror}",
            where=str(path),
            fix=f"ls -ld {path.parent}",
        ) from error


def _ends_torn(path: Path) -> bool:
    with path.open("rb") as file:
        if file.seek(0, os.SEEK_END) == 0:
            return False
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"
