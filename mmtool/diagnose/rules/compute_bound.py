"""The GPU's tensor cores are well used: there is little to gain but by less arithmetic.

Needs the counters that Hopper and later devices keep. This is the good case.
"""

from __future__ import annotations

from mmtool.diagnose.facts import Facts
from mmtool.diagnose.finding import Finding
from mmtool.diagnose.rules import _thresholds as limits

NEEDS = ("system.gpus",)
IS_OPTIONAL = True


def check(facts: Facts) -> Finding | None:
    """Say that arithmetic is what limits the speed."""
    for gpu in facts.system.get("gpus") or ():
        tensor = gpu["tensor_percent"]
        if tensor is None or gpu["n"] < limits.MIN_GPU_SAMPLES:
            continue
        if tensor <= limits.COMPUTE_TENSOR_PERCENT:
            continue
        return Finding(
            rule="compute-bound",
            severity="info",
            what=f"GPU {gpu['index']} uses {tensor:.0f} % of its tensor cores: arithmetic limits "
            "the speed, as it should",
            evidence={
                "n": gpu["n"],
                "gpu": gpu["index"],
                "tensor_percent": tensor,
                "tensor_percent_bound": limits.COMPUTE_TENSOR_PERCENT,
                "sm_percent": gpu["sm_percent"],
                "dram_percent": gpu["dram_percent"],
            },
            advice="more speed needs more GPUs (--gpus N) or a smaller model",
        )
    return None
