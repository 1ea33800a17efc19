"""What one GPU says of itself: how busy, how hot, how much energy, and who else is on it."""

from collections.abc import Collection
from typing import Any

from mmtool.runlog.gpm import GpmReader
from mmtool.runlog.nvml import ask

_MIB = 2**20
_TEMPERATURE_OF_GPU = 0
_CLOCK_OF_SM = 1
_UNKNOWN_MEMORY = 2**64 - 1
"""What NVML says of a process whose memory it cannot tell."""


class GpuGauge:
    """Asks one GPU the same questions again and again; what it cannot tell is None.

    `own` are the processes of this run: the memory of others is that of a foreign tenant.
    """

    def __init__(self, nvml: Any, handle: Any, own: Collection[int] = ()) -> None:
        self._nvml, self._handle = nvml, handle
        self._own = frozenset(own)
        self._gpm = GpmReader.open(nvml, handle)

    def sample(self) -> dict[str, float | None]:
        """Give percentages, MiB, watts, joules since the driver was loaded, MHz and degrees.

        `util` is the time in which some kernel ran; `sm`, `occupancy`, `tensor` and `dram` are
        means since the sample before; `reasons` are NVML's bits for why clocks are held down.
        """
        nvml, handle = self._nvml, self._handle
        util = ask(nvml.nvmlDeviceGetUtilizationRates, handle)
        memory = ask(nvml.nvmlDeviceGetMemoryInfo, handle)
        fields: dict[str, float | None] = {
            "util": None if util is None else float(util.gpu),
            "mem_mb": None if memory is None else memory.used / _MIB,
            "power_w": self._scaled("nvmlDeviceGetPowerUsage"),
            "power_limit_w": self._scaled("nvmlDeviceGetEnforcedPowerLimit"),
            "energy_j": self._scaled("nvmlDeviceGetTotalEnergyConsumption"),
            "temp_c": ask(nvml.nvmlDeviceGetTemperature, handle, _TEMPERATURE_OF_GPU),
            "sm_mhz": self._answer("nvmlDeviceGetClockInfo", _CLOCK_OF_SM),
            "reasons": self._reasons(),
        }
        return fields | self._processes() | self._parts()

    def close(self) -> None:
        """Give back what the driver keeps for this gauge."""
        if self._gpm is not None:
            self._gpm.close()

    def _answer(self, question: str, *arguments: Any) -> float | None:
        return ask(getattr(self._nvml, question, None), self._handle, *arguments)

    def _scaled(self, question: str) -> float | None:
        """Give the answer to a question that is answered in thousandths."""
        answer = self._answer(question)
        return None if answer is None else answer / 1000

    def _reasons(self) -> float | None:
        """Give the bits; older drivers know the question under its older name."""
        new = self._answer("nvmlDeviceGetCurrentClocksEventReasons")
        return self._answer("nvmlDeviceGetCurrentClocksThrottleReasons") if new is None else new

    def _processes(self) -> dict[str, float | None]:
        """Count the processes that compute on the device, and the memory of those not ours.

        In a container the driver's numbers of processes are not ours, and whose is whose is
        unknown.
        """
        found = ask(getattr(self._nvml, "nvmlDeviceGetComputeRunningProcesses", None), self._handle)
        if found is None:
            return {"processes": None, "foreign_mb": None}
        used = {p.pid: p.usedGpuMemory for p in found}
        foreign: float | None = None
        if self._own & used.keys():
            others = [m for pid, m in used.items() if pid not in self._own]
            foreign = sum(m for m in others if m is not None and m != _UNKNOWN_MEMORY) / _MIB
        return {"processes": float(len(used)), "foreign_mb": foreign}

    def _parts(self) -> dict[str, float | None]:
        return {} if self._gpm is None else self._gpm.read()
