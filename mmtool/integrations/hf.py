"""A callback that logs a training with Hugging Face's Trainer for `mmtool diagnose`.

    from mmtool.integrations.hf import MMTrainerCallback

    callback = MMTrainerCallback(
        "runs/mine", encoders={"text": "text_model", "image": "vision_model"}, fusion="classifier",
        classes=6,
    )
    Trainer(model, ..., callbacks=[callback]).train()

A callback of the Trainer does not see the forward pass, so features come from modules named as in
`named_modules()` of the model, and labels from the argument `labels` of its forward.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmtool.errors import EnvironmentLacks
from mmtool.integrations._logged import LoggedTraining

try:
    from transformers import TrainerCallback
except ModuleNotFoundError as error:
    raise EnvironmentLacks(
        "the Python package 'transformers' is not installed",
        why="mmtool.integrations.hf is a callback of it",
        fix="pip install 'mmtool[integrations]'",
    ) from error


class MMTrainerCallback(LoggedTraining, TrainerCallback):
    """Logs steps with their phases, probes of each modality, and flip rates after evaluation."""

    def __init__(
        self,
        path: Path | str,
        *,
        encoders: Mapping[str, str],
        classes: int | Sequence[str],
        fusion: str | None = None,
        labels: str = "labels",
        system: bool = True,
        **about: Any,
    ) -> None:
        self._watch_as(path, encoders, classes, fusion, system, about)
        self._labels = labels
        self._hooks: list[Any] = []
        self._batch_labels: Any = None
        self._num_seen = 0
        self._num_evaluations = 0

    def on_train_begin(
        self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any
    ) -> None:
        """Begin the run and watch the model."""
        self._watch(model)
        # After the hooks of the encoders, whose outputs are then known.
        self._hooks = [
            model.register_forward_pre_hook(self._before_forward, with_kwargs=True),
            model.register_forward_hook(self._after_forward),
        ]
        self._start(
            rank=args.process_index,
            epochs=math.ceil(state.num_train_epochs or 0) or None,
            batch_size=args.train_batch_size,
            seed=args.seed,
        )
        self._waits_since = time.perf_counter()

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Begin a step."""
        if self._run is not None:
            self._num_seen = 0
            self._begin_step(self._run, state.global_step, epoch=int(state.epoch or 0))

    def on_substep_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """End the backward pass of a part of the batch."""
        self._lap("backward")

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """End the backward pass."""
        self._lap("backward")

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """End the update."""
        self._lap("optimizer")

    def on_step_end(
        self, args: Any, state: Any, control: Any, lr_scheduler: Any = None, **kwargs: Any
    ) -> None:
        """End the step."""
        if self._run is None or not self._is_stepping:
            return
        rates = lr_scheduler.get_last_lr() if lr_scheduler is not None else []
        found = {"n": self._num_seen or None, "lr": rates[0] if rates else None}
        self._run.record(**{key: value for key, value in found.items() if value is not None})
        self._end_step(self._run)

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Take what the Trainer does between steps out of the time that it waits for data."""
        self._waits_since = time.perf_counter()

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Log a checkpoint."""
        if self._run is not None and self._run.is_open:
            self._run.event("checkpoint")
        self._waits_since = time.perf_counter()

    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: Any = None, **kwargs: Any
    ) -> None:
        """Log an evaluation; those before and after the training are left out."""
        if self._run is None or self._watched is None:
            return
        known = metrics if self._fusion is None and metrics else {}
        scores = {"loss": known.get("eval_loss"), "acc": known.get("eval_accuracy")}
        by_epoch = str(getattr(args.eval_strategy, "value", args.eval_strategy)) == "epoch"
        number = max(math.ceil(state.epoch or 0) - 1, 0) if by_epoch else self._num_evaluations
        self._num_evaluations += 1
        self._watched.log_epoch(self._run, number, split="val", **scores)
        self._waits_since = time.perf_counter()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """End the run."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []
        self._close("done")

    def _before_forward(self, _: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._batch_labels = kwargs.get(self._labels)
        self._mark = time.perf_counter()

    def _after_forward(self, model: Any, _: Any, output: Any) -> None:
        labels = self._batch_labels
        if self._run is None or self._watched is None or labels is None:
            return
        if not model.training:
            self._watched.collect(labels)
        elif self._is_stepping:
            self._lap("forward")
            self._num_seen += len(labels)
            loss = output.get("loss") if isinstance(output, Mapping) else None
            if loss is not None:
                self._run.record(loss=loss)
            self._watched.log_step(self._run, labels)
            self._mark = time.perf_counter()
