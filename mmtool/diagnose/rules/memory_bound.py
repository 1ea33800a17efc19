"""The GPU is busy moving data between its memory and its cores.

Needs the counters that Hopper and later devices keep: bandwidth of the memory above six tenths of
what it can do while the tensor cores are hardly used. Other devices are not judged.
"""

from __future__ import annotations

from mmtool.diagnose.facts import Facts
from mmtool.diagnose.finding import Finding
from mmtool.diagnose.rules import _thresholds as limits
from mmtool.diagnose.rules._advice import recipe_argument

NEEDS = ("system.gpus",)
IS_OPTIONAL = True


def check(facts: Facts) -> Finding | None:
    """Say that memory is what limits the speed."""
    for gpu in facts.system.get("gpus") or ():
        dram, tensor = gpu["dram_percent"], gpu["tensor_percent"]
        if dram is None or tensor is None or gpu["n"] < limits.MIN_GPU_SAMPLES:
            continue
        if dram <= limits.MEMORY_DRAM_PERCENT or tensor >= limits.MEMORY_TENSOR_PERCENT:
            continue
        is_full_precision = facts.run.option("train", "precision") in (None, "fp32")
        first = "train.precision=bf16" if is_full_precision else "launch.compile=true"
        return Finding(
            rule="memory-bound",
            severity="info",
            what=(
                f"GPU {gpu['index']} uses {dram:.0f} % of its memory's bandwidth and "
                f"{tensor:.0f} % of its tensor cores: moving data limits the speed"
            ),
            evidence={
                "n": gpu["n"],
                "gpu": gpu["index"],
                "dram_percent": dram,
                "dram_percent_bound": limits.MEMORY_DRAM_PERCENT,
                "tensor_percent": tensor,
                "tensor_percent_bound": limits.MEMORY_TENSOR_PERCENT,
                "sm_percent": gpu["sm_percent"],
            },
            advice="fewer bytes per value, or operators that are fused:\n"
            f"mmtool train {recipe_argument(facts.run)} -s {first}",
        )
    return None
