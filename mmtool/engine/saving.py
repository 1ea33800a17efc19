"""Checkpoints written beside training: the step only waits until their copy has been asked for.

One write is in flight at a time. A write that fails is a warning, for the next one may succeed;
several in a row, or the last one of a run, are an error: then nothing would be left to resume from.
"""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from mmtool.engine import sharded
from mmtool.engine.checkpoint import Snapshot, take_snapshot, write_snapshot
from mmtool.engine.job import Job
from mmtool.engine.manifest import prune
from mmtool.errors import MmtoolError, NotWritable

Emit = Callable[..., None]
_MOST_FAILURES = 3
_KEPT = {"step": 2, "best": 1}


class Saver:
    """Takes the training state on every rank and writes it on those that have something to write.

    It removes older checkpoints, but none before newer ones are known to be good: those it wrote
    itself, and the one that training continued from.
    """

    def __init__(self, job: Job, folder: Path, emit: Emit, *, in_background: bool = True) -> None:
        self._job = job
        self._folder = folder
        self._emit = emit
        self._in_background = in_background
        self._is_sharded = sharded.is_wanted(job)
        self._group: Any = sharded.own_group(job.ranks) if self._is_sharded else None
        self._thread: threading.Thread | None = None
        self._snapshot: Snapshot | None = None
        self._owed: Snapshot | None = None
        """Best weights that could not be written yet."""
        self._error: BaseException | None = None
        self._good: dict[str, list[Path]] = {"step": [], "best": []}
        self._num_failures = 0
        self._stall_ms = 0.0

    def trust(self, path: Path) -> None:
        """Count a checkpoint as good: it was verified."""
        self._good["step"].append(path)

    def save(self) -> None:
        """Begin to write a checkpoint of the training state."""
        self._begin(weights_only=False)

    def save_best(self) -> None:
        """Begin to write the weights as the best so far."""
        self._begin(weights_only=True)

    def poll(self) -> None:
        """Tell about a write that has ended meanwhile."""
        if self._thread is not None and not self._thread.is_alive():
            self._wait()

    def finish(self) -> None:
        """Wait until everything is on disk, on every rank; a failure now is the run's failure."""
        failure: MmtoolError | None = None
        try:
            self._wait(is_last=True)
            if self._owed is not None:
                self._start(self._owed)
                self._wait(is_last=True)
        except MmtoolError as error:
            failure = error
        failed = torch.tensor([int(failure is not None)])
        is_failed = bool(self._job.ranks.max_(failed, "saved").item())
        if failure is not None:
            raise failure
        if is_failed:
            raise NotWritable(
                "the last checkpoint was not written by another rank", where=str(self._folder)
            )

    def abandon(self) -> None:
        """Let a write that has begun come to its end, while an error is on its way."""
        if self._thread is not None and not self._is_sharded:
            self._thread.join()

    def _begin(self, *, weights_only: bool) -> None:
        started = time.perf_counter()
        if self._thread is not None:
            self._wait()
        snapshot = take_snapshot(self._job, weights_only=weights_only)
        if weights_only:
            self._owed = None  # newer ones take their place
        elif self._owed is not None:
            self._start(self._owed)
            self._wait()
        if self._job.ranks.is_first or self._is_sharded:
            self._start(snapshot)
        self._stall_ms = (time.perf_counter() - started) * 1e3

    def _start(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

        def work() -> None:
            try:
                write_snapshot(snapshot, self._folder, self._group)
            except BaseException as error:  # noqa: BLE001 - raised again by the thread that waits
                self._error = error

        # Ranks that write together may wait for one that is gone; that must not keep a process.
        self._thread = threading.Thread(
            target=work, name="mmtool-checkpoint", daemon=self._is_sharded
        )
        self._thread.start()
        if not self._in_background:
            self._wait()

    def _wait(self, *, is_last: bool = False) -> None:
        """Wait for the write in flight and tell what became of it."""
        if self._thread is None or self._snapshot is None:
            return
        self._thread.join()
        snapshot, error = self._snapshot, self._error
        self._thread = self._snapshot = self._error = None
        if error is None:
            self._num_failures = 0
            self._settle(snapshot)
            return
        if snapshot.kind == "best":
            self._owed = snapshot
        self._num_failures += 1
        if not isinstance(error, MmtoolError):
            raise error
        if is_last or self._num_failures >= _MOST_FAILURES:
            if self._num_failures > 1:
                error.why = f"{self._num_failures} checkpoints in a row failed; {error.why}"
            raise error
        self._emit("event", what="warning", message=f"{error.what}; training goes on")

    def _settle(self, snapshot: Snapshot) -> None:
        """Keep a checkpoint that was written, and those before it that are known to be good."""
        if snapshot is self._owed:
            self._owed = None
        path = self._folder / snapshot.name
        good = [p for p in self._good[snapshot.kind] if p != path]
        self._good[snapshot.kind] = [*good, path][-_KEPT[snapshot.kind] :]
        if self._job.ranks.is_first:
            # Unknown ones stay until there are enough known ones.
            if len(self._good[snapshot.kind]) == _KEPT[snapshot.kind]:
                prune(self._folder, snapshot.kind, self._good[snapshot.kind])
            self._emit(
                "event",
                what="checkpoint",
                step=snapshot.step,
                name=snapshot.name,
                stall_ms=round(self._stall_ms, 3),
            )
