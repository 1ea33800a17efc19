"""What launcher and ranks of one attempt tell each other through the run directory."""

import json
import time
import traceback
from pathlib import Path
from typing import Any

from mmtool.errors import MmtoolError, WorkFailed, foreseen

NUM_TRACE_LINES = 20
"""How much of a traceback an error shows."""


def read_launch(run: Path) -> dict[str, Any]:
    """Give what the launcher told the ranks of the current attempt."""
    launch: dict[str, Any] = json.loads((run / "launch.json").read_text(encoding="utf-8"))
    return launch


def report_path(run: Path, attempt: int, rank: int) -> Path:
    """Give the file in which a rank of an attempt reports its failure."""
    return run / "log" / f"attempt{attempt}.rank{rank}.error.json"


def output_path(run: Path, attempt: int, rank: int) -> Path:
    """Give the file that holds what a rank of an attempt printed."""
    return run / "log" / f"attempt{attempt}.rank{rank}.out"


def failure(error: BaseException) -> tuple[int, dict[str, Any]]:
    """Give the exit code for an exception and its report; times compare within one machine."""
    now, known = time.monotonic(), foreseen(error)
    if known is not None:
        code = known.exit_code
        return code, {**known.as_dict(), "trace": "", "code": code, "time": now}
    trace = "".join(traceback.format_exception(error))
    about = {"kind": type(error).__name__, "what": str(error), "trace": trace}
    return WorkFailed.exit_code, {**about, "code": WorkFailed.exit_code, "time": now}


def failed(error: BaseException, *, where: str) -> MmtoolError:
    """Give the error of training in this very process, with the code it has in a child.

    An exception that nobody foresaw may come from a recipe's own method or encoder, from torch or
    from the data: it is the work that failed. A bug is what mmtool itself recognises as one.
    """
    known = foreseen(error)
    if known is not None:
        return known
    lines = "".join(traceback.format_exception(error)).rstrip().splitlines()
    why = "\n".join(lines[-NUM_TRACE_LINES:])
    return WorkFailed(f"{type(error).__name__}: {error}", where=where, why=why)


def write_report(run: Path, rank: int, report: dict[str, Any]) -> None:
    """Leave a failure report in the run directory, whole or not at all."""
    target = report_path(run, int(read_launch(run)["attempt"]), rank)
    fresh = target.with_suffix(".partial")
    fresh.write_text(json.dumps(report), encoding="utf-8")
    fresh.replace(target)


def read_report(run: Path, attempt: int, rank: int) -> dict[str, Any] | None:
    """Give the failure report of a rank, None where it left none."""
    try:
        report = json.loads(report_path(run, attempt, rank).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return report if isinstance(report, dict) else None
