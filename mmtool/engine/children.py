"""One attempt at a run with several ranks: child processes that die with this one.

They share a listening socket opened here, so no port can clash and nothing of an earlier attempt
can be read. Nothing here loads torch.
"""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from mmtool.engine.attempt import output_path, read_report
from mmtool.engine.fault import RESTART_VARIABLE
from mmtool.engine.pulse import LISTEN_FD, PULSE_FD, PulseBoard
from mmtool.engine.stop import STOPPING, StopRequest

_POLL_S = 0.02
_AFTER_FAILURE_S = 5.0
_GOOD_CODES = (0, 75)
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class AttemptPlan:
    """What the ranks of one attempt are started with."""

    run: Path
    world: int
    attempt: int
    restart: int
    timeout_s: float
    grace_s: float


@dataclass(slots=True)
class AttemptEnd:
    """How an attempt ended; index is the rank."""

    codes: list[int]
    """Exit codes, negative for a signal."""
    steps: tuple[int, ...]
    """The step each rank was in, -1 before its first."""
    order: list[int] = field(default_factory=list)
    """Ranks in the order in which they ended."""
    silent: list[int] = field(default_factory=list)
    """Ranks that neither worked nor ended any more."""
    killed: set[int] = field(default_factory=set)
    """Ranks ended by the launcher, which are never the cause."""
    is_forced: bool = False
    """Whether a second Ctrl-C ended it."""


def run_attempt(plan: AttemptPlan, stop: StopRequest) -> AttemptEnd:
    """Run all ranks until each has ended, passing a stop on and ending the others of a failure."""
    board = PulseBoard(plan.world)
    children: list[subprocess.Popen[bytes]] = []
    try:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen(max(128, plan.world))
            for rank in range(plan.world):
                children.append(_start(plan, rank, listener, board.fd))
        watch = _Watch(plan, children, board)
        watch.until_ended(stop)
        return watch.end
    finally:
        for child in children:
            if child.poll() is None:
                child.kill()
            child.wait()
        board.close()


def _start(
    plan: AttemptPlan, rank: int, listener: socket.socket, pulse_fd: int
) -> "subprocess.Popen[bytes]":
    env = {
        **os.environ,
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(plan.world),
        "LOCAL_WORLD_SIZE": str(plan.world),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(listener.getsockname()[1]),
        PULSE_FD: str(pulse_fd),
        RESTART_VARIABLE: str(plan.restart),
    }
    kept = [pulse_fd]
    if rank == 0:
        env[LISTEN_FD] = str(listener.fileno())
        kept.append(listener.fileno())
    with output_path(plan.run, plan.attempt, rank).open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "mmtool.engine.child", str(plan.run)],
            env=env,
            pass_fds=kept,
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # a Ctrl-C in the terminal reaches only this process
            preexec_fn=_prepare_child,
        )


def die_with_parent() -> None:
    """Have the kernel kill this process as soon as the one that started it is gone."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _prepare_child() -> None:
    """Tie the child to its parent, and hold signals back until it can note them."""
    die_with_parent()
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)


class _Watch:
    """Looks after the ranks of one attempt."""

    def __init__(
        self, plan: AttemptPlan, children: "list[subprocess.Popen[bytes]]", board: PulseBoard
    ) -> None:
        self._plan = plan
        self._children = children
        self._board = board
        self._is_told = False
        self._deadline = float("inf")
        self._moved_at = [time.monotonic()] * plan.world
        self.end = AttemptEnd([0] * plan.world, board.steps())

    def until_ended(self, stop: StopRequest) -> None:
        """Wait for every rank, killing those that do not end in time."""
        while self._note_ended():
            self._note_pulse()
            living = self._living()
            has_failed = any(self.end.codes[r] not in _GOOD_CODES for r in self.end.order)
            if stop.is_forced:
                self.end.is_forced = True
                self._kill(living)
            elif (has_failed or stop.is_set) and not self._is_told:
                self._tell(living, _AFTER_FAILURE_S if has_failed else self._plan.grace_s)
            elif self._are_hopeless(living, has_failed=has_failed):
                self._give_up_on(living)
            time.sleep(_POLL_S)
        self.end.steps = self._board.steps()

    def _note_ended(self) -> bool:
        for rank, child in enumerate(self._children):
            if rank not in self.end.order and child.poll() is not None:
                self.end.order.append(rank)
                self.end.codes[rank] = child.returncode
                # Who failed while the others were asked to save has to be dealt with anew.
                self._is_told = self._is_told and child.returncode in _GOOD_CODES
        return len(self.end.order) < len(self._children)

    def _note_pulse(self) -> None:
        steps = self._board.steps()
        for rank, step in enumerate(steps):
            if step != self.end.steps[rank]:
                self._moved_at[rank] = time.monotonic()
        self.end.steps = steps

    def _living(self) -> list[int]:
        return [rank for rank in range(self._plan.world) if rank not in self.end.order]

    def _tell(self, ranks: list[int], wait_s: float) -> None:
        self._is_told = True
        self._deadline = min(self._deadline, time.monotonic() + wait_s)
        for rank in ranks:
            self._children[rank].send_signal(signal.SIGTERM)

    def _lost_peers(self) -> bool:
        """Whether all that failed so far failed for want of a peer, which is then still here."""
        failed = [r for r in self.end.order if self.end.codes[r] not in _GOOD_CODES]
        reports = (read_report(self._plan.run, self._plan.attempt, rank) for rank in failed)
        return all(report is not None and report["kind"] == "PeerLost" for report in reports)

    def _is_stopped(self, rank: int) -> bool:
        try:
            text = Path(f"/proc/{self._children[rank].pid}/stat").read_text(encoding="utf-8")
        except OSError:
            return False
        return text.rpartition(")")[2].split()[0] in ("T", "t")

    def _are_hopeless(self, living: list[int], *, has_failed: bool) -> bool:
        """Whether the ranks that live still would not end by themselves."""
        if time.monotonic() > self._deadline or self._stand_still(living):
            return True
        return has_failed and all(self._is_stopped(rank) for rank in living)

    def _stand_still(self, living: list[int]) -> bool:
        """Whether a rank is stopped for longer than anybody waits; its peers may be as well."""
        now = time.monotonic()
        return any(
            now - self._moved_at[rank] > self._plan.timeout_s and self._is_stopped(rank)
            for rank in living
        )

    def _give_up_on(self, living: list[int]) -> None:
        has_failed = any(self.end.codes[r] not in _GOOD_CODES for r in self.end.order)
        if not has_failed or self._lost_peers():
            stopped = [rank for rank in living if self._is_stopped(rank)]
            self.end.silent = stopped or living
        self._kill(living)

    def _kill(self, living: list[int]) -> None:
        for rank in living:
            self.end.killed.add(rank)
            self._children[rank].kill()
            self._children[rank].wait()
