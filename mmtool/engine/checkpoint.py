"""Checkpoints: atomic, checksummed, with a fall-back to the previous good one.

    ckpt/step00000120/   model.safetensors  state.pt  manifest.json     the newest two
    ckpt/best00000120/   model.safetensors  manifest.json               best on validation

Weights are safetensors; `state.pt` holds tensors and plain values only and is read with
`weights_only=True`. Neither format notices a flipped bit, so the manifest carries SHA-256 sums.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from mmtool import __version__
from mmtool.engine import fault
from mmtool.engine.build import Job, Progress
from mmtool.errors import CheckpointError, EnvironmentLacks
from mmtool.methods._base import DataPlan

_SCHEMA = "mmtool-checkpoint/1"
_KEPT = 2
_WEIGHTS, _STATE, _MANIFEST = "model.safetensors", "state.pt", "manifest.json"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A training state copied away from the device, to be written while training goes on."""

    step: int
    epoch: int
    weights: dict[str, Tensor]
    state: dict[str, Any] | None
    """None for weights alone."""


def take_snapshot(job: Job, *, weights_only: bool = False) -> Snapshot:
    """Copy what a resumed run needs; call on every rank, since sharded encoders are gathered."""
    progress = job.progress
    weights = {k: _copy(v).contiguous() for k, v in job.shards.whole_state(job.model).items()}
    state = None
    if not weights_only:
        probes = job.probe_optimizer
        state = {
            "progress": asdict(progress),
            "metrics": dict(job.metrics),
            "optimizer": _copy(job.shards.whole_optimizer_state(job.optimizer)),
            "probe_optimizer": _copy(probes.state_dict()) if probes else None,
            "precision": _copy(job.precision.state_dict()),
            "method": _copy(job.method.state_dict()),
            "snapshots": _copy(job.shards.whole_lists(job.snapshots, job.groups)),
            "plan": None if job.plan is None else _copy(asdict(job.plan)),
        }
    return Snapshot(progress.step, progress.epoch, weights, state)


def _copy(value: Any) -> Any:
    """Copy tensors to the host, inside of dictionaries and lists too; the rest is immutable."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {key: _copy(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_copy(item) for item in value)
    return value


def write_checkpoint(snapshot: Snapshot, folder: Path) -> Path:
    """Write a training state, keeping the newest two; call on one rank."""
    return _write(snapshot, folder, "step", _KEPT)


def write_best(snapshot: Snapshot, folder: Path) -> Path:
    """Write the weights that are best on validation so far, keeping no others; call on one rank."""
    return _write(snapshot, folder, "best", 1)


def _write(snapshot: Snapshot, folder: Path, kind: str, num_kept: int) -> Path:
    path = _publish(snapshot, folder, f"{kind}{snapshot.step:08d}")
    for old in _newest_first(folder, kind)[num_kept:]:
        shutil.rmtree(old)
    return path


def _publish(snapshot: Snapshot, folder: Path, name: str) -> Path:
    temporary, final = folder / f".{name}.partial", folder / name
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        about = {"format": "pt", "mmtool": __version__}
        save_file(snapshot.weights, temporary / _WEIGHTS, metadata=about)
        if snapshot.state is not None:
            torch.save(snapshot.state, temporary / _STATE)
        files = sorted(p.name for p in temporary.iterdir())
        manifest = {
            "schema": _SCHEMA,
            "step": snapshot.step,
            "epoch": snapshot.epoch,
            "mmtool": __version__,
            "torch": str(torch.__version__),
            "files": {
                n: {"bytes": _size(temporary / n), "sha256": _sha256(temporary / n)} for n in files
            },
        }
        (temporary / _MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
        for item in temporary.iterdir():
            _flush(item)
        fault.during("save", 0, snapshot.step)
        shutil.rmtree(final, ignore_errors=True)  # the same step of an earlier attempt
        temporary.rename(final)
        _flush(folder)
    # torch reports a full disk as a bare RuntimeError and safetensors as its own error.
    except (OSError, RuntimeError, SafetensorError) as err:
        shutil.rmtree(temporary, ignore_errors=True)
        raise EnvironmentLacks(
            f"the checkpoint of step {snapshot.step} could not be written: {err}",
            where=str(folder),
            why="earlier checkpoints are untouched",
            fix="free some space, then: mmtool train --resume RUN",
        ) from err
    return final


def _size(path: Path) -> int:
    return path.stat().st_size


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _newest_first(folder: Path, kind: str) -> list[Path]:
    return sorted(folder.glob(f"{kind}[0-9]*"), reverse=True)


def verify(path: Path) -> str | None:
    """Give what is wrong with a checkpoint, or None."""
    try:
        manifest = json.loads((path / _MANIFEST).read_text(encoding="utf-8"))
        files = manifest["files"]
    except (OSError, ValueError, KeyError) as err:
        return f"{path.name}/{_MANIFEST} is unreadable ({err})"
    if manifest.get("schema") != _SCHEMA:
        return f"{path.name} has schema {manifest.get('schema')!r}, this mmtool reads {_SCHEMA!r}"
    for name, wanted in files.items():
        item = path / name
        if not item.is_file():
            return f"{path.name}/{name} is missing"
        if _size(item) != wanted["bytes"]:
            return f"{path.name}/{name} has {_size(item)} bytes instead of {wanted['bytes']}"
        if _sha256(item) != wanted["sha256"]:
            return f"{path.name}/{name} does not match its checksum"
    return None


def choose_checkpoint(folder: Path, kind: str = "step") -> tuple[Path, list[str]]:
    """Give the newest good checkpoint of a kind and what was wrong with those passed over."""
    refused: list[str] = []
    for path in _newest_first(folder, kind):
        problem = verify(path)
        if problem is None:
            return path, refused
        refused.append(problem)
    raise CheckpointError(
        f"no usable checkpoint in {folder}",
        why="; ".join(refused) or "the run stopped before its first checkpoint",
        fix="start the recipe again: mmtool train RECIPE",
    )


def load_checkpoint(job: Job, path: Path) -> None:
    """Put a job back to where the checkpoint was written, on any number of ranks."""
    load_weights(job, path)
    state = torch.load(path / _STATE, map_location=job.device, weights_only=True)
    job.shards.load_whole_optimizer_state(job.optimizer, state["optimizer"])
    if job.probe_optimizer is not None and state["probe_optimizer"] is not None:
        job.probe_optimizer.load_state_dict(state["probe_optimizer"])
    job.precision.load_state_dict(state["precision"])
    job.method.load_state_dict(state["method"])
    job.snapshots = job.shards.part_lists(state["snapshots"], job.groups)
    job.plan = None if state["plan"] is None else DataPlan(**state["plan"])
    job.metrics = state["metrics"]
    job.progress = Progress(**state["progress"])


def load_weights(job: Job, path: Path) -> None:
    """Put a checkpoint's weights into the model."""
    weights = load_file(path / _WEIGHTS, device=str(job.device))
    job.shards.load_whole_state(job.model, weights)
