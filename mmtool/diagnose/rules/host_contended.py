"""Tasks of this machine wait for a processor most of the time.

From the kernel's own account of pressure (PSI): the share of time in which some task could run and
had no processor, of the machine or of this process's container, whichever is worse. Where there is
none, of a run on the CPU: the time in which its own thread had no processor although it was to
compute. Times of this run say little while it lasts; results do not depend on it.
"""

from __future__ import annotations

from mmtool.diagnose.facts import Facts
from mmtool.diagnose.finding import Finding
from mmtool.diagnose.rules import _thresholds as limits


def check(facts: Facts) -> Finding | None:
    """Say that processors are short."""
    host = facts.system.get("host") or {}
    pressure = host.get("psi_cpu")
    running = facts.steps.processor_share if facts.steps else None
    if pressure is not None:
        is_short = pressure > limits.HOST_PRESSURE
        story = f"in {pressure:.0f} % of the time some task of this machine waited for a processor"
    elif running is not None:
        is_short = running < limits.PROCESSOR_SHARE
        story = f"training had a processor in {running:.0%} of the time in which it computed"
    else:
        return None
    if not is_short:
        return None
    return Finding(
        rule="host-contended",
        severity="info",
        what=f"{story}, so that this run's times are not those of a quiet machine",
        evidence={
            "n": host.get("n")
            if pressure is not None or facts.steps is None
            else facts.steps.num_steps,
            "psi_cpu_median": pressure,
            "psi_cpu_bound": limits.HOST_PRESSURE,
            "processor_share": running,
            "processor_share_bound": limits.PROCESSOR_SHARE,
            "host_cpu_percent": host.get("host_cpu_percent"),
            "cpu_percent_of_this_run": host.get("cpu_percent"),
            "load1": host.get("load1"),
        },
        advice="fewer jobs at a time, fewer threads (-s launch.threads=1), or another machine; "
        "what else runs here:\nmmtool doctor",
    )
