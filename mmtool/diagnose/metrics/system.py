"""What the machine did during the run: processors, memory and, where there is one, the GPU."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any

from mmtool.diagnose.load import Run
from mmtool.diagnose.metrics.gpus import (
    compute_gpus,
    first_rank_samples,
    gpus_of,
    training_samples,
)
from mmtool.diagnose.tables import number, rows

PRESSURE = ("cpu", "io", "memory")
HOST = (
    *("cpu_percent", "rss_mb", "load1"),
    *(f"psi_{resource}" for resource in PRESSURE),
    *("allocated_peak_mb", "reserved_peak_mb"),
)
GPU = ("util", "sm", "tensor", "dram", "mem_mb", "power_w", "temp_c", "sm_mhz")
MAX_POINTS = 400


def system_table(run: Run) -> dict[str, Any]:
    """Give means, maxima and a thinned timeline; empty when nothing was sampled."""
    samples = first_rank_samples(run) or rows(run.tables.system)
    if not samples:
        return {}
    series: dict[str, list[tuple[float, float]]] = {}
    start = number(samples[0], "t") or 0.0
    for index, sample in enumerate(samples):
        at = number(sample, "t")
        seconds = float(index) if at is None else at - start
        for key, value in _flat(sample):
            series.setdefault(key, []).append((seconds, value))
    training = training_samples(run)
    return {
        "num_samples": len(samples),
        "num_training_samples": len(training),
        "summary": {key: _summary(value for _, value in s) for key, s in sorted(series.items())},
        "timeline": {key: thin(points) for key, points in sorted(series.items())},
        "gpus": [gpu.as_dict() for gpu in compute_gpus(run)],
        "host": _host(training),
        "allocator": _allocator(training),
        "lacks": _lacks(samples),
    }


def _flat(sample: Mapping[str, Any]) -> Iterable[tuple[str, float]]:
    for key in HOST:
        value = number(sample, key)
        if value is not None:
            yield key, value
    for index, gpu in enumerate(gpus_of(sample)):
        for key in GPU:
            value = number(gpu, key)
            if value is not None:
                yield f"gpu{index}_{key}", value


def _host(samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Give medians, which a short burst does not move; pressure is the worse of the two scopes."""
    found: dict[str, Any] = {"n": len(samples)}
    for resource in PRESSURE:
        scopes = [_column(samples, f"psi{scope}_{resource}") for scope in ("", "_cgroup")]
        known = [median(values) for values in scopes if values]
        found[f"psi_{resource}"] = max(known) if known else None
    for key in ("host_cpu_percent", "cpu_percent", "load1"):
        values = _column(samples, key)
        found[key] = median(values) if values else None
    return found


def _allocator(samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Give what torch's GPU allocator did; empty on a CPU."""
    pairs = [
        (allocated, reserved)
        for sample in samples
        if (allocated := number(sample, "allocated_peak_mb"))
        and (reserved := number(sample, "reserved_peak_mb"))
    ]
    if not pairs:
        return {}
    return {
        "n": len(pairs),
        "allocated_peak_mb": max(allocated for allocated, _ in pairs),
        "reserved_peak_mb": max(reserved for _, reserved in pairs),
        "reserved_over_allocated": median(reserved / allocated for allocated, reserved in pairs),
        "retries": int(max(_column(samples, "alloc_retries"), default=0)),
        "ooms": int(max(_column(samples, "alloc_ooms"), default=0)),
    }


def _lacks(samples: Sequence[Mapping[str, Any]]) -> list[str]:
    """Give what the log says that no GPU could tell."""
    said = [sample["lacks"] for sample in samples if isinstance(sample.get("lacks"), list | tuple)]
    return [str(name) for name in said[-1]] if said else []


def _column(samples: Sequence[Mapping[str, Any]], key: str) -> list[float]:
    return [value for s in samples if (value := number(s, key)) is not None]


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
