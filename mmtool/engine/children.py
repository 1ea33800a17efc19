"""Several ranks on this machine: child processes that die with this one.

They share a listening socket opened here, so no port can clash. Signals are passed on, and the
error of the rank that failed first is the one reported.
"""

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import time
from typing import Any

from mmtool.engine.distributed import LISTEN_FD
from mmtool.engine.stop import StopRequest
from mmtool.errors import (
    Bug,
    EnvironmentLacks,
    MmtoolError,
    RequestError,
    StoppedResumable,
    WorkFailed,
)
from mmtool.runlog.rundir import RunDir

_GRACE_S = 30.0
_POLL_S = 0.05
_PR_SET_PDEATHSIG = 1


def _die_with_parent() -> None:
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def run_children(run: RunDir, world: int) -> None:
    """Start one process per rank, pass signals on, and explain the first failure."""
    for old in run.path.glob("error.rank*.json"):
        old.unlink()
    with StopRequest() as stop, socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(128)
        port = listener.getsockname()[1]
        children: list[subprocess.Popen[bytes]] = []
        try:
            for rank in range(world):
                children.append(_start_child(run, rank, world, port, listener))
            _wait(children, stop)
        finally:
            for child in children:
                if child.poll() is None:
                    child.kill()
                child.wait()
    codes = [child.returncode for child in children]
    if any(codes):
        raise _first_failure(run, codes)


def _start_child(
    run: RunDir, rank: int, world: int, port: int, listener: socket.socket
) -> "subprocess.Popen[bytes]":
    env = {
        **os.environ,
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(world),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    kept: tuple[int, ...] = ()
    if rank == 0:
        env[LISTEN_FD] = str(listener.fileno())
        kept = (listener.fileno(),)
    with (run.log_dir / f"rank{rank}.out").open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "mmtool.engine.rank", str(run.path)],
            env=env,
            pass_fds=kept,
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # a Ctrl-C in the terminal reaches only this process
            preexec_fn=_die_with_parent,
        )


def _wait(children: "list[subprocess.Popen[bytes]]", stop: StopRequest) -> None:
    """Wait for all ranks; forward a stop once, and end the others when one has failed."""
    is_told, deadline = False, float("inf")
    while any(child.poll() is None for child in children):
        failed = any(child.poll() not in (None, 0, 75) for child in children)
        if (stop.is_set or failed) and not is_told:
            is_told, deadline = True, time.monotonic() + _GRACE_S
            for child in children:
                if child.poll() is None:
                    child.send_signal(signal.SIGTERM)
        if time.monotonic() > deadline:
            return
        time.sleep(_POLL_S)


def _first_failure(run: RunDir, codes: list[int]) -> MmtoolError:
    """Give the error of the rank that failed first; a lost peer is never the first cause."""
    reports = []
    for rank, code in enumerate(codes):
        path = run.path / f"error.rank{rank}.json"
        if path.is_file():
            reports.append((rank, json.loads(path.read_text(encoding="utf-8"))))
        elif code < 0:
            name = signal.Signals(-code).name
            hint = "the kernel's or the scheduler's memory limit?" if name == "SIGKILL" else ""
            killed = WorkFailed(
                f"rank {rank} was killed by {name}",
                why=hint,
                fix=f"mmtool train --resume {run.path}",
            )
            killed.exit_code = 128 - code
            return killed
    causes = [r for r in reports if r[1]["kind"] not in ("PeerLost", "StoppedResumable")]
    rank, report = min(causes or reports, key=lambda r: r[1]["time"])
    return _rebuilt(rank, report, run, codes[rank])


def _rebuilt(rank: int, report: dict[str, Any], run: RunDir, code: int) -> MmtoolError:
    texts = {k: report.get(k, "") for k in ("where", "why", "fix")}
    if report["kind"] == "StoppedResumable":
        return StoppedResumable(report["what"], **texts)
    if report.get("trace"):
        texts["why"] = str(report["trace"])
    known = {c.exit_code: c for c in (WorkFailed, RequestError, EnvironmentLacks, Bug)}
    error = known.get(code, WorkFailed)(f"rank {rank}: {report['what']}", **texts)
    error.where = error.where or str(run.log_dir / f"rank{rank}.out")
    return error
