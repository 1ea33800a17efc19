"""A run that is logged from somebody's own training loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from mmtool.errors import RequestError
from mmtool.log.steps import Steps, as_plain
from mmtool.runlog.rundir import RunDir
from mmtool.runlog.writer import EventWriter

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from mmtool.log.probes import Probes


class RunLog:
    """What a training loop tells of itself; made by `mmtool.log.start`."""

    def __init__(
        self,
        run: RunDir,
        writer: EventWriter,
        resources: ExitStack,
        modalities: Sequence[str],
        classes: Sequence[str],
        rank: int,
    ) -> None:
        self._run = run
        self._writer = writer
        self._resources = resources
        self._modalities = tuple(modalities)
        self._classes = tuple(classes)
        self._rank = rank
        self._is_open = True
        self._steps = Steps(partial(self._write, "step"))
        self._probes: Probes | None = None
        self._epoch = 0
        self._epochs_of_train: set[int] = set()

    @property
    def path(self) -> Path:
        """The run directory."""
        return self._run.path

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of the modalities."""
        return self._modalities

    @property
    def is_open(self) -> bool:
        """Whether the run can still be written."""
        return self._is_open

    @contextmanager
    def step(
        self, number: int, *, n: int | None = None, epoch: int | None = None
    ) -> Iterator[Self]:
        """Measure one step of training: `number` counts from 0 over all epochs, `n` its samples."""
        self.begin_step(number, n=n, epoch=epoch)
        try:
            yield self
        except BaseException:
            self._steps.abandon()
            raise
        self.end_step()

    def begin_step(self, number: int, *, n: int | None = None, epoch: int | None = None) -> None:
        """Begin a step in a loop that has no place for a `with`."""
        self._epoch = self._epoch if epoch is None else epoch
        self._steps.begin(number, {"epoch": self._epoch, "n": n})

    def end_step(self) -> None:
        """End the step that was begun and log it."""
        self._steps.end()

    def phase(self, name: str) -> AbstractContextManager[None]:
        """Measure a part of a step: data, transfer, forward, backward, sync, optimizer or another.

        What is measured between two steps belongs to the later one. Phases do not nest.
        """
        return self._steps.phase(name)

    def add_ms(self, phase: str, ms: float) -> None:
        """Add milliseconds that were measured elsewhere to a phase."""
        self._steps.add_ms(phase, ms)

    def record(self, **values: Any) -> None:
        """Note numbers of the step: loss, lr, gnorm, terms={name: loss}, or any others."""
        self._steps.record(values)

    def modality(
        self, name: str, *, features: Any = None, labels: Any = None, **values: Any
    ) -> None:
        """Show a modality's features of this batch to its probe, and note numbers of it.

        The probe is a linear classifier with an optimiser of its own; no gradient of it reaches
        the encoder. `labels` are class numbers.
        """
        self._check_modality(name)
        if features is not None:
            if labels is None:
                raise RequestError(f"{name}: features were given without labels")
            values = {**self._probe_heads().train(name, features, labels), **values}
        self._steps.modality(name, values)

    def epoch(
        self,
        number: int,
        *,
        split: str = "val",
        features: Mapping[str, Any] | None = None,
        labels: Any = None,
        fuse: Callable[[Mapping[str, Any]], Any] | None = None,
        n: int | None = None,
        modalities: Mapping[str, Mapping[str, Any]] | None = None,
        **scores: Any,
    ) -> None:
        """Log a split at the end of an epoch; with `features` and `fuse` also who decides.

        `features` holds one row per sample of the split, by modality; `fuse` takes such a mapping
        and gives logits. `scores` such as loss and acc are computed where they are not given.
        `modalities` takes numbers of each modality that were obtained in another way.
        """
        fields: dict[str, Any] = {"n": n}
        per_modality: dict[str, dict[str, Any]] = {}
        if features is not None:
            measured = self._measured(features, labels, fuse)
            per_modality = measured.pop("m")
            fields |= measured
        for name, values in (modalities or {}).items():
            self._check_modality(name)
            per_modality.setdefault(name, {}).update(as_plain(values))
        fields |= {key: as_plain(value) for key, value in scores.items() if value is not None}
        fields |= {"n": n} if n is not None else {}
        if split == "train":
            per_modality = {**self._trained(), **per_modality}
            self._epochs_of_train.add(number)
        elif number not in self._epochs_of_train and (trained := self._trained()):
            self._epochs_of_train.add(number)
            self._write_epoch(number, "train", {}, trained)
        self._write_epoch(number, split, fields, per_modality)
        self._epoch = number + 1 if split == "val" else self._epoch

    def event(self, what: str, **fields: Any) -> None:
        """Log that something happened, for example a checkpoint."""
        self._steps.flush()
        self._write("event", what=what, step=self._steps.num_done, **fields)

    def close(self, status: str = "done", reason: str = "") -> None:
        """End the run as done, stopped or failed; closing twice is allowed."""
        if not self._is_open:
            return
        self._steps.flush()
        if self._rank == 0:
            step = self._steps.num_done
            self._run.write_status(state=status, reason=reason, step=step, epoch=self._epoch)
        self._write("end", status=status, reason=reason)
        self._is_open = False
        self._resources.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self.close()
        elif isinstance(error, KeyboardInterrupt):
            self.close("stopped", "interrupted")
        else:
            self.close("failed", f"{type(error).__name__}: {error}")

    def _write(self, kind: str, **fields: Any) -> None:
        if not self._is_open:
            raise RequestError(
                f"{self.path.name} was closed, {kind} cannot be logged", where=str(self.path)
            )
        self._writer.write(kind, **fields)

    def _write_epoch(
        self,
        number: int,
        split: str,
        fields: Mapping[str, Any],
        per_modality: Mapping[str, Mapping[str, Any]],
    ) -> None:
        self._steps.flush()
        known = {key: value for key, value in fields.items() if value is not None}
        at = {"epoch": number, "step": self._steps.num_done, "split": split}
        self._write("epoch", **{**known, **at}, m=per_modality)
        if self._rank == 0:
            self._run.write_status(step=self._steps.num_done, epoch=number)

    def _measured(
        self, features: Mapping[str, Any], labels: Any, fuse: Callable[..., Any] | None
    ) -> dict[str, Any]:
        from mmtool.log.measure import measure

        for name in features:
            self._check_modality(name)
        if labels is None:
            raise RequestError("features of a split were given without labels")
        found = measure(features, labels, fuse)
        if self._probes is not None:
            for name, values in self._probes.judge(features, labels).items():
                found["m"].setdefault(name, {}).update(values)
        return found

    def _trained(self) -> dict[str, dict[str, Any]]:
        return self._probes.take_trained() if self._probes is not None else {}

    def _probe_heads(self) -> Probes:
        if self._probes is None:
            if len(self._classes) < 2:
                raise RequestError(
                    "a probe needs to know the classes",
                    why="its last layer has one output for each",
                    fix='mmtool.log.start("runs/x", modalities=[...], classes=6)',
                )
            from mmtool.log.probes import Probes

            self._probes = Probes(len(self._classes))
        return self._probes

    def _check_modality(self, name: str) -> None:
        if name not in self._modalities:
            raise RequestError(
                f"there is no modality {name!r} in this run",
                why=f"it was started with {', '.join(self._modalities)}",
            )
