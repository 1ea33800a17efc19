"""Asking a run to stop: the handler only notes it, the step that is running finishes first."""

import os
import signal
import threading
import time
from types import FrameType

_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
# Launchers may deliver one Ctrl-C twice within milliseconds; a person needs longer.
_SECOND_PRESS_S = 0.3


class StopRequest:
    """Notes SIGINT, SIGTERM and SIGUSR1 while active; a second SIGINT ends the process at once."""

    def __init__(self) -> None:
        self.reason: str | None = None
        self._asked_at = 0.0
        self._previous: dict[int, object] = {}

    @property
    def is_set(self) -> bool:
        """Whether the run should save and stop."""
        return self.reason is not None

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            for number in _STOPPING:
                self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _note(self, number: int, frame: FrameType | None) -> None:
        del frame
        now = time.monotonic()
        if self.reason == "SIGINT" and number == signal.SIGINT:
            if now - self._asked_at > _SECOND_PRESS_S:
                os._exit(130)
            return
        self.reason, self._asked_at = signal.Signals(number).name, now
