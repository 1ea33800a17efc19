"""From a path to a run that can be logged."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from mmtool.errors import RequestError
from mmtool.log.run import RunLog
from mmtool.log.steps import as_plain
from mmtool.runlog.env import describe_environment
from mmtool.runlog.events import SCHEMA
from mmtool.runlog.rundir import RunDir, make_run, point_latest
from mmtool.runlog.writer import EventWriter

SYSTEM_EVERY_S = 1.0
_PLAIN = (str, int, float, list, dict, type(None))


def start(
    path: Path | str,
    *,
    modalities: Sequence[str],
    classes: int | Sequence[str] | None = None,
    system: bool = True,
    rank: int | None = None,
    **about: Any,
) -> RunLog:
    """Begin, or continue, the run directory `path`; use it as a context manager.

    `classes` is their number or their names. `about` is whatever else is known of the run and the
    report can show: dataset, method, fusion, epochs, batch_size, seed. Of several processes each
    logs under its `rank`, which is `RANK` of the environment unless given. With `system` a thread
    samples CPU, memory and GPUs once a second.
    """
    names = [str(name) for name in modalities]
    if not names or len(set(names)) < len(names):
        raise RequestError(
            f"the modalities of a run need distinct names, these were given: {names}",
            fix='mmtool.log.start("runs/x", modalities=["audio", "video"])',
        )
    listed = [str(c) for c in (range(classes) if isinstance(classes, int) else classes or ())]
    own_rank = int(os.environ.get("RANK") or 0) if rank is None else rank
    run = make_run(Path(path))
    with ExitStack() as resources:
        attempt = _num_attempts(run.log_path(own_rank)) + 1
        if own_rank == 0:
            _take(run, attempt, resources)
        writer = resources.enter_context(EventWriter(run.log_path(own_rank)))
        facts = {
            "schema": SCHEMA,
            "run": run.name,
            "rank": own_rank,
            "world": int(os.environ.get("WORLD_SIZE") or 1),
            "attempt": attempt,
            "modalities": sorted(names),
            "classes": listed,
            "source": "mmtool.log",
        }
        writer.write("head", **_plain(about) | facts)
        if system:
            _sample_system(run, own_rank, resources)
        return RunLog(run, writer, resources.pop_all(), names, listed, own_rank)


def _take(run: RunDir, attempt: int, resources: ExitStack) -> None:
    """Keep other processes out and say that the run is under way."""
    resources.enter_context(run.lock())
    run.write_env(describe_environment(sys.argv))
    run.write_status(state="running", reason="", attempt=attempt, pid=os.getpid(), resumable=False)
    point_latest(run.path.parent, run)


def _num_attempts(log: Path) -> int:
    """Count the attempts before this one in the rank's own log, which no other rank writes."""
    if not log.is_file():
        return 0
    with log.open("rb") as file:
        return sum(line.startswith(b'{"k":"head"') for line in file)


def _plain(about: Mapping[str, Any]) -> dict[str, Any]:
    known = {key: as_plain(value) for key, value in about.items()}
    return {key: v if isinstance(v, _PLAIN) else str(v) for key, v in known.items()}


def _sample_system(run: RunDir, rank: int, resources: ExitStack) -> None:
    from mmtool.runlog.system import SystemSampler

    writer = resources.enter_context(EventWriter(run.system_log_path(rank), fsync_kinds=()))
    resources.enter_context(SystemSampler(partial(writer.write, "sys"), SYSTEM_EVERY_S))
