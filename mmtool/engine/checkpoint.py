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
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from mmtool import __version__
from mmtool.engine.build import Job, Progress
from mmtool.errors import CheckpointError, EnvironmentLacks
from mmtool.methods._base import DataPlan

_SCHEMA = "mmtool-checkpoint/1"
_KEPT = 2
_WEIGHTS, _STATE, _MANIFEST = "model.safetensors", "state.pt", "manifest.json"


def save_checkpoint(job: Job, folder: Path) -> Path:
    """Write everything a resumed run needs; call on the first rank only."""
    progress = job.progress
    state = {
        "progress": asdict(progress),
        "metrics": job.metrics,
        "optimizer": job.optimizer.state_dict(),
        "probe_optimizer": job.probe_optimizer.state_dict() if job.probe_optimizer else None,
        "precision": job.precision.state_dict(),
        "method": job.method.state_dict(),
        "snapshots": job.snapshots,
        "plan": None if job.plan is None else asdict(job.plan),
    }
    path = _publish(job, folder, f"step{progress.step:08d}", state)
    for old in _newest_first(folder, "step")[_KEPT:]:
        shutil.rmtree(old)
    return path


def save_best(job: Job, folder: Path) -> Path:
    """Write the weights that are best on validation so far; call on the first rank only."""
    path = _publish(job, folder, f"best{job.progress.step:08d}", None)
    for old in _newest_first(folder, "best")[1:]:
        shutil.rmtree(old)
    return path


def _publish(job: Job, folder: Path, name: str, state: Mapping[str, Any] | None) -> Path:
    temporary, final = folder / f".{name}.partial", folder / name
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        weights = {k: v.detach().cpu().contiguous() for k, v in job.model.state_dict().items()}
        save_file(weights, temporary / _WEIGHTS, metadata={"format": "pt", "mmtool": __version__})
        if state is not None:
            torch.save(state, temporary / _STATE)
        files = sorted(p.name for p in temporary.iterdir())
        manifest = {
            "schema": _SCHEMA,
            "step": job.progress.step,
            "epoch": job.progress.epoch,
            "mmtool": __version__,
            "torch": str(torch.__version__),
            "files": {
                n: {"bytes": _size(temporary / n), "sha256": _sha256(temporary / n)} for n in files
            },
        }
        (temporary / _MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
        for item in temporary.iterdir():
            _flush(item)
        shutil.rmtree(final, ignore_errors=True)  # the same step of an earlier attempt
        temporary.rename(final)
        _flush(folder)
    # torch reports a full disk as a bare RuntimeError and safetensors as its own error.
    except (OSError, RuntimeError, SafetensorError) as err:
        shutil.rmtree(temporary, ignore_errors=True)
        raise EnvironmentLacks(
            f"the checkpoint of step {job.progress.step} could not be written: {err}",
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
    """Put a job back to where the checkpoint was written."""
    load_weights(job, path)
    state = torch.load(path / _STATE, map_location=job.device, weights_only=True)
    job.optimizer.load_state_dict(state["optimizer"])
    if job.probe_optimizer is not None and state["probe_optimizer"] is not None:
        job.probe_optimizer.load_state_dict(state["probe_optimizer"])
    job.precision.load_state_dict(state["precision"])
    job.method.load_state_dict(state["method"])
    job.snapshots = state["snapshots"]
    job.plan = None if state["plan"] is None else DataPlan(**state["plan"])
    job.metrics = state["metrics"]
    job.progress = Progress(**state["progress"])


def load_weights(job: Job, path: Path) -> None:
    """Put a checkpoint's weights into the model."""
    job.model.load_state_dict(load_file(path / _WEIGHTS, device=str(job.device)))
