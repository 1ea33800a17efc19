"""A callback that logs a Lightning training for `mmtool diagnose`.

    from mmtool.integrations.lightning import MMCallback

    callback = MMCallback(
        "runs/mine", encoders={"audio": "enc.a", "video": "enc.v"}, fusion="head", classes=6
    )
    Trainer(..., callbacks=[callback]).fit(module, train_loader, val_loader)

Modules are named as in `named_modules()` of the LightningModule. Works with `lightning` and with
`pytorch_lightning`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmtool.errors import EnvironmentLacks
from mmtool.integrations._logged import LoggedTraining
from mmtool.integrations.labels import labels_of

try:
    from lightning.pytorch import Callback
except ModuleNotFoundError:
    try:
        from pytorch_lightning import Callback
    except ModuleNotFoundError as error:
        raise EnvironmentLacks(
            "the Python package 'lightning' is not installed",
            why="mmtool.integrations.lightning is a callback of it",
            fix="pip install 'mmtool[integrations]'",
        ) from error


class MMCallback(LoggedTraining, Callback):
    """Logs steps with their phases, probes of each modality, and flip rates after validation.

    `labels` takes the class numbers out of a batch; by itself the callback takes the last part of
    a tuple, or the entry called labels, label, targets, target or y. Of several ranks the first
    one's share of the validation samples counts.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        encoders: Mapping[str, str],
        classes: int | Sequence[str],
        fusion: str | None = None,
        labels: Callable[[Any], Any] = labels_of,
        system: bool = True,
        **about: Any,
    ) -> None:
        super().__init__()
        self._watch_as(path, encoders, classes, fusion, system, about)
        self._labels = labels

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Begin the run."""
        self._watch(pl_module)
        self._start(rank=trainer.global_rank, epochs=trainer.max_epochs)

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Begin to wait for data."""
        self._waits_since = time.perf_counter()

    def on_train_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        """Begin a step."""
        if self._run is None:
            return
        labels = self._labels(batch)
        self._begin_step(
            self._run,
            trainer.fit_loop.epoch_loop.total_batch_idx,
            epoch=trainer.current_epoch,
            n=None if labels is None else len(labels),
        )

    def on_before_backward(self, trainer: Any, pl_module: Any, loss: Any) -> None:
        """End the forward pass."""
        self._lap("forward")

    def on_after_backward(self, trainer: Any, pl_module: Any) -> None:
        """End the backward pass."""
        self._lap("backward")

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """End the step and show its features to the probes."""
        if self._run is None or self._watched is None:
            return
        self._lap("optimizer")
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        rates = [group["lr"] for o in trainer.optimizers for group in o.param_groups]
        found = {"loss": loss, "lr": rates[0] if rates else None}
        self._run.record(**{key: value for key, value in found.items() if value is not None})
        labels = self._labels(batch)
        if labels is not None:
            self._watched.log_step(self._run, labels)
        self._end_step(self._run)

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        """Take validation out of the time that training waits for data."""
        self._waits_since = None

    def on_validation_batch_end(
        self,
        trainer: Any,
        pl_module: Any,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the features of an evaluated batch of the first loader."""
        if self._watched is None or trainer.sanity_checking or dataloader_idx:
            return
        labels = self._labels(batch)
        if labels is not None:
            self._watched.collect(labels)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Log the evaluation."""
        if self._run is None or self._watched is None or trainer.sanity_checking:
            return
        logged = trainer.callback_metrics if self._fusion is None else {}
        scores = {
            key: logged.get(f"val_{key}", logged.get(f"val/{key}")) for key in ("loss", "acc")
        }
        self._watched.log_epoch(self._run, trainer.current_epoch, split="val", **scores)
        self._waits_since = time.perf_counter()

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        """End the run."""
        self._close("stopped" if trainer.interrupted else "done")

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """End the run as one that failed or was interrupted."""
        is_stop = isinstance(exception, KeyboardInterrupt)
        reason = f"{type(exception).__name__}: {exception}"
        self._close("stopped" if is_stop else "failed", reason)
