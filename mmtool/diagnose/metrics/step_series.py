"""How the time of a step went over the run: median and 95th percentile of equal parts."""

from __future__ import annotations

from typing import Any

import numpy as np

from mmtool.diagnose.load import Run
from mmtool.diagnose.tables import has

NUM_PARTS = 100


def step_series(run: Run) -> list[dict[str, Any]]:
    """Give {step, p50_ms, p95_ms} for at most so many parts; `step` is where the part begins."""
    steps = run.tables.steps
    if steps.empty or not has(steps, "ms_step"):
        return []
    if "rank" in steps:
        steps = steps[steps["rank"] == steps["rank"].min()]
    timed = steps[steps["ms_step"].notna() & (steps["ms_step"] > 0)]
    place, times = timed["step"].to_numpy(), timed["ms_step"].to_numpy(dtype=float)
    parts = np.array_split(np.arange(len(times)), min(NUM_PARTS, len(times)))
    return [
        {
            "step": int(place[part[0]]),
            "p50_ms": float(np.quantile(times[part], 0.5)),
            "p95_ms": float(np.quantile(times[part], 0.95)),
        }
        for part in parts
        if len(part)
    ]
