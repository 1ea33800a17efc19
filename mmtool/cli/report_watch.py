"""The report of a running job, drawn anew every second until the job ends."""

import os
import socket
import sys
import time
from collections import deque
from pathlib import Path
from typing import Any

from mmtool.cli.output import Output
from mmtool.cli.report_panel import (
    MOST_COLUMNS,
    console_for,
    modalities_view,
    verdict_panel,
)
from mmtool.diagnose.api import diagnose
from mmtool.diagnose.report.text_style import TextStyle, sparkline
from mmtool.diagnose.report.views import Plain, mapping
from mmtool.diagnose.steady import SteadyVerdict, judgement_of
from mmtool.errors import MmtoolError
from mmtool.runlog.rundir import RunDir
from mmtool.runlog.tail import Tail
from mmtool.text import human_seconds

EVERY_S = 1.0
NUM_RECENT = 200


class WatchedRun:
    """One run as it goes on: its latest steps from the log's tail, its report at each epoch."""

    def __init__(self, path: Path) -> None:
        self.run = RunDir(path)
        self._tail = Tail(self.run.log_path(0))
        self._verdict = SteadyVerdict()
        self._steps: deque[Plain] = deque(maxlen=NUM_RECENT)
        self._head: Plain = {}
        self._is_due = True
        self._next_judgement = 0.0
        self.report: dict[str, Any] | None = None
        """Of the newest epoch."""
        self.shown: dict[str, Any] | None = None
        """Of the newest epoch whose verdict is the one that holds."""
        self.trouble = ""

    def is_running(self) -> bool:
        """Tell whether the job may still write: a dead one keeps a status that says running."""
        status = self.run.read_status()
        if status.get("state") not in ("running", "queued"):
            return False
        if status["state"] == "queued" or status.get("host") != socket.gethostname():
            return True
        return _is_alive(status.get("pid"))

    def look(self) -> None:
        """Read what is new; judge again where an epoch was validated."""
        for event in self._tail.read():
            kind = event.get("k")
            if kind == "step":
                self._steps.append(event)
            elif kind == "head":
                self._head = event
            self._is_due |= kind in ("epoch", "end")
        if self._is_due and time.monotonic() >= self._next_judgement:
            self._is_due = False
            began = time.monotonic()
            self.judge()
            # Of a long log judging takes seconds: watching takes no more than a fifth of a core.
            self._next_judgement = time.monotonic() + 4 * (time.monotonic() - began)

    def judge(self) -> None:
        """Diagnose the run as it is now."""
        first = self.report is None
        try:
            report = diagnose([self.run.path]).as_dict()
            self.trouble = ""
        except MmtoolError as error:
            self.trouble = error.what
            return
        epoch = mapping(report["metrics"].get("balance")).get("epoch")
        if isinstance(epoch, int):
            for before in range(max(epoch - 2, 0), epoch) if first else ():
                self._look_back(before)
            self._verdict.see(epoch, judgement_of(report))
        self.report = report
        if self._verdict.held in (None, judgement_of(report)) or self.shown is None:
            self.shown = report

    def _look_back(self, epoch: int) -> None:
        """Let the epochs count that went by before anybody watched."""
        try:
            report = diagnose([self.run.path], epoch=epoch).as_dict()
        except MmtoolError:
            return
        self._verdict.see(epoch, judgement_of(report))

    def lines(self, style: TextStyle) -> list[str]:
        """Say how far the job is and how its last steps went."""
        status = self.run.read_status()
        said = [f"{self.run.name}: {status.get('state') or 'not started'}"]
        if self._steps:
            last = self._steps[-1]
            planned = self._head.get("epochs") or mapping((self.report or {}).get("meta")).get(
                "epochs"
            )
            of_planned = f" of {planned}" if planned else ""
            said.append(f"epoch {last.get('epoch')}{of_planned}, step {last.get('step')}")
            said.append(_recent("loss", [e.get("loss") for e in self._steps], "{:.4g}", style))
            times = [mapping(e.get("ms")).get("step") for e in self._steps]
            said.append(_recent("step ms", times, "{:.1f}", style))
            at = last.get("t")
            if isinstance(at, int | float) and (quiet := time.time() - at) > 60:
                said.append(f"last line {human_seconds(quiet)} ago")
        told = f"verdict: {self._verdict.words}" if self.report else "waiting for the first epoch"
        return [*said, told, *([f"not read: {self.trouble}"] if self.trouble else [])]


def _is_alive(pid: Any) -> bool:
    if not isinstance(pid, int):
        return True
    try:
        os.kill(pid, 0)
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except ProcessLookupError:
        return False
    except OSError:
        return True
    # A process that has ended and that nobody has waited for is still listed.
    return stat.rpartition(")")[2].split()[0] not in ("Z", "X")


def _recent(name: str, values: list[Any], form: str, style: TextStyle) -> str:
    known = [float(v) for v in values if isinstance(v, int | float)]
    if not known:
        return f"{name} unknown"
    drawn = sparkline(known, unicode=style.unicode, low=min(known), high=max(known))
    return f"{name} {drawn} {form.format(known[-1])}"


def watch(output: Output, paths: list[Path]) -> list[dict[str, Any]]:
    """Draw until every job has ended or the person has seen enough; give the last reports."""
    from rich.live import Live

    style = TextStyle(min(output.width(), MOST_COLUMNS), output.is_unicode(), output.is_colored())
    watched = [WatchedRun(path) for path in paths]
    console = console_for(sys.stdout, style, is_live=True)
    try:
        # Drawn by this loop, not by a thread: one view is never drawn while it is being made.
        with Live(console=console, auto_refresh=False, transient=True) as live:
            while True:
                is_running = any(run.is_running() for run in watched)
                for run in watched:
                    run.look()
                live.update(view(watched, style), refresh=True)
                if not is_running:
                    break
                time.sleep(EVERY_S)
    except KeyboardInterrupt:
        output.info("stopped watching; the job goes on")
    for run in watched:
        run.judge()
    return [run.report for run in watched if run.report is not None]


def view(watched: list[WatchedRun], style: TextStyle) -> Any:
    """Give what stands on the screen now."""
    from rich.console import Group
    from rich.text import Text

    parts: list[Any] = []
    for run in watched:
        parts += [
            Text(style.clean(line), no_wrap=True, overflow="crop") for line in run.lines(style)
        ]
        if run.shown is not None and run.report is not None:
            parts += [verdict_panel(run.shown, style), *modalities_view(run.report, style)]
    parts.append(Text("Ctrl-C stops watching; the job goes on", style="dim"))
    return Group(*parts)
