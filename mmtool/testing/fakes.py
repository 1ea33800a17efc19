"""Tiny prepared datasets with a planted signal, for tests of plugins and of the engine."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmtool import __version__
from mmtool.store.index import index_bytes
from mmtool.store.schema import ColumnInfo, Manifest, content_hash
from mmtool.store.writer import StoreWriter

_KEY = "fake"


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
) -> Path:
    """Write a store whose samples are class prototypes plus noise."""
    counts = dict(splits or {"train": 61, "val": 30, "test": 30})
    generator = np.random.default_rng(seed)
    names = sorted(modalities)
    split_of = [name for name, count in counts.items() for _ in range(count)]
    size = len(split_of)
    labels = generator.integers(0, num_classes, size)
    present = np.stack([generator.random(size) >= modalities[m].missing for m in names], axis=1)
    columns = {m: _column(m, modalities[m]) for m in names}
    samples = {m: _samples(modalities[m], labels, num_classes, generator) for m in names}

    writer = StoreWriter(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    writer.begin()
    shards = []
    for number, start in enumerate(range(0, size, rows_per_shard)):
        with writer.shard(number, columns) as shard:
            for row in range(start, min(start + rows_per_shard, size)):
                shard.append(
                    {m: samples[m][row] if present[row, at] else None for at, m in enumerate(names)}
                )
            shards.append(shard.commit())
        writer.note(number, _KEY, shards[-1], {})
    index = writer.write_index(
        index_bytes(
            ids=[f"fake{row:05d}" for row in range(size)],
            labels=labels.tolist(),
            groups=[f"group{row % 7}" for row in range(size)],
            splits={"default": split_of},
            present=present.tolist(),
            num_modalities=len(names),
        )
    )
    classes = tuple(f"class{c}" for c in range(num_classes))
    identity = content_hash(
        columns=columns, shards=shards, index=index, classes=classes, preparer=_KEY, options={}
    )
    manifest = Manifest(
        name=path.name,
        title="Class prototypes plus noise",
        licence="none",
        source="generated",
        citation="none",
        hash=identity,
        classes=classes,
        modalities=tuple(names),
        columns=columns,
        protocols={"default": counts},
        default_protocol="default",
        shards=tuple(shards),
        index=index,
        provenance={"preparer": _KEY, "mmtool": __version__},
    )
    writer.publish(manifest, {"preparer": _KEY})
    return path


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
    modality: FakeModality,
    labels: Sequence[int] | np.ndarray,
    num_classes: int,
    generator: np.random.Generator,
) -> list[np.ndarray]:
    prototypes = generator.standard_normal((num_classes, *modality.shape)) * modality.signal
    found = []
    for label in labels:
        if modality.kind == "series":
            length = int(generator.integers(2, modality.max_length + 1))
            noise = generator.standard_normal((length, *modality.shape))
            found.append((prototypes[label] + noise).astype(np.float32))
            continue
        value = prototypes[label] + generator.standard_normal(modality.shape)
        if modality.kind == "frames":
            found.append(np.clip(128 + 32 * value, 0, 255).astype(np.uint8))
        else:
            found.append(value.astype(np.float32))
    return found
