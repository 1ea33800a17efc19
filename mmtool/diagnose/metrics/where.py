"""Where the wall clock of training went, and which verdicts on the machine this log cannot give."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mmtool.diagnose.load import Run
from mmtool.diagnose.metrics.loop import Loop
from mmtool.diagnose.metrics.steps import StepTimes, straggler_table
from mmtool.diagnose.metrics.traced import compute_traced
from mmtool.diagnose.rules import _thresholds as limits
from mmtool.diagnose.tables import rows

MOST_PAUSES = 10


def where_table(run: Run, steps: StepTimes | None, system: Mapping[str, Any]) -> dict[str, Any]:
    """Give the time of every part of the loop as plain data, per step and as shares of the loop.

    The shares of `phases` add up to one. What no phase explains is `other`.
    """
    unknown = not_known(run, steps, system)
    if steps is None:
        nothing: dict[str, Any] = {
            "phases": [],
            "encoders": {},
            "other_share": None,
            "straggler": None,
        }
        return {**nothing, "not_known": unknown}
    loop = steps.loop
    parts = _parts(steps, loop)
    total = sum(part["ms_mean"] for part in parts)
    for part in parts:
        part["share"] = part["ms_mean"] / total if total > 0 else 0.0
    share = {part["name"]: part["share"] for part in parts}
    exchange = steps.exchange
    return {
        "phases": parts,
        "encoders": _encoders(steps),
        "fusion": _fusion(run),
        "other_share": share.get("other", 0.0) + share.get("between", 0.0),
        "productive_share": 1 - share.get("evaluation", 0.0) - share.get("checkpoint", 0.0)
        - share.get("between", 0.0),
        "straggler": straggler_table(steps.straggler),
        "exposed": {
            "data": None if steps.data_share is None else steps.data_share.as_dict(),
            "transfer_share": exchange.transfer_share if exchange else None,
            "queue_empty": None if steps.queue_empty is None else steps.queue_empty.as_dict(),
        },
        "pauses": _pauses(loop),
        "num_operators": steps.num_operators,
        "us_per_operator": steps.us_per_operator,
        "processor_share": steps.processor_share,
        "encoders_note": _encoders_note(run, steps),
        "not_known": unknown,
    }  # fmt: skip


def _parts(steps: StepTimes, loop: Loop | None) -> list[dict[str, Any]]:
    """Give what a step is made of and what lies between steps, per step."""
    parts: list[dict[str, Any]] = [
        {"name": p.name, "ms_mean": p.mean_ms, "ms_p50": p.p50_ms, "ms_p95": p.p95_ms}
        for p in steps.phases
    ]
    if loop is None:
        return parts
    between = (
        ("evaluation", loop.evaluation_ms, loop.num_evaluations),
        ("checkpoint", loop.checkpoint_ms, loop.num_checkpoints),
        ("between", loop.unknown_ms, None),
    )
    for name, ms, count in between:
        per_step = ms / steps.num_steps
        parts.append({"name": name, "ms_mean": per_step, "ms_p50": None, "ms_p95": None})
        parts[-1]["count"] = count
    return parts


def _encoders(steps: StepTimes) -> dict[str, Any]:
    return {
        e.modality: {
            "forward_ms": e.forward_ms,
            "backward_ms": e.backward_ms,
            "share": e.share,
            "share_of_step": e.share_of_step,
            "n": e.num_steps,
        }
        for e in steps.encoders
    }


def _fusion(run: Run) -> dict[str, float | None]:
    """Give the fusion's own time; with its backward pass counts that of the loss."""
    table = run.tables.steps
    found: dict[str, float | None] = {}
    for name, column in (("forward_ms", "ms_fusion"), ("backward_ms", "ms_fusion_backward")):
        known = table[column].dropna() if column in table.columns else ()
        found[name] = float(known.median()) if len(known) else None  # type: ignore[union-attr]
    return found


def _pauses(loop: Loop | None) -> list[dict[str, Any]]:
    longest = loop.pauses[:MOST_PAUSES] if loop else ()
    return [{"step": p.step, "ms": p.ms, "cause": p.cause} for p in longest]


def _encoders_note(run: Run, steps: StepTimes) -> str | None:
    """Say why encoders were not measured one by one, or what limits the numbers."""
    if not steps.encoders:
        is_joint = run.fusion == "mmtm"
        why = "its encoders hear each other and run as one" if is_joint else "the log has none"
        return f"no time per encoder: {why}"
    if run.option("launch", "streams"):
        return "encoders ran side by side: their times overlap and add up to more than the phase"
    if run.option("launch", "compile") or rows(run.tables.events, what="compile"):
        return "encoders are compiled: each is timed as a whole from outside"
    return None


GPU_VERDICTS = ("throttled", "foreign-tenant")
PART_VERDICTS = ("memory-bound", "compute-bound")


def not_known(run: Run, steps: StepTimes | None, system: Mapping[str, Any]) -> list[dict[str, str]]:
    """Name the verdicts that this log cannot give, each group with its reason."""
    is_traced = compute_traced(run) is not None
    found = [*_unknown_of_gpu(run, system, is_traced), *_unknown_of_steps(steps)]
    has_pressure = (system.get("host") or {}).get("psi_cpu") is not None
    if not has_pressure and (steps is None or steps.processor_share is None):
        found.append((("host-contended",), "the log has no pressure (PSI) of the machine"))
    if steps is None or (steps.exchange is None and not is_traced):
        is_alone = (run.tables.head.get("world") or 1) == 1
        reason = "the run had one rank" if is_alone else "too few ranks logged their waits"
        found.append((("straggler", "comm-bound"), reason))
    return [{"verdict": name, "why": why} for names, why in found for name in names]


Unknown = tuple[tuple[str, ...], str]


def _unknown_of_gpu(run: Run, system: Mapping[str, Any], is_traced: bool) -> Iterator[Unknown]:
    if is_traced:
        yield (*GPU_VERDICTS, *PART_VERDICTS, "fragmented"), "a trace does not have them"
        return
    gpus = system.get("gpus") or []
    all_verdicts = (*GPU_VERDICTS, *PART_VERDICTS, "sync-bound", "fragmented")
    if not gpus:
        on_gpu = str(run.tables.head.get("device") or "").startswith("cuda")
        yield all_verdicts, "no GPU was sampled" if on_gpu else "the run used no GPU"
    elif max(gpu["n"] for gpu in gpus) < limits.MIN_GPU_SAMPLES:
        reason = f"fewer than {limits.MIN_GPU_SAMPLES} samples of the GPU fell into training"
        yield all_verdicts, reason
    elif all(gpu["tensor_percent"] is None for gpu in gpus):
        yield PART_VERDICTS, "the GPU has no counters of its parts (NVML's GPM, Hopper and later)"


def _unknown_of_steps(steps: StepTimes | None) -> Iterator[Unknown]:
    if steps is None:
        yield ("data-bound", "launch-bound", "stall", "modality-bound"), "no step was timed"
        return
    if steps.loop is None:
        yield ("stall",), "the log does not tell the time between steps"
    if not steps.encoders:
        yield ("modality-bound",), "the log has no time per encoder"


def unknown_in_words(table: Mapping[str, Any]) -> tuple[str, ...]:
    """Give the verdicts that cannot be given as sentences for the report's limits."""
    reasons: dict[str, list[str]] = {}
    for entry in table.get("not_known") or ():
        reasons.setdefault(entry["why"], []).append(entry["verdict"])
    return tuple(f"Not known: {', '.join(names)}; {why}." for why, names in reasons.items())
