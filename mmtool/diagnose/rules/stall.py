"""Training stands still between its steps, or some steps take many times as long as the others.

Evaluation is no stall: it is told apart by its own events, and only remarked upon where it takes a
third of the time. What a checkpoint keeps training waiting for is one, and so is any pause longer
than ten median steps. Fires when pauses take a tenth of the loop, or a fiftieth if there are a few;
a diffuse rest of a tenth is remarked upon.
"""

from __future__ import annotations

from collections.abc import Iterator

from mmtool.diagnose.facts import Facts
from mmtool.diagnose.finding import Finding
from mmtool.diagnose.metrics.loop import Loop
from mmtool.diagnose.metrics.steps import StepTimes
from mmtool.diagnose.rules import _thresholds as limits
from mmtool.diagnose.rules._advice import recipe_argument

NEEDS = ("steps.ms_step", "steps.ms_between")
IS_OPTIONAL = True
MOST_STEPS = 5


def check(facts: Facts) -> Iterator[Finding]:
    """Name pauses with their causes, and evaluation that takes a large part."""
    times = facts.steps
    loop = times.loop if times else None
    if times is None or loop is None or times.num_steps < limits.MIN_STEPS:
        return
    paused = loop.share(loop.paused_ms)
    is_outlying = len(loop.pauses) >= limits.MIN_PAUSES and paused > limits.PAUSE_LEAST_SHARE
    rest = loop.share(loop.checkpoint_ms + loop.unknown_ms)
    if paused > limits.PAUSE_SHARE or is_outlying:
        yield _stalled(facts, times, loop)
    elif rest > limits.PAUSE_SHARE:
        yield _diffuse(times, loop, rest)
    evaluation = loop.share(loop.evaluation_ms)
    if evaluation > limits.EVALUATION_SHARE:
        yield Finding(
            rule="stall",
            severity="info",
            what=f"evaluation takes {evaluation:.0%} of the training loop "
            f"({loop.num_evaluations} evaluations)",
            evidence={
                "n": times.num_steps,
                "evaluation_share": evaluation,
                "num_evaluations": loop.num_evaluations,
                "bound": limits.EVALUATION_SHARE,
            },
            advice="fewer samples of the training split are evaluated with:\n"
            f"mmtool train {recipe_argument(facts.run)} -s log.train_samples=128",
        )


def _stalled(facts: Facts, times: StepTimes, loop: Loop) -> Finding:
    by_cause: dict[str, float] = {}
    for pause in loop.pauses:
        by_cause[pause.cause] = by_cause.get(pause.cause, 0.0) + pause.ms
    main = max(by_cause, key=lambda cause: by_cause[cause])
    paused = loop.share(loop.paused_ms)
    longest = loop.pauses[0]
    story = {
        "checkpoint": "while a checkpoint is written",
        "step": "within single steps",
        "unknown": "between steps, for no reason that is in the log",
    }[main]
    return Finding(
        rule="stall",
        severity="warn",
        what=(
            f"training stands still {paused:.0%} of the time, mostly {story}: "
            f"{len(loop.pauses)} pauses, the longest {longest.ms / 1e3:.1f} s at step "
            f"{longest.step} (a step takes {times.step.p50_ms:.0f} ms)"
        ),
        evidence={
            "n": times.num_steps,
            "paused_share": paused,
            "paused_share_bound": limits.PAUSE_SHARE,
            "num_pauses": len(loop.pauses),
            "paused_ms_by_cause": by_cause,
            "cause": main,
            "steps": [pause.step for pause in loop.pauses[:MOST_STEPS]],
            "max_over_median": times.max_over_median,
            "evaluation_share": loop.share(loop.evaluation_ms),
            "predicted_gain": 1 / max(1 - paused, 1e-3),
        },
        advice=_advice(facts, main),
    )


def _advice(facts: Facts, cause: str) -> str:
    recipe = recipe_argument(facts.run)
    if cause == "checkpoint":
        return (
            "write checkpoints to a faster disk (--runs-dir), or less often:\n"
            f"mmtool train {recipe} -s train.checkpoint_every_steps=N"
        )
    return (
        "look for another process on this machine and for a disk that other jobs use; a trace of a "
        f"few steps shows what a step does:\nmmtool profile {recipe} --trace trace.json"
    )


def _diffuse(times: StepTimes, loop: Loop, rest: float) -> Finding:
    return Finding(
        rule="stall",
        severity="info",
        what=f"{rest:.0%} of the training loop is neither a step nor an evaluation, a little at "
        "every step",
        evidence={
            "n": times.num_steps,
            "rest_share": rest,
            "checkpoint_share": loop.share(loop.checkpoint_ms),
            "unknown_share": loop.share(loop.unknown_ms),
            "bound": limits.PAUSE_SHARE,
        },
    )
