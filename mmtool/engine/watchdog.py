"""What a launcher does for its ranks, for a run that has this process to itself.

A thread looks whether the run still moves: whether steps begin, or the training thread at least
computes. When neither has happened for `launch.timeout_s`, it leaves the stacks of all threads in
the run directory, notes the failure in status.json and ends the process, as a launcher would. It
sees a process that waits (for a file system, a lock, a device that is gone); one that spins in an
endless loop, or whose thread is held within a library that also holds Python's lock, looks alive.
"""

import faulthandler
import os
import signal
import sys
import threading
import time
from types import TracebackType

from mmtool.engine.attempt import output_path, read_launch
from mmtool.engine.pulse import PULSE_FD, PulseBoard
from mmtool.engine.stop import StopRequest
from mmtool.errors import Killed, MmtoolError, RankSilent
from mmtool.runlog.rundir import RunDir

_MOST_LOOKS_S, _LOOKS_PER_TIMEOUT = 1.0, 10
_WORKING_SHARE = 0.05
"""A thread that polls for something uses less of a core than this."""
_UNWINDING_S = 5.0


class PromptStop(StopRequest):
    """A second Ctrl-C is an error of the run, which leaves it by the same ways as any other."""

    def __init__(self, run: RunDir) -> None:
        super().__init__(ends_process=False)
        self._run = run

    def _force(self) -> None:
        raise killed(self._run)


def killed(run: RunDir) -> Killed:
    """Give the error of a run that a second Ctrl-C ended."""
    fix = f"mmtool train --resume {run.path}"
    return Killed("the run was killed by a second Ctrl-C", signal.SIGINT, fix=fix)


class Watchdog:
    """Watches the thread that enters it until it leaves."""

    def __init__(self, run: RunDir, stop: StopRequest, *, timeout_s: float) -> None:
        self._run, self._stop, self._timeout_s = run, stop, timeout_s
        self._board = PulseBoard(1)
        self._done = threading.Event()
        self._clock = time.pthread_getcpuclockid(threading.get_ident())
        self._thread = threading.Thread(target=self._watch, name="mmtool-watchdog", daemon=True)

    def __enter__(self) -> "Watchdog":
        os.environ[PULSE_FD] = str(self._board.fd)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        del os.environ[PULSE_FD]
        self._done.set()
        self._thread.join()
        self._board.close()

    def _watch(self) -> None:
        every = min(_MOST_LOOKS_S, self._timeout_s / _LOOKS_PER_TIMEOUT)
        before = self._look()
        moved_at = looked_at = time.monotonic()
        forced_at: float | None = None
        while not self._done.wait(every):
            now, found = time.monotonic(), self._look()
            passed, looked_at = now - looked_at, now
            is_working = found[1] - before[1] > _WORKING_SHARE * passed
            # Looks that come late say that the whole process was stopped and is back.
            if is_working or found[0] != before[0] or passed > every + self._timeout_s / 2:
                moved_at = now
            before = found
            if self._stop.is_forced:
                forced_at = forced_at or now
                if now - forced_at > _UNWINDING_S:
                    self._end(killed(self._run))
            elif now - moved_at > self._timeout_s:
                self._end(self._silent(found[0]))

    def _look(self) -> tuple[int, float]:
        """Give the step that was begun last and the processor time of the training thread."""
        return self._board.steps()[0], time.clock_gettime(self._clock)

    def _silent(self, step: int) -> RankSilent:
        since = f"since step {step}" if step >= 0 else "since before its first step"
        path = output_path(self._run.path, int(read_launch(self._run.path)["attempt"]), 0)
        with path.open("ab") as output:
            faulthandler.dump_traceback(output, all_threads=True)
        return RankSilent(
            f"rank 0 silent {since}",
            where=f"{path} has the stacks of all threads",
            why=f"no step began and the training thread only waited for {self._timeout_s:g} s "
            "(launch.timeout_s)",
            fix=f"mmtool train --resume {self._run.path}",
        )

    def _end(self, error: MmtoolError) -> None:
        is_resumable = any(self._run.ckpt_dir.glob("step[0-9]*"))
        facts = {"reason": error.what, "resumable": is_resumable, "exit_code": error.exit_code}
        self._run.write_status(state="failed", **facts)
        sys.stderr.write(f"\nerror: {error}\n")
        sys.stderr.flush()
        os._exit(error.exit_code)
