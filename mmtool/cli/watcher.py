"""A training run as seen from its events: what the terminal shows, and what is remembered."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from mmtool.cli.output import Output
from mmtool.cli.progress import Stage
from mmtool.runlog.events import Event

if TYPE_CHECKING:
    from mmtool.runlog.rundir import RunDir


class TrainDisplay:
    """Draw a training run from the events of its rank 0."""

    def __init__(self, output: Output, title: str) -> None:
        self._output = output
        self._title = title
        self._stage: Stage | None = None
        self._epochs = 0
        self._clips_per_s = 0.0
        self._val = ""

    def __call__(self, event: Event) -> None:
        """Take one event."""
        kind = event.get("k")
        if kind == "head":
            self._head(event)
        elif kind == "step":
            self._step(event)
        elif kind == "epoch":
            self._epoch(event)
        elif kind == "event":
            self._happening(event)

    def close(self, error: BaseException | None = None) -> None:
        """Leave the terminal as it was."""
        if self._stage is not None:
            kind = None if error is None else type(error)
            self._stage.__exit__(kind, error, None)
            self._stage = None

    def _head(self, event: Event) -> None:
        self._epochs = int(event.get("epochs") or 0)
        total = self._epochs * int(event.get("steps_per_epoch") or 0)
        self.close()
        self._stage = Stage(self._output, self._title)
        self._stage.start(total or None)

    def _step(self, event: Event) -> None:
        if self._stage is None:
            return
        step_ms = (event.get("ms") or {}).get("step")
        if step_ms and event.get("n"):
            now = 1000 * event["n"] / step_ms
            self._clips_per_s = 0.9 * self._clips_per_s + 0.1 * now if self._clips_per_s else now
        loss = event.get("loss")
        parts = [f"epoch {int(event.get('epoch', 0)) + 1}/{self._epochs}"]
        parts.append(f"loss {loss:.4f}" if loss is not None else "loss not finite")
        if self._clips_per_s:
            parts.append(f"{self._clips_per_s:,.0f} clips/s")
        if self._val:
            parts.append(self._val)
        self._stage.update(int(event.get("step", 0)) + 1, note="  ".join(parts))

    def _epoch(self, event: Event) -> None:
        if self._stage is not None and event.get("split") != "test" and event.get("step"):
            # A method may make epochs longer or shorter than the data alone would.
            done = int(event["step"])
            self._stage.update(done, round(done / (int(event["epoch"]) + 1) * self._epochs))
        if event.get("split") == "val" and event.get("acc") is not None:
            self._val = f"val {score_name(event)} {event['acc']:.3f}"
        if self._output.verbose and event.get("acc") is not None:
            score = f"{score_name(event)} {event['acc']:.4f}"
            words = f"epoch {event['epoch'] + 1} {event['split']}: {score}"
            self._say(self._output.detail, words)

    def _happening(self, event: Event) -> None:
        what = event.get("what")
        words = str(event.get("message") or event.get("text") or event.get("reason") or "")
        if what == "resume" and self._stage is not None:
            self._stage.start_at(int(event.get("step") or 0))
        elif what in ("warning", "nonfinite", "signal", "restart"):
            self._say(self._output.warning, words or f"{what} at step {event.get('step', '?')}")
        elif what == "link":
            self._say(self._output.info, words)
        elif self._output.verbose:
            self._say(self._output.detail, f"{what} {words}".rstrip())

    def _say(self, speak: Callable[[str], None], text: str) -> None:
        if self._stage is None:
            speak(text)
        else:
            self._stage.say(speak, text)


def score_name(event: Event) -> str:
    """Give the short name of what `acc` of an epoch holds."""
    metric = str(event.get("metric") or "accuracy")
    return {"accuracy": "acc", "label_accuracy": "label acc", "r2": "R^2"}.get(metric, metric)


class RunWatcher:
    """Follow one run by its events: draw it, and remember its path and last scores."""

    def __init__(self, output: Output, title: str, root: Path) -> None:
        self._output = output
        self._root = root
        self._display = TrainDisplay(output, title)
        self._val: dict[int, float] = {}
        self.run_path: Path | None = None
        self.accuracy: dict[str, float] = {}
        """Score by split; accuracy unless `metric` says otherwise."""
        self.metric = "accuracy"

    def __call__(self, event: Event) -> None:
        """Take one event."""
        kind = event.get("k")
        if kind == "head" and self.run_path is None:
            self.run_path = self._root / str(event.get("run", ""))
            self._output.run_path = self.run_path
            self._output.info(f"run: {self.run_path}")
        elif kind == "epoch" and event.get("acc") is not None:
            self._remember(event)
        self._display(event)

    def _remember(self, event: Event) -> None:
        self.metric = str(event.get("metric") or self.metric)
        epoch, split, accuracy = int(event["epoch"]), event["split"], float(event["acc"])
        if split == "val":
            self._val[epoch] = self.accuracy["val"] = accuracy
        elif split == "test":
            self.accuracy["test"] = accuracy
            # The test epoch is the one whose weights were selected.
            if epoch in self._val:
                self.accuracy["val"] = self._val[epoch]

    def __enter__(self) -> "RunWatcher":
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._display.close(error)


def link_watcher(output: Output) -> "Callable[[RunDir], RunWatcher]":
    """Give what watches the runs that another run builds on, each under its own name."""
    return lambda run: RunWatcher(output, run.name, run.path.parent)
