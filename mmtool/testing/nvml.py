"""A machine with GPUs that do what a test says, behind the questions asked of NVIDIA's NVML.

    nvml = FakeNvml([FakeGpu(util=97, power_w=400, parts={"sm": 80.0, "tensor": 55.0})])
    sampler = SystemSampler(write, 1.0, connect=lambda: nvml)
    nvml.advance(1.0)           # a second passes: energy is taken, counters move on

What a GPU leaves None it does not support, as older ones and virtual ones do.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from mmtool.runlog.gpm import METRICS

_MIB = 2**20


class NotSupported(Exception):
    """The device does not know the question."""


@dataclass(slots=True)
class FakeGpu:
    """One GPU; every number may be changed between two samples."""

    name: str = "NVIDIA H100 80GB HBM3"
    uuid: str = "GPU-aa"
    util: float | None = 0.0
    total_mb: float = 81_559.0
    used_mb: float = 0.0
    power_w: float | None = 70.0
    power_limit_w: float | None = 700.0
    energy_j: float | None = 0.0
    temp_c: float | None = 40.0
    sm_mhz: float | None = 1980.0
    reasons: int | None = 0
    processes: dict[int, float | None] | None = field(default_factory=dict)
    """Memory in MiB by process."""
    parts: Mapping[str, float] | None = None
    """Percentages of Hopper's counters; None on a device without."""


@dataclass(slots=True)
class _Reading:
    """What one GPM sample holds."""

    seconds: float = 0.0
    busy: dict[str, float] = field(default_factory=dict)


class FakeNvml:
    """Stands in for the module `pynvml`; its clock moves only by `advance`."""

    NVML_GPM_METRICS_GET_VERSION = 1

    def __init__(self, gpus: Sequence[FakeGpu], *, has_older_names: bool = False) -> None:
        self.gpus = list(gpus)
        self.num_shutdowns = 0
        self.num_open_readings = 0
        self._seconds = 0.0
        self._busy: list[dict[str, float]] = [{} for _ in gpus]
        if has_older_names:
            self.nvmlDeviceGetCurrentClocksThrottleReasons = self._reasons
        else:
            self.nvmlDeviceGetCurrentClocksEventReasons = self._reasons

    def advance(self, seconds: float) -> None:
        """Let time pass for every GPU as it is now."""
        self._seconds += seconds
        for gpu, busy in zip(self.gpus, self._busy, strict=True):
            if gpu.energy_j is not None:
                gpu.energy_j += (gpu.power_w or 0.0) * seconds
            for name, percent in (gpu.parts or {}).items():
                busy[name] = busy.get(name, 0.0) + percent * seconds

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        """Count the GPUs."""
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        """Give a handle, which is the number itself."""
        return range(len(self.gpus))[index]

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> int:  # noqa: N802
        """Give the handle of the GPU of this name."""
        return [gpu.uuid for gpu in self.gpus].index(uuid)

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> Any:  # noqa: N802
        """Give the time in which some kernel ran."""
        return SimpleNamespace(gpu=_known(self.gpus[handle].util), memory=0)

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:  # noqa: N802
        """Give bytes in all and in use."""
        gpu = self.gpus[handle]
        return SimpleNamespace(total=int(gpu.total_mb * _MIB), used=int(gpu.used_mb * _MIB))

    def nvmlDeviceGetPowerUsage(self, handle: int) -> int:  # noqa: N802
        """Give milliwatts."""
        return round(1000 * _known(self.gpus[handle].power_w))

    def nvmlDeviceGetEnforcedPowerLimit(self, handle: int) -> int:  # noqa: N802
        """Give milliwatts."""
        return round(1000 * _known(self.gpus[handle].power_limit_w))

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: int) -> int:  # noqa: N802
        """Give millijoules since the driver was loaded."""
        return round(1000 * _known(self.gpus[handle].energy_j))

    def nvmlDeviceGetTemperature(self, handle: int, sensor: int) -> float:  # noqa: N802
        """Give degrees."""
        del sensor
        return _known(self.gpus[handle].temp_c)

    def nvmlDeviceGetClockInfo(self, handle: int, clock: int) -> float:  # noqa: N802
        """Give MHz of the multiprocessors."""
        if clock != 1:
            raise NotSupported
        return _known(self.gpus[handle].sm_mhz)

    def nvmlDeviceGetComputeRunningProcesses(self, handle: int) -> list[Any]:  # noqa: N802
        """Give processes with their memory in bytes, None where the driver hides it."""
        found = self.gpus[handle].processes
        if found is None:
            raise NotSupported
        return [
            SimpleNamespace(pid=pid, usedGpuMemory=None if mb is None else int(mb * _MIB))
            for pid, mb in found.items()
        ]

    def nvmlDeviceGetName(self, handle: int) -> bytes:  # noqa: N802
        """Give the name of the product, in bytes as older libraries do."""
        return self.gpus[handle].name.encode()

    def nvmlDeviceGetUUID(self, handle: int) -> str:  # noqa: N802
        """Give the name of this one."""
        return self.gpus[handle].uuid

    def nvmlSystemGetDriverVersion(self) -> str:  # noqa: N802
        """Give the driver's version."""
        return "580.82.07"

    def nvmlGpmQueryDeviceSupport(self, handle: int) -> Any:  # noqa: N802
        """Tell whether the device has counters of its parts."""
        return SimpleNamespace(isSupportedDevice=int(self.gpus[handle].parts is not None))

    def nvmlGpmSampleAlloc(self) -> _Reading:  # noqa: N802
        """Give room for a reading."""
        self.num_open_readings += 1
        return _Reading()

    def nvmlGpmSampleFree(self, reading: _Reading) -> None:  # noqa: N802
        """Take the room back."""
        del reading
        self.num_open_readings -= 1

    def nvmlGpmSampleGet(self, handle: int, reading: _Reading) -> _Reading:  # noqa: N802
        """Read the counters, which only ever grow."""
        reading.seconds, reading.busy = self._seconds, dict(self._busy[handle])
        return reading

    def c_nvmlGpmMetricsGet_t(self) -> Any:  # noqa: N802
        """Give an empty question about two readings."""
        metrics = [SimpleNamespace(metricId=0, nvmlReturn=0, value=0.0) for _ in METRICS]
        return SimpleNamespace(version=0, numMetrics=0, sample1=None, sample2=None, metrics=metrics)

    def nvmlGpmMetricsGet(self, wanted: Any) -> Any:  # noqa: N802
        """Answer it: the mean percentage between the readings."""
        names = {number: name for name, number in METRICS.items()}
        seconds = wanted.sample2.seconds - wanted.sample1.seconds
        for metric in wanted.metrics[: wanted.numMetrics]:
            name = names[metric.metricId]
            is_known = name in wanted.sample2.busy and seconds > 0
            metric.nvmlReturn = 0 if is_known else 3
            if is_known:
                before = wanted.sample1.busy.get(name, 0.0)
                metric.value = (wanted.sample2.busy[name] - before) / seconds
        return wanted

    def nvmlShutdown(self) -> None:  # noqa: N802
        """End."""
        self.num_shutdowns += 1

    def _reasons(self, handle: int) -> int:
        return int(_known(self.gpus[handle].reasons))


def _known(value: float | None) -> float:
    if value is None:
        raise NotSupported
    return value
