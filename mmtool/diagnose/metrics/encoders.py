"""What each encoder's forward and backward pass cost, over the steady steps of the first rank."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from mmtool.diagnose.load import Run
from mmtool.diagnose.tables import has


@dataclass(frozen=True, slots=True)
class EncoderTime:
    """Mean milliseconds per step of one encoder."""

    modality: str
    forward_ms: float
    backward_ms: float | None
    """None where nothing was differentiated through the encoder, or it was not measured."""
    share: float
    """Of the forward and backward time of the step."""
    share_of_step: float
    num_steps: int

    @property
    def ms(self) -> float:
        """Both passes."""
        return self.forward_ms + (self.backward_ms or 0.0)


def compute_encoders(run: Run, steady: pd.DataFrame) -> tuple[EncoderTime, ...]:
    """Give the time of every encoder that was measured; none where encoders run as one."""
    table = run.tables.step_modalities
    if not has(table, "forward_ms"):
        return ()
    if "rank" in table.columns:
        table = table[table["rank"] == table["rank"].min()]
    table = table[table["step"].isin(steady["step"]) & table["forward_ms"].notna()]
    computing = sum(
        float(steady[column].fillna(0.0).mean())
        for column in ("ms_forward", "ms_backward")
        if has(steady, column)
    )
    step = float(steady["ms_step"].mean())
    found = []
    for modality in run.modalities:
        mine = table[table["modality"] == modality]
        if mine.empty:
            continue
        # A step that leaves an encoder out costs nothing there, but counts.
        scale = len(mine) / len(steady)
        forward = float(mine["forward_ms"].mean()) * scale
        backward = None
        if has(mine, "backward_ms"):
            backward = float(mine["backward_ms"].fillna(0.0).mean()) * scale
        total = forward + (backward or 0.0)
        share = min(1.0, total / computing) if computing > 0 else 0.0
        of_step = min(1.0, total / step) if step > 0 else 0.0
        found.append(EncoderTime(modality, forward, backward, share, of_step, len(mine)))
    return tuple(found)
