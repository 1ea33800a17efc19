"""Tiny prepared datasets with a planted signal, for tests of plugins and of the engine."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmtool import __version__
from mmtool.store.index import index_bytes
from mmtool.store.schema import ColumnInfo, Manifest, ShardInfo, content_hash
from mmtool.store.writer import StoreWriter
from mmtool.types import TaskKind

_KEY = "fake"
_ABOUT: dict[str, Any] = {
    "title": "Class prototypes plus noise",
    "licence": "none",
    "source": "generated",
    "citation": "none",
}
_SHARE_OF_CLASSES = 0.4


@dataclass(frozen=True, slots=True)
class FakeModality:
    """One modality: its shape and how clearly it shows the class."""

    shape: tuple[int, ...] = (8,)
    kind: str = "series"
    signal: float = 2.0
    """Distance of class prototypes in units of the noise."""
    max_length: int = 6
    """Time steps of the longest sample of a series."""
    missing: float = 0.0
    """Share of samples that lack the modality."""


def write_fake_store(
    path: Path,
    modalities: Mapping[str, FakeModality],
    *,
    splits: Mapping[str, int] | None = None,
    num_classes: int = 3,
    seed: int = 0,
    rows_per_shard: int = 40,
    task: TaskKind = "single_label",
    without_value: float = 0.0,
) -> Path:
    """Write a store whose samples are class prototypes plus noise.

    With "multi_label" a sample is the sum of the prototypes of its classes, of which it may have
    none. With "regression" it is one prototype times the sample's value; `without_value` is the
    share of samples that have none, and the classes are the value's sign.
    """
    counts = dict(splits or {"train": 61, "val": 30, "test": 30})
    generator = np.random.default_rng(seed)
    names = sorted(modalities)
    split_of = [name for name, count in counts.items() for _ in range(count)]
    size = len(split_of)
    planted = _planted(task, size, num_classes, generator)
    present = np.stack([generator.random(size) >= modalities[m].missing for m in names], axis=1)
    columns = {m: _column(m, modalities[m]) for m in names}
    samples = {m: _samples(modalities[m], planted.weights, generator) for m in names}

    writer = StoreWriter(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    writer.begin()
    rows = [
        {m: samples[m][row] if present[row, at] else None for at, m in enumerate(names)}
        for row in range(size)
    ]
    shards = _write_shards(writer, columns, rows, rows_per_shard)
    index = writer.write_index(
        index_bytes(
            ids=[f"fake{row:05d}" for row in range(size)],
            labels=planted.labels.tolist(),
            values=_some_values(planted, without_value, seed),
            label_sets=planted.label_sets,
            groups=[f"group{row % 7}" for row in range(size)],
            splits={"default": split_of},
            present=present.tolist(),
            num_modalities=len(names),
        )
    )
    classes = tuple(f"class{c}" for c in range(2 if task == "regression" else num_classes))
    content: dict[str, Any] = {
        "columns": columns,
        "index": index,
        "classes": classes,
        "is_multi_label": task == "multi_label",
    }
    manifest = Manifest(
        name=path.name,
        **_ABOUT,
        **content,
        hash=content_hash(**content, shards=shards, preparer=_KEY, options={}),
        modalities=tuple(names),
        protocols={"default": counts},
        default_protocol="default",
        shards=tuple(shards),
        provenance={"preparer": _KEY, "mmtool": __version__},
    )
    writer.publish(manifest, {"preparer": _KEY})
    return path


def _write_shards(
    writer: StoreWriter,
    columns: Mapping[str, ColumnInfo],
    rows: Sequence[Mapping[str, np.ndarray | None]],
    rows_per_shard: int,
) -> list[ShardInfo]:
    shards = []
    for number, start in enumerate(range(0, len(rows), rows_per_shard)):
        with writer.shard(number, columns) as shard:
            for row in rows[start : start + rows_per_shard]:
                shard.append(row)
            shards.append(shard.commit())
        writer.note(number, _KEY, shards[-1], {})
    return shards


@dataclass(frozen=True, slots=True)
class _Planted:
    """What samples are made of."""

    weights: np.ndarray  # [sample, prototype]
    labels: np.ndarray  # [sample]
    label_sets: list[list[int]] | None = None
    values: np.ndarray | None = None  # [sample]


def _planted(
    task: TaskKind, size: int, num_classes: int, generator: np.random.Generator
) -> _Planted:
    if task == "multi_label":
        has = generator.random((size, num_classes)) < _SHARE_OF_CLASSES
        sets = [np.flatnonzero(row).tolist() for row in has]
        return _Planted(has.astype(np.float64), np.full(size, -1), label_sets=sets)
    if task == "regression":
        values = generator.standard_normal(size)
        return _Planted(values[:, None], (values > 0).astype(np.int64), values=values)
    labels = generator.integers(0, num_classes, size)
    return _Planted(np.eye(num_classes)[labels], labels)


def _some_values(planted: _Planted, share_without: float, seed: int) -> list[float | None] | None:
    if planted.values is None:
        return None
    lacks = np.random.default_rng(seed + 1).random(len(planted.values)) < share_without
    return [None if gone else float(v) for v, gone in zip(planted.values, lacks, strict=True)]


def _column(name: str, modality: FakeModality) -> ColumnInfo:
    is_series = modality.kind == "series"
    channels = {"series": modality.shape[-1], "frames": modality.shape[0]}.get(modality.kind, 1)
    mean, deviation = (0.5, 0.25) if modality.kind == "frames" else (0.0, 1.0)
    return ColumnInfo(
        modality=name,
        kind=modality.kind,  # type: ignore[arg-type]
        dtype="uint8" if modality.kind == "frames" else "float32",
        shape=modality.shape,
        ragged=is_series,
        max_length=modality.max_length if is_series else None,
        stats={"default": {"mean": [mean] * channels, "std": [deviation] * channels}},
    )


def _samples(
    modality: FakeModality, weights: np.ndarray, generator: np.random.Generator
) -> list[np.ndarray]:
    shape = (weights.shape[1], *modality.shape)
    prototypes = generator.standard_normal(shape) * modality.signal
    found = []
    for centre in np.tensordot(weights, prototypes, 1):
        if modality.kind == "series":
            length = int(generator.integers(2, modality.max_length + 1))
            noise = generator.standard_normal((length, *modality.shape))
            found.append((centre + noise).astype(np.float32))
            continue
        value = centre + generator.standard_normal(modality.shape)
        if modality.kind == "frames":
            found.append(np.clip(128 + 32 * value, 0, 255).astype(np.uint8))
        else:
            found.append(value.astype(np.float32))
    return found
