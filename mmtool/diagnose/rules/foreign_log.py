"""The log was written by another tool.

Says what was read of it. Where it has no columns of single modalities nothing can be said about
balance; the few lines that would supply them are given for the tool that wrote the log.
"""

from __future__ import annotations

from collections.abc import Sequence

from mmtool.diagnose.facts import Facts
from mmtool.diagnose.finding import Finding
from mmtool.diagnose.load import Run
from mmtool.text import plural

ORDER = 1
_WRAPPED = (
    'run = mmtool.log.start("runs/mine", modalities=["audio", "video"], classes=NUM_CLASSES)\n'
    'watched = mmtool.log.wrap(model, encoders={"audio": "ENCODER", "video": "ENCODER"}, '
    'fusion="HEAD")\n'
    "watched.log_step(run, labels)    # in the loop; watched.collect and log_epoch in validation"
)
_LIGHTNING = (
    "from mmtool.integrations.lightning import MMCallback\n"
    'callback = MMCallback("runs/mine", encoders={"audio": "ENCODER", "video": "ENCODER"}, '
    'fusion="HEAD", classes=NUM_CLASSES)\n'
    "Trainer(..., callbacks=[callback])"
)
_TRANSFORMERS = (
    "from mmtool.integrations.hf import MMTrainerCallback\n"
    'callback = MMTrainerCallback("runs/mine", encoders={"text": "ENCODER", "image": "ENCODER"}, '
    'fusion="HEAD", classes=NUM_CLASSES)\n'
    "Trainer(..., callbacks=[callback])"
)
SNIPPETS = {"trainer_state": _TRANSFORMERS}


def check(facts: Facts) -> Finding | None:
    """Say what kind of log it is, what it holds, and what would make balance judgeable."""
    run = facts.run
    if not run.foreign:
        return None
    has_modalities = not run.tables.epoch_modalities.empty
    unread = [str(name) for name in run.tables.head.get("unread") or ()]
    lacks = "" if has_modalities else ", but no columns of single modalities"
    return Finding(
        rule="foreign-log",
        severity="info",
        what=f"the log is {run.tables.head.get('kind')}: {_content(run)} were read{lacks}",
        evidence={
            "kind": run.foreign,
            "steps": len(run.tables.steps),
            "evaluations": len(run.tables.epochs),
            "modalities": list(run.modalities),
            "unread": unread,
        },
        advice=_advice(run, has_modalities, unread),
    )


def _content(run: Run) -> str:
    tables = run.tables
    parts = [plural(len(tables.steps), "step"), plural(len(tables.epochs), "evaluation")]
    return " and ".join(parts)


def _advice(run: Run, has_modalities: bool, unread: Sequence[str]) -> str:
    if has_modalities:
        return ""
    snippet = SNIPPETS.get(run.foreign, _WRAPPED)
    if run.foreign == "csv" and run.path.name == "metrics.csv":
        snippet = _LIGHTNING
    lines = [f"three lines in the training supply them:\n{snippet}"]
    if unread:
        lines.append(
            "or, if they are among the names that were not understood "
            f"({', '.join(unread[:6])}{', ...' if len(unread) > 6 else ''}), "
            "say in mmtool-map.toml beside the log what they stand for"
        )
    return "\n".join(lines)
