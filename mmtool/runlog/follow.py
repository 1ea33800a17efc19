"""Hand out the events of a log file while it is still being written."""

import threading
from collections.abc import Callable
from io import BufferedReader
from pathlib import Path

from mmtool.runlog.events import Event
from mmtool.runlog.lines import parse_line

POLL_S = 0.1


def follow(
    path: Path, stop: threading.Event, on_event: Callable[[Event], None], *, start: int = 0
) -> None:
    """Call `on_event` for every event from byte `start` of the file until `stop`, then the rest.

    The file may not exist yet.
    """
    tail = _Tail(start)
    while True:
        # Asked before reading: what was written before the stop is always handed out.
        is_last = stop.is_set()
        if path.exists():
            with path.open("rb") as file:
                tail.read(file, on_event, is_last=is_last)
        if is_last:
            return
        stop.wait(POLL_S)


class _Tail:
    """Remembers how far a growing file was read, line by line."""

    def __init__(self, start: int) -> None:
        self._offset = start

    def read(
        self, file: BufferedReader, on_event: Callable[[Event], None], *, is_last: bool
    ) -> None:
        file.seek(self._offset)
        for line in file:
            if not line.endswith(b"\n") and not is_last:
                return
            self._offset += len(line)
            event = parse_line(line)
            if event is not None:
                on_event(event)
