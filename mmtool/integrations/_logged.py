"""What the callbacks of all trainers share: the run they log, and the time of its phases."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmtool.log import RunLog, Watched, start, wrap


class LoggedTraining:
    """One run at a time, its watched model, and marks between the phases of a step."""

    def _watch_as(
        self,
        path: Path | str,
        encoders: Mapping[str, str],
        classes: int | Sequence[str],
        fusion: str | None,
        system: bool,
        about: Mapping[str, Any],
    ) -> None:
        self._path = path
        self._encoders = dict(encoders)
        self._classes = classes
        self._fusion = fusion
        self._system = system
        self._about = dict(about)
        self._run: RunLog | None = None
        self._watched: Watched | None = None
        self._mark = 0.0
        self._waits_since: float | None = None
        self._is_stepping = False

    @property
    def run(self) -> RunLog | None:
        """The run that is being logged."""
        return self._run

    def _watch(self, model: Any) -> None:
        self._watched = wrap(model, encoders=self._encoders, fusion=self._fusion)

    def _start(self, *, rank: int, **about: Any) -> None:
        self._run = start(
            self._path,
            modalities=list(self._encoders),
            classes=self._classes,
            system=self._system,
            rank=rank,
            **{**about, **self._about},
        )

    def _begin_step(self, run: RunLog, number: int, *, epoch: int, n: int | None = None) -> None:
        """Begin a step; what passed since training began to wait was the wait for its data."""
        now = time.perf_counter()
        if self._waits_since is not None:
            run.add_ms("data", (now - self._waits_since) * 1000)
        run.begin_step(number, n=n, epoch=epoch)
        self._is_stepping, self._mark = True, time.perf_counter()

    def _lap(self, phase: str) -> None:
        """Count the time since the last mark for a phase of the step."""
        now = time.perf_counter()
        if self._run is not None and self._is_stepping:
            self._run.add_ms(phase, (now - self._mark) * 1000)
        self._mark = now

    def _end_step(self, run: RunLog) -> None:
        run.end_step()
        self._is_stepping = False
        self._waits_since = time.perf_counter()

    def _close(self, status: str, reason: str = "") -> None:
        if self._watched is not None:
            self._watched.close()
        if self._run is not None:
            self._run.close(status, reason)
        self._run = self._watched = None
