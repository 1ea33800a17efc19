"""From the spec of a column to its place in the store, and from a decoded array to its sample."""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Literal

import numpy as np

from mmtool.errors import WorkFailed
from mmtool.media.features import feature_shape
from mmtool.prepare.api import AudioSpec, Column, FramesSpec, SeriesSpec, Spec, TextSpec
from mmtool.store.columns import AnyArray
from mmtool.store.schema import ColumnInfo

_SHARD_BYTES = 128 << 20
_MOST_CLIPS_PER_SHARD = 16_384


class UnfitSample(Exception):
    """A decoded sample that the column cannot hold."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


def column_info(column: Column, *, num_channels: int, finished: bool) -> ColumnInfo:
    """Give the layout of a column; only a series needs `num_channels`, found by decoding some."""
    spec = column.spec
    transform: dict[str, Any] = {"spec": type(spec).__name__, **_plain(spec), "finish": finished}
    common: dict[str, Any] = {"modality": column.modality, "transform": transform}
    if isinstance(spec, AudioSpec):
        if spec.feature is None:
            return ColumnInfo(
                kind="wave", dtype="int16", shape=(), ragged=True, rate_hz=spec.rate_hz, **common
            )
        return ColumnInfo(
            kind="spectrogram",
            dtype="float16",
            shape=feature_shape(spec.feature),
            ragged=False,
            rate_hz=spec.rate_hz,
            **common,
        )
    if isinstance(spec, FramesSpec):
        frame: tuple[int, ...] = (spec.channels, spec.height, spec.width)
        shape = frame if spec.num_frames == 1 else (spec.num_frames, *frame)
        return ColumnInfo(kind="frames", dtype="uint8", shape=shape, ragged=False, **common)
    if isinstance(spec, SeriesSpec):
        return ColumnInfo(
            kind="series", dtype=spec.dtype, shape=(num_channels,), ragged=True, **common
        )
    if isinstance(spec, TextSpec):
        return ColumnInfo(kind="tokens", dtype="int32", shape=(), ragged=True, **common)
    raise TypeError(f"unknown spec {spec!r}")


def as_sample(name: str, column: ColumnInfo, array: AnyArray) -> AnyArray:
    """Give the array as the column stores it, or raise `UnfitSample`."""
    wanted = np.dtype(column.dtype)
    if column.kind in ("series", "spectrogram"):
        if array.dtype.kind not in "fiu":
            raise _wrong_dtype(name, column, array)
        with np.errstate(over="ignore"):
            array = array.astype(wanted, copy=False)
        if not np.isfinite(array).all():
            raise UnfitSample("not-finite", f"{name} holds NaN or infinity as {column.dtype}")
    elif array.dtype != wanted:
        raise _wrong_dtype(name, column, array)
    if column.kind == "frames" and array.ndim == len(column.shape) + 1 and array.shape[0] == 1:
        array = array[0]
    shape = array.shape[1:] if column.ragged else array.shape
    if array.ndim != len(column.shape) + column.ragged or shape != column.shape:
        found = list(array.shape)
        raise UnfitSample("wrong-shape", f"{name} is {found}, the others {list(column.shape)}")
    return array


def estimated_bytes(column: ColumnInfo, mean_length: Mapping[str, float], name: str) -> float:
    """Give the bytes of an average sample."""
    per_step = float(np.dtype(column.dtype).itemsize * np.prod(column.shape, dtype=np.int64))
    return per_step * (mean_length.get(name, 0.0) + 8 if column.ragged else 1)


def clips_per_shard(bytes_per_clip: float) -> int:
    """Give how many clips make a shard of a good size: to fetch whole, and to lose in a crash."""
    return max(1, min(_MOST_CLIPS_PER_SHARD, round(_SHARD_BYTES / max(1.0, bytes_per_clip))))


def _plain(spec: Spec) -> dict[str, Any]:
    """Give a spec as JSON values that name what was done, not where a file lay."""
    found = asdict(spec)
    if isinstance(spec, AudioSpec) and spec.feature is not None:
        found["feature"] = {"name": type(spec.feature).__name__, **asdict(spec.feature)}
    if isinstance(spec, TextSpec) and spec.tokenizer is not None:
        found["tokenizer"] = hashlib.sha256(spec.tokenizer.read_bytes()).hexdigest()
    return found


def _wrong_dtype(name: str, column: ColumnInfo, array: AnyArray) -> WorkFailed:
    kind: Literal["finish of the preparer", "decoder"] = (
        "finish of the preparer" if column.transform.get("finish") else "decoder"
    )
    return WorkFailed(
        f"column {name!r} holds {column.dtype}, but the {kind} gave {array.dtype}",
        fix=f"return {column.dtype} for {name!r}",
    )
