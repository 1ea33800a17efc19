"""Learning curves by epoch: fused, and per modality what the log holds."""

from __future__ import annotations

from typing import Any

from mmtool.diagnose.load import Run
from mmtool.diagnose.metrics.balance import share_history
from mmtool.diagnose.tables import number, rows

FUSED = ("acc", "loss", "f1_macro", "map", "mae", "pearson")
PER_MODALITY = ("acc", "nll", "probe", "probe_nll", "alone", "flip", "shift", "drop")


def curve_table(run: Run) -> dict[str, Any]:
    """Give every curve as a list of [epoch, value] by split and metric."""
    fused: dict[str, Any] = {}
    for row in rows(run.tables.epochs):
        for metric in FUSED:
            value = number(row, metric)
            if value is not None:
                points = fused.setdefault(str(row["split"]), {}).setdefault(metric, [])
                points.append((int(row["epoch"]), value))
    modalities: dict[str, Any] = {m: {} for m in run.modalities}
    for row in rows(run.tables.epoch_modalities):
        by_split = modalities.setdefault(str(row["modality"]), {})
        for metric in PER_MODALITY:
            value = number(row, metric)
            if value is not None:
                points = by_split.setdefault(str(row["split"]), {}).setdefault(metric, [])
                points.append((int(row["epoch"]), value))
    for name, by_split in modalities.items():
        shares = [(epoch, share.value) for epoch, share in share_history(run, name)]
        if shares:
            by_split.setdefault("val", {})["share"] = shares
    return {"fused": fused, "modalities": modalities}
