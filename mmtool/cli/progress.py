"""How far the work is: a bar on a terminal, sparse lines anywhere else, always on stderr."""

import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING

from mmtool.cli.output import Output
from mmtool.text import human_seconds

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

LINE_EVERY_S = 30.0
LINE_EVERY_SHARE = 0.05
REDRAWS_PER_SECOND = 4


class LinePolicy:
    """Decide when a line is due: after 30 s and 5 % of the work, whichever comes later."""

    def __init__(self, total: int | None, now: float) -> None:
        self.total = total
        self._last_time = now
        self._last_done = 0

    def due(self, done: int, now: float) -> bool:
        """Tell whether to print now, and remember that it was printed."""
        enough_work = self.total is None or done - self._last_done >= LINE_EVERY_SHARE * self.total
        if now - self._last_time < LINE_EVERY_S or not enough_work:
            return False
        self._last_time, self._last_done = now, done
        return True


class Stage:
    """One stage of work with a title, used as a context manager."""

    def __init__(
        self,
        output: Output,
        title: str,
        total: int | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._output = output
        self._title = title
        self._total = total
        self._clock = clock
        self._done = self._first = 0
        self._note = ""
        self._is_started = False
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._began = self._last_draw = 0.0
        self._lines = LinePolicy(total, 0.0)

    def __enter__(self) -> "Stage":
        return self

    def start(self, total: int | None) -> None:
        """Show that work begins; without it the first update does, so a refusal shows nothing."""
        self._is_started = True
        self._total = total
        self._began = self._last_draw = self._clock()
        self._lines = LinePolicy(total, self._began)
        if self._output.quiet:
            return
        if self._output.stderr_is_terminal():
            self._open_bar()
        else:
            of = f", {total:,} to do" if total else ""
            self._output.info(f"{self._title}: started{of}")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
        if not self._is_started:
            return
        took = human_seconds(self._clock() - self._began)
        state = "done" if kind is None else "stopped"
        self._output.info(f"{self._line()}: {state} in {took}")

    def update(self, done: int, total: int | None = None, note: str = "") -> None:
        """Show how much is done so far."""
        if not self._is_started:
            self.start(self._total if total is None else total)
        elif total is not None:
            self._total = self._lines.total = total
        self._done, self._note = done, note or self._note
        if self._output.quiet:
            return
        now = self._clock()
        if self._bar is not None:
            self._redraw(now)
        elif self._lines.due(done, now):
            self._output.info(f"{self._line()}{self._remaining(now)}")

    def start_at(self, done: int) -> None:
        """Begin part-way, after a resume, so that the remaining time is not underestimated."""
        self._first = self._done = done

    def say(self, speak: Callable[[str], None], text: str) -> None:
        """Print a line above the bar."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
            speak(text)
            self._open_bar()
        else:
            speak(text)

    def _line(self) -> str:
        of = f" {self._done:,}/{self._total:,}" if self._total else f" {self._done:,}"
        return f"{self._title}{of}" + (f"  {self._note}" if self._note else "")

    def _remaining(self, now: float) -> str:
        moved = self._done - self._first
        if not self._total or moved <= 0:
            return ""
        left_s = (now - self._began) / moved * max(self._total - self._done, 0)
        return f"  {human_seconds(left_s)} left"

    def _open_bar(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        colored = self._output.style("x", "red", stream=self._output.stderr) != "x"
        console = Console(
            file=self._output.stderr,
            markup=False,
            highlight=False,
            emoji=False,
            force_terminal=True,
            color_system="standard" if colored else None,
        )
        # Redrawn by `update`, not by a thread: a launch may fork worker processes.
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            console=console,
            auto_refresh=False,
            transient=True,
        )
        self._bar.start()
        self._task = self._bar.add_task(
            self._title, total=self._total, completed=self._done, note=self._note
        )
        self._bar.refresh()

    def _redraw(self, now: float) -> None:
        if self._bar is None or self._task is None:
            return
        if now - self._last_draw < 1 / REDRAWS_PER_SECOND:
            return
        self._last_draw = now
        note = f"{self._note}{self._remaining(now)}"
        self._bar.update(self._task, completed=self._done, total=self._total, note=note)
        self._bar.refresh()
