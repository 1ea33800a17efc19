"""What the batch script of a SLURM job asks: which run is mine, and shall I queue again.

python -m mmtool.engine.batch element RUNS.json INDEX          prints the path of the run
python -m mmtool.engine.batch requeue RUN CODE RESTARTS SECONDS    0: queue again, 1: do not
"""

import json
import sys
from pathlib import Path
from typing import Any

from mmtool.config.load import load_recipe
from mmtool.engine.attempt import read_launch, read_report
from mmtool.engine.supervise import max_restarts
from mmtool.errors import RankSilent, StoppedResumable
from mmtool.runlog.rundir import RunDir, replace_text

_MOST_RESTARTS = 50
_LEAST_STEPS, _LEAST_SECONDS = 10, 60
_FORCED = 130


def requeue(run: RunDir, code: int, num_restarts: int, seconds: int) -> tuple[bool, str]:
    """Tell whether a job that ended with `code` is to queue again, and why."""
    if code == 0:
        return False, "done"
    is_stop = code == StoppedResumable.exit_code
    if not is_stop and not _has_machine_failed(run, code):
        return False, f"exit code {code} is an error that would come again"
    if num_restarts >= _MOST_RESTARTS:
        return False, f"the job has been queued {num_restarts} times"
    earlier = _read(run)
    saved = _saved_step(run)
    gained = saved - (earlier[-1]["step"] if earlier else 0)
    is_enough = gained >= _LEAST_STEPS or (gained > 0 and seconds >= _LEAST_SECONDS)
    if not is_enough:
        return False, f"only {max(0, gained)} steps were gained since the last time"
    if not is_stop:
        num_failures = sum(entry["code"] != StoppedResumable.exit_code for entry in earlier)
        limit = max_restarts(load_recipe(str(run.resolved_path)).recipe)
        if num_failures >= limit:
            return False, f"it failed {num_failures + 1} times, launch.max_restarts is {limit}"
    entry = {"step": saved, "code": code, "restart": num_restarts}
    replace_text(_file(run), json.dumps([*earlier, entry], indent=1) + "\n")
    return True, f"{gained} steps were gained and saved"


def _has_machine_failed(run: RunDir, code: int) -> bool:
    if code == RankSilent.exit_code or (code > 128 and code != _FORCED):
        return True
    report = read_report(run.path, int(read_launch(run.path)["attempt"]), 0)
    return report is not None and report["kind"] == "PeerLost"


def _saved_step(run: RunDir) -> int:
    return max(
        (int(p.name.removeprefix("step")) for p in run.ckpt_dir.glob("step[0-9]*")), default=0
    )


def _file(run: RunDir) -> Path:
    return run.path / "requeues.json"


def _read(run: RunDir) -> list[dict[str, Any]]:
    try:
        entries: list[dict[str, Any]] = json.loads(_file(run).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    return entries


def main(arguments: list[str]) -> int:
    """Answer the script."""
    question, path, *rest = arguments
    if question == "element":
        runs = json.loads(Path(path).read_text(encoding="utf-8"))
        sys.stdout.write(f"{runs[int(rest[0])]}\n")
        return 0
    code, num_restarts, seconds = map(int, rest)
    is_wanted, why = requeue(RunDir(Path(path)), code, num_restarts, seconds)
    words = "queued again" if is_wanted else "not queued again"
    sys.stdout.write(f"mmtool: exit code {code}, {words}: {why}\n")
    return 0 if is_wanted else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
