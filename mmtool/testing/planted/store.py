"""Write a problem as a prepared dataset, in the shape that a kind of encoder reads."""

from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np

from mmtool import __version__
from mmtool.store.index import index_bytes
from mmtool.store.schema import ColumnInfo, Manifest, content_hash
from mmtool.store.writer import StoreWriter
from mmtool.testing.planted.draw import DIMS
from mmtool.testing.planted.problem import Floats, Problem
from mmtool.types import InputKind

EncoderKind: TypeAlias = Literal["mlp", "cnn", "transformer"]
ENCODER_KINDS: tuple[EncoderKind, ...] = ("mlp", "cnn", "transformer")

_KEY = "planted"
_ABOUT: dict[str, Any] = {
    "title": "A planted problem",
    "licence": "none",
    "source": "generated",
    "citation": "none",
}
_CHANNELS = 4
_SIDE = 8


def write_problem(path: Path, problem: Problem, kind: EncoderKind = "mlp") -> Path:
    """Write the store of a problem; every sample is a group of its own."""
    columns = {m: _column(m, problem.inputs[m], kind) for m in problem.modalities}
    shaped = {
        m: _shaped(problem.inputs[m], kind).reshape(-1, *columns[m].shape).astype(np.float32)
        for m in problem.modalities
    }
    size = len(problem.labels)
    present = np.ones((size, len(columns)), dtype=bool)
    for at, modality in enumerate(problem.modalities):
        if modality in problem.present:
            present[:, at] = problem.present[modality]
    writer = StoreWriter(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    writer.begin()
    with writer.shard(0, columns) as shard:
        for row in range(size):
            shard.append(
                {m: shaped[m][row] if present[row, at] else None for at, m in enumerate(columns)}
            )
        info = shard.commit()
    writer.note(0, _KEY, info, {})
    index = writer.write_index(_index(problem, present))
    content: dict[str, Any] = {
        "columns": columns,
        "index": index,
        "classes": tuple(f"class{c}" for c in range(problem.num_classes)),
        "is_multi_label": problem.task == "multi_label",
    }
    counts = {"train": problem.num_train, "val": size - problem.num_train, "test": 0}
    manifest = Manifest(
        name=path.name,
        **_ABOUT,
        **content,
        hash=content_hash(**content, shards=[info], preparer=_KEY, options={}),
        modalities=problem.modalities,
        protocols={"default": counts},
        default_protocol="default",
        shards=(info,),
        provenance={"preparer": _KEY, "mmtool": __version__},
    )
    writer.publish(manifest, {"preparer": _KEY})
    return path


def _index(problem: Problem, present: np.ndarray) -> bytes:
    size = len(problem.labels)
    splits = ["train" if row < problem.num_train else "val" for row in range(size)]
    sets = problem.label_sets
    return index_bytes(
        # Training rows come first, whatever the number of others, so that batches stay the same.
        ids=[f"{split}{row:06d}" for row, split in enumerate(splits)],
        labels=problem.labels.tolist(),
        values=None if problem.values is None else problem.values.tolist(),
        label_sets=None if sets is None else [np.flatnonzero(row).tolist() for row in sets],
        groups=[f"sample{row:06d}" for row in range(size)],
        splits={"default": splits},
        present=present.tolist(),
        num_modalities=present.shape[1],
    )


def _column(name: str, inputs: Floats, kind: EncoderKind) -> ColumnInfo:
    stored: InputKind = "spectrogram" if kind == "cnn" else "series"
    width = inputs.shape[1]
    shape = (1, _SIDE, _SIDE) if kind == "cnn" else (width // _CHANNELS, _CHANNELS)
    numbers = 1 if kind == "cnn" else _CHANNELS
    return ColumnInfo(
        modality=name,
        kind=stored,
        dtype="float32",
        shape=shape,
        ragged=False,
        stats={"default": {"mean": [0.0] * numbers, "std": [1.0] * numbers}},
    )


def _shaped(inputs: Floats, kind: EncoderKind) -> Floats:
    """Give the values as an image for a convolution; all else reads them as they are."""
    return inputs @ waves() if kind == "cnn" else inputs


def waves() -> Floats:
    """Give as many orthonormal images of long cosine waves as a sample has values; [value, pixel].

    A convolution and a mean over the image see those, and would see little of unordered values.
    """
    at = np.arange(_SIDE) + 0.5
    lines = [np.cos(np.pi * k * at / _SIDE) for k in range(_SIDE)]
    lines = [line / np.linalg.norm(line) for line in lines]
    pairs = sorted(((i, k) for i in range(_SIDE) for k in range(_SIDE)), key=_pitch)
    return np.stack([np.outer(lines[i], lines[k]).ravel() for i, k in pairs[:DIMS]])


def _pitch(pair: tuple[int, int]) -> tuple[int, int]:
    return pair[0] + pair[1], pair[0]
