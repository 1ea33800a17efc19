"""The run has not reached its end.

A run that was killed leaves no end line; everything up to the last complete line is still read, and
the report is about that part only.
"""

from __future__ import annotations

from mmtool.diagnose.facts import Facts
from mmtool.diagnose.finding import Finding
from mmtool.diagnose.rules._advice import run_argument

ORDER = 60


def check(facts: Facts) -> Finding | None:
    """Say that the report covers a part of the planned training, and how to continue."""
    run = facts.run
    if run.finished:
        return None
    status, end = run.tables.status, run.tables.end or {}
    state = str(end.get("status") or status.get("state") or "unknown")
    reason = str(end.get("reason") or status.get("reason") or "")
    epochs = run.tables.epochs
    done = int(epochs["epoch"].max()) + 1 if not epochs.empty else 0
    planned = run.tables.head.get("epochs")
    if state in ("failed", "stopped"):
        story = f"the run {'failed' if state == 'failed' else 'was stopped'}"
    else:
        story = "the log has no end line: the run is still going or was killed"
    of_planned = f" of {planned}" if planned else ""
    return Finding(
        rule="unfinished",
        severity="error" if state == "failed" else "info",
        what=f"{story}{f' ({reason})' if reason else ''}; the report covers {done}{of_planned} "
        f"epochs",
        evidence={
            "state": state,
            "epochs_done": done,
            "epochs_planned": planned,
            "last_step": status.get("step"),
        },
        advice=f"mmtool train --resume {run_argument(run)}" if run.recipe_text else "",
    )
