"""Several ranks to their end, over as many attempts as that takes and the recipe allows."""

import os
import time
from typing import Any

from mmtool.config.schema import Recipe
from mmtool.engine.attempt import read_launch
from mmtool.engine.children import AttemptEnd, AttemptPlan, run_attempt
from mmtool.engine.stop import StopRequest
from mmtool.engine.verdict import Verdict, judge
from mmtool.errors import MmtoolError
from mmtool.runlog.rundir import RunDir


def supervise(run: RunDir, recipe: Recipe) -> None:
    """Run all ranks of a run; raise the first cause when they cannot reach its end."""
    limit, restart, reached = max_restarts(recipe), 0, -1
    with StopRequest(ends_process=False) as stop:
        while True:
            attempt = int(read_launch(run.path)["attempt"])
            plan = AttemptPlan(
                run=run.path,
                world=recipe.launch.gpus,
                attempt=attempt,
                restart=restart,
                timeout_s=recipe.launch.timeout_s,
                grace_s=recipe.launch.grace_s,
            )
            started = time.monotonic()
            end = run_attempt(plan, stop)
            verdict = judge(run.path, attempt, end)
            _note_attempt(run, attempt, end, verdict, time.monotonic() - started)
            if verdict is None:
                return
            is_allowed = verdict.can_restart and restart < limit and not stop.is_set
            # Without a new step the next attempt would end where this one did.
            if not is_allowed or max(end.steps) <= reached:
                raise _explained(verdict, restart, is_allowed=is_allowed)
            restart, reached = restart + 1, max(end.steps)
            begin_attempt(run, restart={"number": restart, "reason": verdict.error.what})
            run.write_status(state="running", reason=f"restarted: {verdict.error.what}")


def max_restarts(recipe: Recipe) -> int:
    """Give how often a run may be restarted by itself."""
    wanted = recipe.launch.max_restarts
    return wanted if wanted is not None else int("SLURM_JOB_ID" in os.environ)


def begin_attempt(run: RunDir, **fields: Any) -> int:
    """Tell the ranks about their next attempt, which continues from the last checkpoint."""
    launch = read_launch(run.path)
    attempt = int(launch["attempt"]) + 1
    is_resumed = any(run.ckpt_dir.glob("step[0-9]*"))
    kept = {"data_root": launch["data_root"], "attempt": attempt, "is_resumed": is_resumed}
    if launch.get("may_change"):
        kept["may_change"] = True
    if "teachers" in launch:
        kept["teachers"] = launch["teachers"]
    run.write_launch({**kept, **fields})
    return attempt


def _note_attempt(
    run: RunDir, attempt: int, end: AttemptEnd, verdict: Verdict | None, seconds: float
) -> None:
    """Keep in status.json how an attempt ended."""
    earlier = run.read_status().get("attempts", [])
    error = None if verdict is None else verdict.error
    facts = {
        "attempt": attempt,
        "reason": "" if error is None else error.what,
        "exit_code": 0 if error is None else error.exit_code,
        "rank": None if verdict is None else verdict.rank,
        "step": max(end.steps),
        "seconds": round(seconds, 3),
    }
    run.write_status(attempts=[*earlier, facts], attempt=attempt, rank=facts["rank"])


def _explained(verdict: Verdict, restart: int, *, is_allowed: bool) -> MmtoolError:
    """Say why a failure that restarts are meant for was not restarted any more."""
    error = verdict.error
    if verdict.can_restart and restart:
        times = f"after {restart} restart{'s' if restart > 1 else ''}"
        reason = times if not is_allowed else f"{times}, the last of which made no new step"
        error.why = f"{error.why}; {reason}" if error.why else reason
    return error
