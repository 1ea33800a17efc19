"""A GPU's clock is held down by heat or by its power limit.

From NVML's reasons for the current clock, which are bits: heat and hardware slowdown are a fault of
cooling, a power cap is a setting of the machine and usual at full load.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mmtool.diagnose.facts import Facts
from mmtool.diagnose.finding import Finding, Severity
from mmtool.diagnose.rules import _thresholds as limits

NEEDS = ("system.gpus",)
IS_OPTIONAL = True


def check(facts: Facts) -> Iterator[Finding]:
    """Name the GPUs that could run faster."""
    for gpu in facts.system.get("gpus") or ():
        if gpu["n"] < limits.MIN_GPU_SAMPLES:
            continue
        heat, power = gpu["held_by_heat"], gpu["held_by_power"]
        if heat is not None and heat > limits.THROTTLED_SHARE:
            hot = gpu["temp_max_c"]
            yield _finding(
                gpu,
                "warn",
                heat,
                f"by heat or a hardware fault{'' if hot is None else f', up to {hot:.0f} C'}",
                "cooling of the machine, or a lower power limit:\nnvidia-smi -q -d PERFORMANCE",
            )
        elif power is not None and power > limits.THROTTLED_SHARE:
            limit = gpu["power_limit_w"]
            yield _finding(
                gpu,
                "info",
                power,
                f"by its power limit{'' if limit is None else f' of {limit:.0f} W'}",
                "usual at full load; whether the limit is the highest one:\nnvidia-smi -q -d POWER",
            )


def _finding(
    gpu: Mapping[str, Any], severity: Severity, share: float, why: str, advice: str
) -> Finding:
    return Finding(
        rule="throttled",
        severity=severity,
        what=f"the clock of GPU {gpu['index']} is held down {share:.0%} of the time {why}",
        evidence={
            "n": gpu["n"],
            "gpu": gpu["index"],
            "share": share,
            "share_bound": limits.THROTTLED_SHARE,
            "held_by_heat": gpu["held_by_heat"],
            "held_by_power": gpu["held_by_power"],
            "sm_mhz": gpu["sm_mhz"],
            "temp_max_c": gpu["temp_max_c"],
            "power_w": gpu["power_w"],
            "power_limit_w": gpu["power_limit_w"],
        },
        advice=advice,
    )
