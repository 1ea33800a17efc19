"""From the bytes of a log file to its events; never fails on what a kill can leave behind."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from mmtool.errors import RunDirectoryError
from mmtool.runlog.events import SCHEMA, SCHEMA_MAJOR, Event


@dataclass(frozen=True, slots=True)
class LogFile:
    """The events of one file in the order of writing."""

    events: list[Event] = field(default_factory=list)
    warnings: tuple[str, ...] = ()


def read_events(path: Path) -> LogFile:
    """Read every complete line of a log file and say which lines had to be left out."""
    data = path.read_bytes()
    lines = data.split(b"\n")
    events: list[Event] = []
    damaged: list[int] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        event = parse_line(line)
        if event is None:
            damaged.append(number)
        else:
            events.append(event)
    is_torn = bool(damaged) and damaged[-1] == len(lines)
    return LogFile(events, tuple(_complaints(path.name, damaged, is_torn=is_torn)))


def parse_line(line: bytes) -> Event | None:
    """Give the event of one line, nothing when the line is torn or damaged."""
    try:
        event = json.loads(line, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return None
    return event if isinstance(event, dict) and isinstance(event.get("k"), str) else None


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


def _complaints(name: str, damaged: list[int], *, is_torn: bool) -> Iterator[str]:
    if is_torn:
        yield f"{name}: the last line was cut off by a kill and is left out"
        damaged = damaged[:-1]
    if damaged:
        many = f"{len(damaged)} lines that are not events were" if damaged[1:] else "a line was"
        yield f"{name}: {many} left out (line {damaged[0]}), as a kill before a resume leaves them"


def _refuse_constant(name: str) -> None:
    raise ValueError(name)
