"""Checkpoints written beside training: the step only waits for the copy to host memory.

One write is in flight at a time. A write that fails is a warning, for the next one may succeed;
several in a row, or the last one of a run, are an error: then nothing would be left to resume from.
"""

import threading
from collections.abc import Callable
from pathlib import Path

from mmtool.engine.build import Job
from mmtool.engine.checkpoint import take_snapshot, write_best, write_checkpoint
from mmtool.errors import MmtoolError

Emit = Callable[..., None]
_MOST_FAILURES = 3


class Saver:
    """Takes the training state on every rank and writes it on the first one."""

    def __init__(self, job: Job, folder: Path, emit: Emit, *, in_background: bool = True) -> None:
        self._job = job
        self._folder = folder
        self._emit = emit
        self._in_background = in_background
        self._thread: threading.Thread | None = None
        self._step = 0
        self._written: Path | None = None
        self._error: BaseException | None = None
        self._num_failures = 0

    def save(self) -> None:
        """Begin to write a checkpoint of the training state."""
        snapshot = take_snapshot(self._job)
        self._begin(snapshot.step, lambda: write_checkpoint(snapshot, self._folder))

    def save_best(self) -> None:
        """Begin to write the weights as the best so far."""
        snapshot = take_snapshot(self._job, weights_only=True)
        self._begin(snapshot.step, lambda: write_best(snapshot, self._folder))

    def poll(self) -> None:
        """Tell about a write that has ended meanwhile."""
        if self._thread is not None and not self._thread.is_alive():
            self._wait()

    def finish(self) -> None:
        """Wait until everything is on disk, on every rank; a failure now is the run's failure."""
        self._wait(is_last=True)
        self._job.ranks.barrier()

    def _begin(self, step: int, write: Callable[[], Path]) -> None:
        if not self._job.ranks.is_first:
            return
        self._wait()
        self._step = step

        def work() -> None:
            try:
                self._written = write()
            except BaseException as error:  # noqa: BLE001 - raised again by the thread that waits
                self._error = error

        self._thread = threading.Thread(target=work, name="mmtool-checkpoint")
        self._thread.start()
        if not self._in_background:
            self._wait()

    def _wait(self, *, is_last: bool = False) -> None:
        """Wait for the write in flight and tell what became of it."""
        if self._thread is None:
            return
        self._thread.join()
        self._thread = None
        error, written = self._error, self._written
        self._error = self._written = None
        if error is None:
            self._num_failures = 0
            if written is not None:
                self._emit("event", what="checkpoint", step=self._step, name=written.name)
            return
        self._num_failures += 1
        if is_last or self._num_failures >= _MOST_FAILURES or not isinstance(error, MmtoolError):
            raise error
        self._emit("event", what="warning", message=f"{error.what}; training goes on")
