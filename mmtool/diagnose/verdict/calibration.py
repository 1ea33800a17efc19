"""How well confidence fits correctness, of the fused answer and of every modality's probe.

ECE     bins of equally many samples; within a bin the squared difference of mean confidence and
        accuracy, less the part that is due to its few samples (Brocker 2012; Kumar et al. 2019):
        max(0, d^2 - p (1 - p) / (n_b - 1)); the root of the mean over bins
NLL     mean negative log probability of the label, clipped as it was stored
Brier   of the class answered: mean of (confidence - right)^2
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mmtool.diagnose.verdict.estimates import Floats
from mmtool.diagnose.verdict.from_deep import DeepEvidence

MOST_BINS = 15
LEAST_IN_BIN = 20


def calibration_table(deep: DeepEvidence) -> dict[str, Any]:
    """Give the calibration of the fused answer and of the probes as plain data."""
    val = deep.val
    if val.is_regression:
        return {}
    whole = val.record.subset(*val.modalities)
    parts = {}
    conf, right, gain = val.array("conf"), val.values("mean"), val.values("mean", "gain")
    if right is not None:
        parts["fused"] = _row(
            None if conf is None else conf[whole].astype(np.float64),
            right[whole],
            None if gain is None else gain[whole],
        )
    for m in val.modalities:
        scores = val.score(f"probe/{m}")
        if scores is not None:
            confidence = val.array(f"probe/{m}.conf")
            parts[m] = _row(
                None if confidence is None else confidence.astype(np.float64),
                scores,
                val.score(f"probe/{m}", "gain"),
            )
    return parts


def _row(conf: Floats | None, right: Floats, gain: Floats | None) -> dict[str, Any]:
    there = np.isfinite(right)
    row: dict[str, Any] = {"ece": None, "nll": None, "brier": None, "n": int(there.sum())}
    if gain is not None and there.any():
        row["nll"] = float(-gain[there].mean())
    # With several labels one sample has many confidences, of which only the largest is stored.
    is_one_answer = bool(np.isin(right[there], (0.0, 1.0)).all())
    if conf is not None and there.any() and is_one_answer:
        row["ece"] = calibration_error(conf[there], right[there])
        row["brier"] = float(((conf[there] - right[there]) ** 2).mean())
    return row


def calibration_error(conf: Floats, right: Floats) -> float | None:
    """Give the debiased calibration error over bins of equally many samples."""
    num_bins = min(MOST_BINS, len(conf) // LEAST_IN_BIN)
    if num_bins < 2:
        return None
    order = np.argsort(conf, kind="stable")
    total = 0.0
    for rows in np.array_split(order, num_bins):
        hit = float(right[rows].mean())
        squared = (float(conf[rows].mean()) - hit) ** 2
        total += len(rows) * (squared - hit * (1 - hit) / (len(rows) - 1))
    return float(np.sqrt(max(total / len(conf), 0.0)))
