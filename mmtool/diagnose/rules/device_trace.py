"""What a profiler's trace says of the device.

Reports how long the device was busy and with what, over the profiled steps. Warns when it stood
idle for more than 15 % of them, saying which of the causes the trace shows: kernels too short to
hide their launch, a host that waits for the device, or neither; and when more than 15 % went into
communication that nothing hid.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmtool.diagnose.facts import Facts
from mmtool.diagnose.finding import Finding

ORDER = 45
IDLE_SHARE = 0.15
EXPOSED_SHARE = 0.15
SYNC_SHARE = 0.10
SHORT_KERNEL_US = 10.0
MANY_KERNELS = 2000


def check(facts: Facts) -> list[Finding]:
    """Give one finding for each device of each rank."""
    trace = facts.run.tables.trace
    hosts = {host["rank"]: host for host in trace.get("hosts", ())}
    return [_finding(device, hosts.get(device["rank"], {})) for device in trace.get("devices", ())]


def _finding(device: Mapping[str, Any], host: Mapping[str, Any]) -> Finding:
    cause, advice = _cause(device, host)
    exposed = device["exposed_communication"]
    is_loud = device["idle"] > IDLE_SHARE or exposed > EXPOSED_SHARE
    parts = [f"{device['compute']:.0%} computing"]
    if device["communication"] > 0:
        parts.append(f"{device['communication']:.0%} communicating ({exposed:.0%} exposed)")
    if device["memcpy"] > 0:
        parts.append(f"{device['memcpy']:.0%} copying")
    what = (
        f"device {device['device']} of rank {device['rank']} was busy {device['busy']:.0%} of "
        f"{device['span_ms']:.1f} ms ({', '.join(parts)})"
    )
    return Finding(
        rule="device-trace",
        severity="warn" if is_loud else "info",
        what=f"{what}{cause}",
        evidence={**device, "sync": host.get("sync"), "idle_bound": IDLE_SHARE},
        advice=advice if is_loud else "",
    )


def _cause(device: Mapping[str, Any], host: Mapping[str, Any]) -> tuple[str, str]:
    if device["idle"] <= IDLE_SHARE:
        hidden = "bucket or overlap the gradient synchronisation, or accumulate gradients"
        return "", hidden if device["exposed_communication"] > EXPOSED_SHARE else ""
    median, per_step = device["kernel_p50_us"], device["kernels_per_step"]
    is_short = median is not None and median < SHORT_KERNEL_US
    if is_short or (per_step is not None and per_step > MANY_KERNELS):
        return (
            f"; it waits for launches: half of its kernels take less than {median:.1f} us",
            "a larger batch, torch.compile, CUDA graphs or a fused optimiser",
        )
    if host.get("sync", 0.0) > SYNC_SHARE:
        return (
            f"; the host waits for it in {host['sync']:.0%} of the time and then has to catch up",
            "fetch losses and metrics every so many steps, not with .item() in each",
        )
    return "; what it waits for is not in the trace", "see where the host's time goes: data?"
