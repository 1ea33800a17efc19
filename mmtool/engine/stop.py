"""Asking a run to stop: the handler only notes it, the step that is running finishes first."""

import os
import signal
import threading
import time
from types import FrameType

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
"""Signals that ask a run to save and stop."""

FORCED_CODE = 130
# Launchers may deliver one Ctrl-C twice within milliseconds; a person needs longer.
_SECOND_PRESS_S = 0.3


class StopRequest:
    """Notes SIGINT, SIGTERM and SIGUSR1 while active; a second SIGINT means: now.

    The second one ends the process at once, or with `ends_process=False` sets `is_forced`.
    """

    def __init__(self, *, ends_process: bool = True) -> None:
        self.reason: str | None = None
        self.is_forced = False
        self._ends_process = ends_process
        self._asked_at = 0.0
        self._previous: dict[int, object] = {}

    @property
    def is_set(self) -> bool:
        """Whether the run should save and stop."""
        return self.reason is not None

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            for number in STOPPING:
                self._previous[number] = signal.signal(number, self._note)
            # A launcher blocks them until here: one that arrives meanwhile is delivered now.
            signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _note(self, number: int, frame: FrameType | None) -> None:
        del frame
        now = time.monotonic()
        if self.reason == "SIGINT" and number == signal.SIGINT:
            if now - self._asked_at > _SECOND_PRESS_S and not self.is_forced:
                self.is_forced = True
                self._force()
            return
        self.reason, self._asked_at = signal.Signals(number).name, now

    def _force(self) -> None:
        """Act on a second SIGINT, once."""
        if self._ends_process:
            os._exit(FORCED_CODE)
