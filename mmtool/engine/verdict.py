"""Why an attempt failed: the first cause among what several ranks report, in words."""

import signal
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmtool.engine.attempt import NUM_TRACE_LINES, output_path, read_report
from mmtool.engine.children import AttemptEnd
from mmtool.errors import Killed, MmtoolError, RankSilent, StoppedResumable, WorkFailed

_CONSEQUENCES = ("PeerLost", "StoppedResumable")
_CAUSES = {
    int(signal.SIGKILL): "the kernel's or the scheduler's memory limit?",
    int(signal.SIGBUS): "was a file of the dataset cut short while it was read?",
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """The failure of an attempt."""

    error: MmtoolError
    rank: int | None
    can_restart: bool
    """Whether the machine failed rather than the program, so that another attempt may succeed."""


def judge(run: Path, attempt: int, end: AttemptEnd) -> Verdict | None:
    """Give why an attempt did not reach its end, None when it did."""
    if end.is_forced:
        forced = Killed("the run was killed by a second Ctrl-C", signal.SIGINT, fix=_resume(run))
        return Verdict(forced, None, can_restart=False)
    reports = {r: read_report(run, attempt, r) for r in end.order}
    for rank in _causes_first(end, reports):
        report = reports[rank]
        # What a rank reported counts, whatever ended its process after that.
        code = int((report or {}).get("code", end.codes[rank]))
        if code < 0:
            return Verdict(_killed(run, attempt, rank, -code), rank, can_restart=True)
        if report is None:
            return Verdict(_wordless(run, attempt, rank, code), rank, can_restart=False)
        if report["kind"] not in _CONSEQUENCES:
            return Verdict(rebuilt(run, attempt, rank, report, code), rank, can_restart=False)
    if end.silent:
        rank = min(end.silent, key=lambda r: end.steps[r])
        return Verdict(_silent(run, attempt, rank, end.steps[rank]), rank, can_restart=True)
    for kind in _CONSEQUENCES:
        for rank in end.order:
            report = reports[rank]
            if report is not None and report["kind"] == kind:
                error = rebuilt(run, attempt, rank, report, end.codes[rank])
                return Verdict(error, rank, can_restart=kind == "PeerLost")
    return None


def _causes_first(end: AttemptEnd, reports: dict[int, dict[str, Any] | None]) -> list[int]:
    """Give the ranks that failed by themselves, in the order in which that happened."""
    failed = [r for r in end.order if end.codes[r] and r not in end.killed]

    def is_cause(rank: int) -> bool:
        report = reports[rank]
        return report is None or report["kind"] not in _CONSEQUENCES

    def was_told_to_end(rank: int) -> bool:
        return reports[rank] is None and end.codes[rank] == -signal.SIGTERM

    # A rank that reports an error may end later than a peer that fails because of it, and one that
    # was told to end because of another's failure is hardly the first cause.
    return sorted(filter(is_cause, failed), key=was_told_to_end)


def _killed(run: Path, attempt: int, rank: int, number: int) -> Killed:
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = f"signal {number}"
    why = _CAUSES.get(number) or _tail(run, attempt, rank)
    where = str(output_path(run, attempt, rank))
    return Killed(
        f"rank {rank} was killed by {name}", number, where=where, why=why, fix=_resume(run)
    )


def _wordless(run: Path, attempt: int, rank: int, code: int) -> WorkFailed:
    error = WorkFailed(
        f"rank {rank} ended with exit code {code} and no explanation",
        where=str(output_path(run, attempt, rank)),
        why=_tail(run, attempt, rank),
        fix=_resume(run),
    )
    error.exit_code = code
    return error


def _silent(run: Path, attempt: int, rank: int, step: int) -> RankSilent:
    since = f"since step {step}" if step >= 0 else "since before its first step"
    return RankSilent(
        f"rank {rank} silent {since}",
        where=str(output_path(run, attempt, rank)),
        why="the process lived but did nothing: stopped, swapped out, or waiting for a file system",
        fix=_resume(run),
    )


def rebuilt(run: Path, attempt: int, rank: int, report: dict[str, Any], code: int) -> MmtoolError:
    """Give the error a rank has reported, to be raised in another process."""
    texts = {k: str(report.get(k, "")) for k in ("where", "why", "fix")}
    if report["kind"] == "StoppedResumable":
        return StoppedResumable(report["what"], **texts)
    trace = str(report.get("trace", "")).rstrip()
    if trace:
        texts["why"] = "\n".join(trace.splitlines()[-NUM_TRACE_LINES:])
    what = f"rank {rank}: {report['kind']}: {report['what']}" if trace else report["what"]
    error = WorkFailed(what if trace else f"rank {rank}: {what}", **texts)
    error.exit_code = code
    error.where = error.where or str(output_path(run, attempt, rank))
    return error


def _tail(run: Path, attempt: int, rank: int) -> str:
    try:
        with output_path(run, attempt, rank).open(encoding="utf-8", errors="replace") as output:
            return "".join(deque(output, maxlen=NUM_TRACE_LINES)).rstrip()
    except OSError:
        return ""


def _resume(run: Path) -> str:
    return f"mmtool train --resume {run}"
