"""How busy a GPU's parts are, from the counters that Hopper and later devices keep (NVML's GPM).

"Utilisation" says that some kernel was resident, one thread is enough; these say how many of the
multiprocessors worked, how much of the time the tensor cores did, and what part of the memory's
bandwidth was used. They sit in a block of hardware of their own, so that profilers are not
disturbed. A number is the mean between two readings.
"""

from typing import Any, Self

from mmtool.runlog.nvml import ask

METRICS = {"sm": 2, "occupancy": 3, "tensor": 5, "dram": 10}
"""Names in the run log, and NVML's numbers for them; each is a percentage."""


class GpmReader:
    """Reads one device; a device without these counters has no reader."""

    def __init__(self, nvml: Any, handle: Any, samples: list[Any]) -> None:
        self._nvml, self._handle = nvml, handle
        self._samples = samples
        """The reading before, and room for the next one."""
        self._has_before = False

    @classmethod
    def open(cls, nvml: Any, handle: Any) -> Self | None:
        """Give a reader, None where the device or the library does not have the counters."""
        support = ask(getattr(nvml, "nvmlGpmQueryDeviceSupport", None), handle)
        if support is None or not support.isSupportedDevice:
            return None
        samples = [ask(nvml.nvmlGpmSampleAlloc) for _ in range(2)]
        return None if None in samples else cls(nvml, handle, samples)

    def read(self) -> dict[str, float | None]:
        """Give each metric since the reading before, None for all at the first one."""
        found: dict[str, float | None] = dict.fromkeys(METRICS)
        before, now = self._samples
        if ask(self._nvml.nvmlGpmSampleGet, self._handle, now) is None:
            self._has_before = False
            return found
        if self._has_before:
            found |= ask(self._between, before, now) or {}
        self._has_before = True
        self._samples = [now, before]
        return found

    def close(self) -> None:
        """Give the readings back to the driver."""
        for sample in self._samples:
            ask(self._nvml.nvmlGpmSampleFree, sample)
        self._samples = []

    def _between(self, before: Any, now: Any) -> dict[str, float]:
        wanted = self._nvml.c_nvmlGpmMetricsGet_t()
        wanted.version = self._nvml.NVML_GPM_METRICS_GET_VERSION
        wanted.numMetrics = len(METRICS)
        wanted.sample1, wanted.sample2 = before, now
        for place, number in enumerate(METRICS.values()):
            wanted.metrics[place].metricId = number
        if ask(self._nvml.nvmlGpmMetricsGet, wanted) is None:
            return {}
        answers = zip(METRICS, wanted.metrics, strict=False)
        return {name: float(m.value) for name, m in answers if m.nvmlReturn == 0}
