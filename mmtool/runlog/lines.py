"""From the bytes of a log file to its events; never fails on what a kill can leave behind."""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from io import BufferedReader
from pathlib import Path

from mmtool.errors import RunDirectoryError
from mmtool.runlog.events import SCHEMA, SCHEMA_MAJOR, Event

MAX_LINE_BYTES = 2**24
"""No event is nearly as long; what is longer has lost its line ends and is passed over."""


@dataclass(frozen=True, slots=True)
class LogFile:
    """The events of one file in the order of writing."""

    events: list[Event] = field(default_factory=list)
    warnings: tuple[str, ...] = ()


class LogLines:
    """The events of one file one by one, so that a log of any size needs the memory of a line.

    `wants` is shown each line before it is parsed and may spare the parsing.
    """

    def __init__(self, path: Path, wants: Callable[[bytes], bool] | None = None) -> None:
        self._path = path
        self._wants = wants
        self._num_lines = 0
        self._num_damaged = 0
        self._first_damaged = 0
        self._is_torn = False
        self._num_bare = 0
        self._has_bare = False
        self._decode = json.JSONDecoder(parse_constant=self._note_constant).decode

    def __iter__(self) -> Iterator[Event]:
        with self._path.open("rb") as file:
            for line in raw_lines(file):
                self._num_lines += 1
                if line is not None and (line.isspace() or not self._is_wanted(line)):
                    continue
                event = None if line is None else self._event(line)
                if event is not None:
                    yield event
                else:
                    self._num_damaged += 1
                    self._first_damaged = self._first_damaged or self._num_lines
                    self._is_torn = line is not None and not line.endswith(b"\n")

    @property
    def warnings(self) -> tuple[str, ...]:
        """Sentences about what was left out, once the file was read."""
        return tuple(self._complaints())

    def _is_wanted(self, line: bytes) -> bool:
        return self._wants is None or self._wants(line)

    def _event(self, line: bytes) -> Event | None:
        self._has_bare = False
        event = _decoded(line, self._decode)
        self._num_bare += self._has_bare and event is not None
        return event

    def _note_constant(self, _: str) -> None:
        self._has_bare = True

    def _complaints(self) -> Iterator[str]:
        name, damaged = self._path.name, self._num_damaged - self._is_torn
        if self._is_torn:
            yield f"{name}: the last line was cut off by a kill and is left out"
        if damaged:
            many = f"{damaged} lines that are not events were" if damaged > 1 else "a line was"
            yield (
                f"{name}: {many} left out (line {self._first_damaged}), as a kill before a resume "
                f"leaves them"
            )
        if self._num_bare:
            yield (
                f"{name}: {self._num_bare} lines hold a bare NaN or Infinity, which is not JSON; "
                f"read as missing"
            )


def read_events(path: Path) -> LogFile:
    """Read every complete line of a log file and say which lines had to be left out."""
    lines = LogLines(path)
    events = list(lines)
    return LogFile(events, lines.warnings)


def parse_line(line: bytes) -> Event | None:
    """Give the event of one line, nothing when the line is torn or damaged."""
    return _decoded(line, json.JSONDecoder(parse_constant=_missing).decode)


def check_schema(events: Iterable[Event], path: Path) -> None:
    """Refuse a log whose major version this mmtool cannot read."""
    name, major = SCHEMA.rpartition("/")[0], str(SCHEMA_MAJOR)
    for event in events:
        if event["k"] != "head":
            continue
        given = str(event.get("schema", ""))
        given_name, _, version = given.rpartition("/")
        if (given_name, version.partition(".")[0]) != (name, major):
            raise RunDirectoryError(
                f"the log has schema {given or 'unknown'!r}, this mmtool reads {name}/{major}.x",
                where=str(path),
                why="another major version gives the same names another meaning",
                fix="read it with the mmtool that wrote it: env.json in the run names the version",
            )


def raw_lines(file: BufferedReader) -> Iterator[bytes | None]:
    """Give every line with its end; None in the place of one that is too long to be an event."""
    while line := file.readline(MAX_LINE_BYTES):
        if len(line) < MAX_LINE_BYTES or line.endswith(b"\n"):
            yield line
            continue
        while line and not line.endswith(b"\n"):
            line = file.readline(MAX_LINE_BYTES)
        yield None


def _decoded(line: bytes, decode: Callable[[str], object]) -> Event | None:
    try:
        event = decode(line.decode("utf-8"))
    except (ValueError, RecursionError):
        return None
    return event if isinstance(event, dict) and isinstance(event.get("k"), str) else None


def _missing(_: str) -> None:
    """Read the constants that are no JSON, such as NaN, as nothing."""
