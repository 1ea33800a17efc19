"""Checkpoints: atomic, checksummed, with a fall-back to the previous good one.

    ckpt/step00000120/   model.safetensors  state.pt  manifest.json     the newest two
    ckpt/best00000120/   model.safetensors  manifest.json               best on validation

Weights are safetensors that know their recipe; `state.pt` holds tensors and plain values only and
is read with `weights_only=True`. With `train.checkpoint = "sharded"` what lies spread over ranks is
in `parts/` instead (see `sharded`); either kind is read on any number of ranks.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from mmtool import __version__
from mmtool.engine import fault, sharded
from mmtool.engine.about import about_weights
from mmtool.engine.choose import ABOUT, STATE, UNREADABLE, WEIGHTS
from mmtool.engine.job import Job, Progress
from mmtool.engine.manifest import begin, discard, need_room, publish, read_manifest, seal
from mmtool.engine.optim import lay_out_state
from mmtool.engine.same_recipe import recorded
from mmtool.errors import CheckpointError, NotWritable
from mmtool.methods._base import DataPlan

# torch reports a full disk as a bare RuntimeError and safetensors as its own error.
_UNWRITABLE = (OSError, RuntimeError, SafetensorError, NotWritable)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A training state copied away from the device, to be written while training goes on."""

    kind: str
    """`step` or `best`."""
    step: int
    epoch: int
    about: dict[str, str]
    """What the weights belong to: recipe, classes, modalities and more, as texts."""
    recipe: dict[str, Any]
    world: int
    weights: dict[str, Tensor]
    state: dict[str, Any] | None
    """None for weights alone."""
    parts: dict[str, Any] = field(default_factory=dict)
    """What every rank writes its part of."""
    ready: Callable[[], None] = lambda: None
    """Waits until the copies are complete."""

    @property
    def name(self) -> str:
        """Name of the folder it becomes."""
        return f"{self.kind}{self.step:08d}"

    @property
    def num_bytes(self) -> int:
        """Bytes that this rank will write."""
        return _num_bytes(self.weights) + _num_bytes(self.state) + _num_bytes(self.parts)

    @property
    def facts(self) -> dict[str, Any]:
        """What the manifest says beside the files."""
        return {
            "step": self.step,
            "epoch": self.epoch,
            "mmtool": __version__,
            "torch": str(torch.__version__),
            "world": self.world,
            "recipe": self.recipe,
        }


class _Copier:
    """Copies to the host without waiting: the device does it before it begins the next step."""

    def __init__(self, job: Job, *, is_wanted: bool) -> None:
        self._on_gpu = job.device.type == "cuda"
        self._shards = job.shards
        self._is_wanted = is_wanted

    def __call__(self, value: Any) -> Any:
        """Copy tensors, inside of dictionaries and lists too; the rest is immutable."""
        if isinstance(value, Tensor):
            return self._tensor(value.detach()) if self._is_wanted else None
        if isinstance(value, Mapping):
            return {key: self(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(self(item) for item in value)
        return value

    def _tensor(self, value: Tensor) -> Tensor:
        if hasattr(value, "to_local"):
            return self._shards.on_host(value, self._tensor(value.to_local()))
        if not value.is_cuda:
            return value.clone(memory_format=torch.contiguous_format)
        # torch keeps pinned memory for the next time.
        host = torch.empty(value.shape, dtype=value.dtype, pin_memory=True)
        return host.copy_(value, non_blocking=True)

    def ready(self) -> Callable[[], None]:
        """Give what waits for all copies so far."""
        if not (self._on_gpu and self._is_wanted):
            return lambda: None
        copied = torch.cuda.Event()
        copied.record()
        return copied.synchronize


def take_snapshot(job: Job, *, weights_only: bool = False) -> Snapshot:
    """Copy what a resumed run needs; call on every rank, since sharded encoders are gathered."""
    progress, is_sharded = job.progress, sharded.is_wanted(job)
    own = _Copier(job, is_wanted=job.ranks.is_first)
    every = _Copier(job, is_wanted=True)
    snapshot = Snapshot(
        kind="best" if weights_only else "step",
        step=progress.step,
        epoch=progress.epoch,
        about=about_weights(job, step=progress.step, epoch=progress.epoch),
        recipe=recorded(job.recipe),
        world=job.ranks.world,
        weights={} if is_sharded else own(job.shards.whole_state(job.model)),
        state=None if weights_only else own(_state(job, is_sharded=is_sharded)),
        parts=every(sharded.parts(job, weights_only=weights_only)) if is_sharded else {},
    )
    return replace(snapshot, ready=(every if is_sharded else own).ready())


def _state(job: Job, *, is_sharded: bool) -> dict[str, Any]:
    if is_sharded:
        spread = sharded.outline(job)
    else:
        spread = {
            "optimizer": job.shards.whole_optimizer_state(job.optimizer),
            "snapshots": job.shards.whole_lists(job.snapshots, job.groups),
        }
    return {**spread, **small_state(job)}


def small_state(job: Job) -> dict[str, Any]:
    """Give what a resumed run needs beside weights, their optimiser and snapshots."""
    probes = job.probe_optimizer
    return {
        "progress": asdict(job.progress),
        "metrics": dict(job.metrics),
        "probe_optimizer": probes.state_dict() if probes else None,
        "precision": job.precision.state_dict(),
        "method": job.method.state_dict(),
        "plan": None if job.plan is None else asdict(job.plan),
    }


def take_small_state(job: Job, state: Mapping[str, Any]) -> None:
    """Take back what `small_state` gave."""
    if job.probe_optimizer is not None and state["probe_optimizer"] is not None:
        job.probe_optimizer.load_state_dict(state["probe_optimizer"])
    job.precision.load_state_dict(state["precision"])
    job.method.load_state_dict(_moved(state["method"], job))
    job.plan = None if state["plan"] is None else DataPlan(**_moved(state["plan"], job))
    job.metrics = state["metrics"]
    job.progress = Progress(**state["progress"])


def _num_bytes(value: Any) -> int:
    if isinstance(value, Tensor):
        return sharded.local(value).nbytes
    if isinstance(value, Mapping):
        return sum(map(_num_bytes, value.values()))
    return sum(map(_num_bytes, value)) if isinstance(value, list | tuple) else 0


def write_snapshot(snapshot: Snapshot, folder: Path, group: Any = None) -> Path:
    """Write a snapshot; call on rank 0, and on every rank where it has parts (with their group)."""
    is_first = sharded.is_first(group)
    snapshot.ready()
    temporary: Path | None = None
    failure: Exception | None = None
    try:
        if is_first:
            need_room(folder, snapshot.num_bytes)
            temporary = begin(folder, snapshot.name)
            _write_own(snapshot, temporary)
    except _UNWRITABLE as err:
        failure = err
    if snapshot.parts:
        usable = temporary if failure is None else None
        failure = sharded.write(snapshot.parts, usable, group) or failure
    try:
        if temporary is not None and failure is None:
            seal(temporary, snapshot.facts)
            fault.during("save", 0, snapshot.step)
            publish(temporary)
    except _UNWRITABLE as err:
        failure = err
    if snapshot.parts:
        failure = sharded.agree(failure, group)
    if failure is None:
        return folder / snapshot.name
    if temporary is not None:
        discard(temporary)
    if isinstance(failure, NotWritable):
        raise failure
    raise NotWritable(
        f"the checkpoint of step {snapshot.step} could not be written: {failure}",
        where=str(folder),
        why="earlier checkpoints are untouched",
        fix="free some space, then: mmtool train --resume RUN",
    ) from failure


def _write_own(snapshot: Snapshot, temporary: Path) -> None:
    if snapshot.weights:
        save_file(snapshot.weights, temporary / WEIGHTS, metadata=snapshot.about)
    else:
        text = json.dumps(snapshot.about, indent=1)
        (temporary / ABOUT).write_text(text, encoding="utf-8")
    if snapshot.state is not None:
        torch.save(snapshot.state, temporary / STATE)


def load_checkpoint(job: Job, path: Path) -> None:
    """Put a job back to where the checkpoint was written, on any number of ranks."""
    try:
        state = torch.load(path / STATE, map_location="cpu", weights_only=True)
        load_weights(job, path)
        if (path / WEIGHTS).exists():
            job.shards.load_whole_optimizer_state(job.optimizer, state["optimizer"])
            job.snapshots = job.shards.part_lists(_moved(state["snapshots"], job), job.groups)
        else:
            sharded.read_state(job, path, state)
    except UNREADABLE as err:
        raise CheckpointError(f"{path} could not be read: {err}", fix="try again") from err
    take_small_state(job, state)
    lay_out_state(job.optimizer)


def load_weights(job: Job, path: Path) -> None:
    """Put a checkpoint's weights into the model."""
    if (path / WEIGHTS).exists():
        job.shards.load_whole_state(job.model, load_file(path / WEIGHTS))
    else:
        sharded.read_weights(job, path)


def recipe_of(path: Path) -> dict[str, Any]:
    """Give the recipe a checkpoint was written under, as `same_recipe.recorded` gives it."""
    recipe: dict[str, Any] = read_manifest(path).get("recipe", {})
    return recipe


def _moved(value: Any, job: Job) -> Any:
    """Put tensors onto the job's device, inside of dictionaries and lists too."""
    if isinstance(value, Tensor):
        return value.to(job.device)
    if isinstance(value, Mapping):
        return {key: _moved(item, job) for key, item in value.items()}
    return [_moved(item, job) for item in value] if isinstance(value, list) else value
