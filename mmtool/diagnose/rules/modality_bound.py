"""One modality's encoder takes most of the time and is hardly relied on.

Compares what an encoder costs, forward and backward, with what its modality contributes to the
decision: more than six tenths of the computing time, and less than half a fair share of the
reliance. Costly encoders that are relied on are where the money should go.
"""

from __future__ import annotations

from collections.abc import Iterator

from mmtool.diagnose.facts import Facts
from mmtool.diagnose.finding import Finding
from mmtool.diagnose.metrics.encoders import EncoderTime
from mmtool.diagnose.rules import _thresholds as limits
from mmtool.diagnose.rules._advice import recipe_argument

NEEDS = ("steps.ms_step", "step_modalities.forward_ms")
IS_OPTIONAL = True


def check(facts: Facts) -> Iterator[Finding]:
    """Name the encoder whose time is not worth it."""
    times, balance = facts.steps, facts.balance
    if times is None or balance is None or len(times.encoders) < 2:
        return
    shares = {m.modality: m.share for m in balance.modalities if m.share is not None}
    fair = 1 / len(facts.run.modalities)
    for encoder in times.encoders:
        reliance = shares.get(encoder.modality)
        if encoder.share <= limits.MODALITY_SHARE or reliance is None:
            continue
        if reliance.high >= limits.MODALITY_OF_FAIR * fair:
            continue
        freezing = (encoder.backward_ms or 0.0) / times.step.mean_ms
        yield Finding(
            rule="modality-bound",
            severity="warn",
            modality=encoder.modality,
            what=(
                f"the {encoder.modality} encoder takes {encoder.share:.0%} of forward and backward "
                f"time while {reliance.value:.0%} of the reliance is on {encoder.modality}"
            ),
            evidence={
                "n": encoder.num_steps,
                "time_share": encoder.share,
                "time_share_bound": limits.MODALITY_SHARE,
                "share_of_step": encoder.share_of_step,
                "forward_ms": encoder.forward_ms,
                "backward_ms": encoder.backward_ms,
                "reliance_share": reliance.value,
                "reliance_share_ci95": [reliance.low, reliance.high],
                "reliance_share_bound": limits.MODALITY_OF_FAIR * fair,
                "gain_without_it": 1 / max(1 - encoder.share_of_step, 1e-3),
                "gain_frozen": 1 / max(1 - freezing, 1e-3),
            },
            advice=_advice(facts, encoder),
        )


def _advice(facts: Facts, encoder: EncoderTime) -> str:
    without = ",".join(m for m in facts.run.modalities if m != encoder.modality)
    recipe = recipe_argument(facts.run)
    return (
        f"first see the verdict on balance: if {encoder.modality} is under-trained, train it "
        "better before saving on it. Otherwise take a smaller encoder, fewer frames or a lower "
        f"resolution, or see what is lost without it:\n"
        f"mmtool train {recipe} -s 'data.modalities={without}'"
    )
