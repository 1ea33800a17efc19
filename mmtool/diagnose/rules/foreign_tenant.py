"""Another process computes on a GPU of this run.

From the list of processes that NVML keeps. In a container its numbers are not those of this run's
processes; then more than one process, or memory that nobody of this run asked for, is what tells.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mmtool.diagnose.facts import Facts
from mmtool.diagnose.finding import Finding
from mmtool.diagnose.rules import _thresholds as limits

NEEDS = ("system.gpus",)
IS_OPTIONAL = True


def check(facts: Facts) -> Iterator[Finding]:
    """Name the GPUs that are shared."""
    gpus = facts.system.get("gpus") or ()
    reserved = (facts.system.get("allocator") or {}).get("reserved_peak_mb")
    for gpu in gpus:
        if gpu["n"] < limits.MIN_GPU_SAMPLES:
            continue
        # The allocator's numbers are of one process, hence of one GPU.
        found = _stranger(gpu, reserved if len(gpus) == 1 else None)
        if found is None:
            continue
        story, how = found
        yield Finding(
            rule="foreign-tenant",
            severity="warn",
            what=f"GPU {gpu['index']} is shared with another process: {story}",
            evidence={
                "n": gpu["n"],
                "gpu": gpu["index"],
                "how": how,
                "foreign_max_mb": gpu["foreign_max_mb"],
                "foreign_share": gpu["foreign_share"],
                "foreign_bound_mb": limits.FOREIGN_MB,
                "processes_max": gpu["processes_max"],
                "used_max_mb": gpu["mem_max_mb"],
                "reserved_peak_mb": reserved,
            },
            advice="times and energy of this run include that of the other. Who it is:\nnvidia-smi",
        )


def _stranger(gpu: Mapping[str, Any], reserved: float | None) -> tuple[str, str] | None:
    foreign, processes, used = gpu["foreign_max_mb"], gpu["processes_max"], gpu["mem_max_mb"]
    if foreign is not None:
        if foreign <= limits.FOREIGN_MB:
            return None
        story = f"up to {foreign:.0f} MB are not of this run, in {gpu['foreign_share']:.0%}"
        return f"{story} of the samples", "by process"
    if processes is not None and processes > 1:
        return f"{processes} processes compute on it", "by number of processes"
    if reserved and used is not None and used - reserved > limits.CONTEXT_MB:
        return f"{used - reserved:.0f} MB more are in use than torch holds", "by memory"
    return None
