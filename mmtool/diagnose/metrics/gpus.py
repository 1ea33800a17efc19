"""How each GPU was used while steps were trained, from the samples that fell into training."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mmtool.diagnose.load import Run
from mmtool.diagnose.rules import _thresholds as limits
from mmtool.diagnose.tables import number, rows

POWER_BITS = 0x4 | 0x80
"""NVML's clock event reasons: software power cap, hardware power brake."""
HEAT_BITS = 0x8 | 0x20 | 0x40
"""Hardware slowdown, software and hardware thermal slowdown."""

Stretch = tuple[float, float]
"""From and until, seconds."""


@dataclass(frozen=True, slots=True)
class GpuUse:
    """One GPU over the samples taken while steps were trained; what is not known is None."""

    index: int
    n: int
    busy_percent: float | None
    """Time in which some kernel ran; one thread is enough."""
    sm_percent: float | None
    tensor_percent: float | None
    dram_percent: float | None
    occupancy_percent: float | None
    power_w: float | None
    power_limit_w: float | None
    sm_mhz: float | None
    temp_max_c: float | None
    mem_max_mb: float | None
    held_by_power: float | None
    """Share of samples in which the clock was held down by a limit on power."""
    held_by_heat: float | None
    foreign_max_mb: float | None
    """Memory of processes that are not of this run."""
    foreign_share: float | None
    """Share of samples in which there was one."""
    processes_max: int | None

    def as_dict(self) -> dict[str, Any]:
        """Give it as plain data."""
        return asdict(self)


def compute_gpus(run: Run) -> tuple[GpuUse, ...]:
    """Give the use of every GPU that the first rank sampled."""
    samples = training_samples(run)
    count = max((len(gpus_of(s)) for s in samples), default=0)
    return tuple(_use(index, _of(samples, index)) for index in range(count))


def gpus_of(sample: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Give the GPUs of a sample; none in one of a machine without."""
    gpus = sample.get("gpus")
    listed = gpus if isinstance(gpus, list | tuple) else []
    return [gpu if isinstance(gpu, Mapping) else {} for gpu in listed]


def first_rank_samples(run: Run) -> list[dict[str, Any]]:
    """Give the samples of the first rank that has any, by time."""
    frame = run.tables.system
    if not frame.empty and "rank" in frame.columns:
        frame = frame[frame["rank"] == frame["rank"].min()]
    found = [sample for sample in rows(frame) if number(sample, "t") is not None]
    return sorted(found, key=lambda sample: float(sample["t"]))


def training_samples(run: Run) -> list[dict[str, Any]]:
    """Give the samples whose time was mostly spent in steps: not at the start, not evaluating."""
    samples = first_rank_samples(run)
    started = [number(event, "t") for event in rows(run.tables.events, what="operators")]
    first = min((t for t in started if t is not None), default=None)
    evaluations = evaluation_stretches(run)
    kept, before = [], None
    for sample in samples:
        now = float(sample["t"])
        since = now if before is None else before
        before = now
        if first is not None and since < first:
            continue
        if _overlap((since, now), evaluations) > 0.5 * (now - since) > 0:
            continue
        kept.append(sample)
    return kept


def evaluation_stretches(run: Run) -> list[Stretch]:
    """Give when the model was evaluated rather than trained."""
    found = []
    for event in rows(run.tables.events, what="evaluation"):
        end, ms = number(event, "t"), number(event, "ms")
        if end is not None and ms is not None:
            found.append((end - ms / 1e3, end))
    return sorted(found)


def _overlap(stretch: Stretch, others: Iterable[Stretch]) -> float:
    return sum(max(0.0, min(stretch[1], b) - max(stretch[0], a)) for a, b in others)


def _of(samples: Sequence[Mapping[str, Any]], index: int) -> list[Mapping[str, Any]]:
    return [gpus[index] for sample in samples if len(gpus := gpus_of(sample)) > index]


def _use(index: int, samples: Sequence[Mapping[str, Any]]) -> GpuUse:
    reasons = [int(r) for r in _known(samples, "reasons")]
    foreign = _known(samples, "foreign_mb")
    processes = _known(samples, "processes")
    return GpuUse(
        index=index,
        n=len(samples),
        busy_percent=_mean(_known(samples, "util")),
        sm_percent=_mean(_known(samples, "sm")),
        tensor_percent=_mean(_known(samples, "tensor")),
        dram_percent=_mean(_known(samples, "dram")),
        occupancy_percent=_mean(_known(samples, "occupancy")),
        power_w=_mean(_known(samples, "power_w")),
        power_limit_w=_mean(_known(samples, "power_limit_w")),
        sm_mhz=_mean(_known(samples, "sm_mhz")),
        temp_max_c=max(_known(samples, "temp_c"), default=None),
        mem_max_mb=max(_known(samples, "mem_mb"), default=None),
        held_by_power=_mean([float(bool(r & POWER_BITS)) for r in reasons]),
        held_by_heat=_mean([float(bool(r & HEAT_BITS)) for r in reasons]),
        foreign_max_mb=max(foreign, default=None),
        foreign_share=_mean([float(mb > limits.FOREIGN_MB) for mb in foreign]),
        processes_max=int(max(processes)) if processes else None,
    )


def _known(samples: Sequence[Mapping[str, Any]], key: str) -> list[float]:
    values = [number(sample, key) for sample in samples]
    return [value for value in values if value is not None and value == value]


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
