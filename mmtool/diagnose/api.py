"""From run directories to one report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmtool.diagnose.compare import compare
from mmtool.diagnose.facts import Facts
from mmtool.diagnose.finding import Finding, Report
from mmtool.diagnose.load import Run, open_run
from mmtool.diagnose.metrics.balance import (
    Reference,
    balance_table,
    compute_balance,
    reference_from,
)
from mmtool.diagnose.metrics.curves import curve_table
from mmtool.diagnose.metrics.energy import energy_table
from mmtool.diagnose.metrics.names import in_words
from mmtool.diagnose.metrics.overhead import overhead_table
from mmtool.diagnose.metrics.plateau import plateau_table
from mmtool.diagnose.metrics.step_series import step_series
from mmtool.diagnose.metrics.steps import compute_steps, step_table
from mmtool.diagnose.metrics.system import system_table
from mmtool.diagnose.metrics.where import unknown_in_words, where_table
from mmtool.diagnose.rules import _thresholds as thresholds
from mmtool.diagnose.rules._runner import run_rules
from mmtool.diagnose.verdict.build import build_verdict
from mmtool.diagnose.verdict.evidence import Case
from mmtool.errors import RequestError
from mmtool.runlog.rundir import run_names
from mmtool.runlog.suite import SuiteRecord, is_folder_of_runs, read_suite

LIMITS = (
    "A shortcut that also holds in the validation split cannot be told from information.",
    "The statements are about this checkpoint; a statement about a recipe needs at least three "
    "seeds.",
    "Reliance permutes one modality over the validation samples, which also makes pairs that do "
    "not occur in the data.",
)
INDEPENDENT_LIMIT = (
    "Intervals are 95 % and treat samples as independent; clips of one speaker or source are not."
)
OTHER_SCORE_LIMIT = (
    "The rules' thresholds were set on accuracies of one class per sample; for {score} they are "
    "untested."
)
SOLO_LIMIT = "The run of one modality alone has its own training seed and inherits its recipe."


def diagnose(paths: Sequence[Path | str], *, epoch: int | None = None) -> Report:
    """Give the report on one run, with runs of a single modality as references, or a comparison.

    A folder of runs stands for those of its runs that are finished. `epoch` chooses the epoch at
    which balance is judged; the last one with validation is the default.
    """
    runs, suite, left_out = _opened([Path(path) for path in paths])
    if not runs:
        raise RequestError("no run was given", fix="mmtool diagnose runs/latest")
    joint = [run for run in runs if len(run.modalities) != 1]
    solo = [run for run in runs if len(run.modalities) == 1]
    if len(runs) == 1:
        return _report(runs[0], {}, (), epoch)
    if len(joint) == 1:
        references, notes = _references(joint[0], solo)
        return _report(joint[0], references, notes, epoch)
    main = joint or solo
    reports = []
    for run in main:
        references, notes = _references(run, solo if joint else [])
        reports.append(_report(run, references, notes, epoch))
    return compare(main, reports, suite=suite, notes=left_out)


def _opened(paths: Sequence[Path]) -> tuple[list[Run], SuiteRecord | None, list[str]]:
    """Open runs and folders of runs; say which runs of a folder are left out."""
    found: list[Run] = []
    notes: list[str] = []
    for path in paths:
        if not is_folder_of_runs(path):
            found.append(open_run(path))
            continue
        inside = [open_run(path / name) for name in run_names(path)]
        finished = [run for run in inside if run.finished]
        found += finished
        notes += _missing(path, inside, finished)
    suite = read_suite(paths[0]) if len(paths) == 1 and is_folder_of_runs(paths[0]) else None
    return _distinct(_in_order(found, suite)), suite, notes


def _missing(folder: Path, inside: Sequence[Run], finished: Sequence[Run]) -> list[str]:
    notes = [
        f"{run.name} is left out: it is {run.tables.status.get('state', 'unfinished')}."
        for run in inside
        if run not in finished
    ]
    suite = read_suite(folder)
    if suite is None:
        return notes
    names = {run.name for run in inside}
    absent = [words for name, words in suite.runs.items() if name not in names]
    others = sorted(names - set(suite.runs))
    if absent:
        notes.append(f"Not trained yet: {', '.join(absent)}.")
    if others:
        notes.append(f"Not of the suite as it is now: {', '.join(others)}.")
    return notes


def _in_order(runs: list[Run], suite: SuiteRecord | None) -> list[Run]:
    """Give runs in the order in which their suite names them."""
    if suite is None:
        return runs
    place = {name: at for at, name in enumerate(suite.runs)}
    return sorted(runs, key=lambda run: place.get(run.name, len(place)))


def _distinct(runs: list[Run]) -> list[Run]:
    return list({run.path: run for run in runs}.values())


def _references(run: Run, solo: Sequence[Run]) -> tuple[dict[str, Reference], tuple[str, ...]]:
    """Give the best run of each modality alone on the same dataset, and why others do not count."""
    found: dict[str, Reference] = {}
    notes = [SOLO_LIMIT] if solo else []
    for other in solo:
        name = other.modalities[0]
        reference = reference_from(other)
        if other.dataset_key != run.dataset_key or other.dataset_key is None:
            notes.append(f"{other.name} is not a reference: it used another dataset.")
        elif name not in run.modalities:
            notes.append(f"{other.name} is not a reference: {run.name} has no {name}.")
        elif other.metric != run.metric:
            notes.append(
                f"{other.name} is not a reference: its score is {in_words(other.metric)}, "
                f"not {in_words(run.metric)}."
            )
        elif reference is None:
            notes.append(
                f"{other.name} is not a reference: it has no validation {in_words(run.metric)} yet."
            )
        elif name not in found or reference.acc.value > found[name].acc.value:
            found[name] = reference
    return found, tuple(notes)


def _report(
    run: Run, references: Mapping[str, Reference], notes: Sequence[str], epoch: int | None
) -> Report:
    balance = compute_balance(run, references, epoch)
    steps = compute_steps(run)
    system = system_table(run)
    where = where_table(run, steps, system)
    judged = build_verdict(run, balance, references, epoch)
    facts = Facts(run=run, balance=balance, steps=steps, system=system)
    findings = (judged.finding, *run_rules(facts))
    warnings = [str(w) for w in run.tables.warnings]
    if run.metric != "accuracy":
        notes = (OTHER_SCORE_LIMIT.format(score=in_words(run.metric)), *notes)
    return Report(
        run=run.name,
        verdict=_verdict(findings),
        findings=findings,
        metrics={
            "balance": balance_table(balance) if balance else {},
            "curves": curve_table(run),
            "steps": {**step_table(steps), "series": step_series(run)} if steps else {},
            "where": where,
            "energy": energy_table(run, steps),
            "plateau": plateau_table(run),
            "overhead": overhead_table(run),
            **({"trace": run.tables.trace} if run.tables.trace else {}),
            **judged.metrics,
        },
        system=system,
        limits=(*_limits(judged.case), *notes, *unknown_in_words(where), *warnings),
        meta=_meta(run),
    )


def _limits(case: Case) -> tuple[str, ...]:
    return LIMITS if case.clusters[0] == "group" else (*LIMITS, INDEPENDENT_LIMIT)


def _meta(run: Run) -> dict[str, Any]:
    head = run.tables.head
    kept = ("dataset", "dataset_hash", "classes", "batch_size", "epochs", "steps_per_epoch")
    return {
        "path": str(run.path),
        "modalities": list(run.modalities),
        "method": run.method,
        "fusion": run.fusion,
        **{key: head.get(key) for key in kept},
        "num_val": head.get("num_val"),
        "task": run.task,
        "metric": run.metric,
        "parameters": head.get("parameters"),
        "log_schema": head.get("schema"),
        "seed": run.option("train", "seed"),
        "status": dict(run.tables.status),
        "finished": run.finished,
        "thresholds": thresholds.as_dict(),
        "recipe": run.recipe_text,
        "environment": dict(run.environment),
    }


def _verdict(findings: Sequence[Finding]) -> str:
    """Give the sentence for the top of the report: the verdict on balance, then what else warns."""
    judged, *others = findings
    parts = [judged.what, *(f.what for f in others if f.severity != "info")]
    return ". ".join(_capital(part) for part in parts[:3]) + "."


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def closing_line(report: Report) -> str:
    """Give the one line with which training ends: the main finding and where to read more."""
    judged = report.findings[0]
    loud = [f for f in report.at_least("warn") if f is not judged]
    chosen = loud[0] if loud and judged.severity == "info" else judged
    what = chosen.what
    return f"{what}; try: mmtool diagnose {_where(report)}"


def _where(report: Report) -> str:
    path = Path(str(report.meta.get("path") or report.run))
    latest = path.parent / "latest"
    shown = latest if latest.is_symlink() and latest.resolve() == path else path
    try:
        return str(shown.relative_to(Path.cwd().resolve()))
    except ValueError:
        return str(shown)
