"""What a profiler's trace says of the device: exact where it was taken, for the steps it holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mmtool.diagnose.load import Run
from mmtool.diagnose.tables import number


@dataclass(frozen=True, slots=True)
class Traced:
    """The device that stands still most, and the host of its rank; shares of the traced time."""

    rank: int
    idle: float
    exposed_communication: float
    kernels_per_step: float | None
    kernel_p50_us: float | None
    num_kernels: int
    blocked: float
    """Time in which the host waited for the device."""
    num_blocks: int
    num_steps: int

    def as_evidence(self) -> dict[str, Any]:
        """Give the numbers for a finding."""
        return {
            "n": self.num_kernels,
            "num_steps": self.num_steps,
            "rank": self.rank,
            "idle_share": self.idle,
            "exposed_communication_share": self.exposed_communication,
            "kernels_per_step": self.kernels_per_step,
            "kernel_p50_us": self.kernel_p50_us,
            "host_blocked_share": self.blocked,
            "num_host_waits": self.num_blocks,
            "source": "trace",
        }


def compute_traced(run: Run) -> Traced | None:
    """Give the facts of a trace, None where the run is none or no device is in it."""
    devices = run.tables.trace.get("devices") or []
    if not devices:
        return None
    worst = max(devices, key=lambda device: number(device, "idle") or 0.0)
    rank = worst.get("rank", 0)
    hosts = [host for host in run.tables.trace.get("hosts") or () if host.get("rank", 0) == rank]
    host = hosts[0] if hosts else {}
    return Traced(
        rank=int(rank),
        idle=number(worst, "idle") or 0.0,
        exposed_communication=max(number(d, "exposed_communication") or 0.0 for d in devices),
        kernels_per_step=number(worst, "kernels_per_step"),
        kernel_p50_us=number(worst, "kernel_p50_us"),
        num_kernels=int(number(worst, "num_kernels") or 0),
        blocked=number(host, "sync") or 0.0,
        num_blocks=int(number(host, "num_syncs") or 0),
        num_steps=int(number(host, "num_steps") or 0),
    )
