"""What the machine did during the run: CPU, memory and, where there is one, the GPU."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from mmtool.diagnose.load import Run
from mmtool.diagnose.tables import has, number, rows

HOST = ("cpu_percent", "rss_mb", "load1")
GPU = ("util", "mem_mb", "power_w", "temp_c")
MAX_POINTS = 400


def system_table(run: Run) -> dict[str, Any]:
    """Give means, maxima and a thinned timeline; empty when nothing was sampled."""
    frame = run.tables.system
    if frame.empty:
        return {}
    if "rank" in frame.columns:
        frame = frame[frame["rank"] == frame["rank"].min()]
    samples = rows(frame)
    if has(frame, "t"):
        samples.sort(key=lambda r: float(r.get("t") or 0.0))
    series: dict[str, list[tuple[float, float]]] = {}
    start = number(samples[0], "t") or 0.0
    for index, sample in enumerate(samples):
        at = number(sample, "t")
        seconds = float(index) if at is None else at - start
        for key, value in _flat(sample):
            series.setdefault(key, []).append((seconds, value))
    return {
        "num_samples": len(samples),
        "summary": {key: _summary(value for _, value in s) for key, s in sorted(series.items())},
        "timeline": {key: thin(points) for key, points in sorted(series.items())},
    }


def _flat(sample: Mapping[str, Any]) -> Iterable[tuple[str, float]]:
    for key in HOST:
        value = number(sample, key)
        if value is not None:
            yield key, value
    gpus = sample.get("gpus")
    for index, gpu in enumerate(gpus if isinstance(gpus, list | tuple) else ()):
        for key in GPU:
            value = number(gpu, key)
            if value is not None:
                yield f"gpu{index}_{key}", value


def _summary(values: Iterable[float]) -> dict[str, float]:
    listed = list(values)
    return {"mean": sum(listed) / len(listed), "max": max(listed)}


def thin(points: list[tuple[float, float]], most: int = MAX_POINTS) -> list[tuple[float, float]]:
    """Give at most so many points: the mean of equal bins, so that no bin is dropped."""
    if len(points) <= most:
        return points
    size = -(-len(points) // most)
    bins = [points[i : i + size] for i in range(0, len(points), size)]
    return [(b[0][0], sum(value for _, value in b) / len(b)) for b in bins]
