"""The lines that a log gained since it was last looked at."""

import json
from pathlib import Path

from mmtool.runlog.events import Event

FIRST_BYTES = 65_536
"""Of a log that is long already, so much of its end is read at first."""


class Tail:
    """Follows one file; a line that is not yet complete is left for the next time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._at: int | None = None

    def read(self) -> list[Event]:
        """Give the events of the lines that were completed since the last call."""
        try:
            size = self._path.stat().st_size
            if self._at is None:
                self._at = max(size - FIRST_BYTES, 0)
                is_inside = self._at > 0
            else:
                is_inside = False
            if size < self._at:
                # Another file has taken its place.
                self._at = 0
            with self._path.open("rb") as file:
                file.seek(self._at)
                found = file.read(size - self._at)
        except OSError:
            return []
        whole = found[: found.rfind(b"\n") + 1]
        self._at += len(whole)
        lines = whole.splitlines()[1:] if is_inside else whole.splitlines()
        return [event for line in lines if (event := _event(line)) is not None]


def _event(line: bytes) -> Event | None:
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and "k" in event else None
