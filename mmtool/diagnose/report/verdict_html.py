"""The top of the page: the verdict with its evidence and advice, then the other findings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmtool.diagnose.report.figure import details, interval, number, table
from mmtool.diagnose.report.svg import safe
from mmtool.diagnose.report.views import (
    Plain,
    advice_of,
    conditions,
    estimate,
    headline,
    listed,
    mapping,
    other_findings,
    paste_lines,
    system_verdict,
    verdict_finding,
)


def conditions_html(report: Plain) -> str:
    """Give what must be known before the verdict."""
    return "".join(f'<p class="condition">{safe(said)}</p>' for said in conditions(report))


def verdict_html(report: Plain) -> str:
    """Give the verdict panel."""
    verdict, finding = headline(report), verdict_finding(report)
    severity = safe(verdict["severity"])
    parts = [f'<article class="verdict {severity}"><p class="head">{_head(verdict)}</p>']
    parts.append(f'<p class="sentence">{safe(verdict["sentence"])}</p>')
    parts.append(f'<p class="note">{safe(_basis(verdict))}</p>' if _basis(verdict) else "")
    parts.append(_stake(mapping(verdict.get("stake"))))
    parts += [f"<p>{safe(note)}</p>" for note in listed(verdict.get("notes"))]
    parts.append(_advice(verdict, finding))
    parts.append(_tally(mapping(verdict.get("tally"))))
    parts.append(evidence_html(mapping((finding or {}).get("evidence"))))
    if "comparison" not in mapping(report.get("metrics")):
        parts.append(f"<p><strong>Machine:</strong> {safe(system_verdict(report))}</p>")
    return "".join(parts) + "</article>"


def _head(verdict: Plain) -> str:
    named = " · ".join(
        [str(verdict.get("code") or "verdict"), *map(str, listed(verdict.get("modalities")))]
    )
    return f'<span class="badge">{safe(named)}</span>'


def _basis(verdict: Plain) -> str:
    said = []
    if isinstance(verdict.get("confidence"), int | float):
        said.append(f"confidence {verdict['confidence']:.2f}")
    runner = mapping(verdict.get("runner_up"))
    if runner:
        named = " ".join([str(runner.get("code")), *map(str, listed(runner.get("modalities")))])
        sure = runner.get("confidence")
        said.append(
            f"runner-up {named}" + (f" {sure:.2f}" if isinstance(sure, int | float) else "")
        )
    if verdict.get("since_epoch") is not None:
        said.append(f"since epoch {verdict['since_epoch']}")
    if verdict.get("basis"):
        said.append(f"judged from {', '.join(map(str, listed(verdict['basis'])))}")
    clusters = mapping(verdict.get("clusters"))
    if clusters:
        said.append(f"resampled by {clusters.get('kind')}, {number(clusters.get('n'))} of them")
    return "; ".join(said)


def _stake(stake: Plain) -> str:
    if not stake:
        return ""
    said = []
    accuracy = estimate(stake.get("accuracy"))
    if accuracy:
        said.append(f"score {interval(accuracy)}")
    for name, value in mapping(stake.get("robustness")).items():
        if known := estimate(value):
            said.append(f"robustness of {name} {interval(known)}")
    return f"<p><strong>At stake:</strong> {safe(', '.join(said))}</p>" if said else ""


def _advice(verdict: Plain, finding: Plain | None) -> str:
    parts = []
    for entry in advice_of(verdict, finding):
        conditions_of = [str(p) for p in listed(entry.get("preconditions"))]
        needs = f' <span class="note">Needs: {safe("; ".join(conditions_of))}.</span>'
        patch = paste_lines(entry)
        parts.append(
            f"<p>{_paragraphs(str(entry.get('text') or ''))}{needs if conditions_of else ''}</p>"
            + (f"<pre>{safe(chr(10).join(patch))}</pre>" if patch else "")
        )
    return "<p><strong>Try:</strong></p>" + "".join(parts) if parts else ""


def _paragraphs(text: str) -> str:
    return "<br/>".join(safe(line) for line in text.strip().splitlines())


def _tally(tally: Plain) -> str:
    rows = sorted(
        ((str(name), share) for name, share in tally.items() if isinstance(share, int | float)),
        key=lambda row: -row[1],
    )
    if not rows:
        return ""
    return details(
        "Verdicts over resamples of the validation samples",
        table(("verdict", "share of resamples"), [(name, f"{share:.1%}") for name, share in rows]),
    )


def evidence_html(evidence: Plain) -> str:
    """Give the numbers of a finding, each with its interval."""
    cells = []
    for name, value in evidence.items():
        if name.endswith("_ci95") or value is None:
            continue
        between = evidence.get(f"{name}_ci95")
        beside = f" [{number(between[0])}, {number(between[1])}]" if between else ""
        shown = _known(value) + beside
        cells.append(f"<div><dt>{safe(name)}</dt> <dd>{safe(shown)}</dd></div>")
    if not cells:
        return ""
    return '<p class="note">Evidence, 95 % intervals in brackets:</p>' + (
        f'<dl class="evidence">{"".join(cells)}</dl>'
    )


def _known(value: Any) -> str:
    if isinstance(value, Mapping) and "value" in value:
        return interval(value, 4)
    return number(value)


def findings_html(report: Plain) -> str:
    """Give the findings beside the verdict."""
    return "".join(_finding(finding) for finding in other_findings(report))


def _finding(finding: Plain) -> str:
    severity, sure = str(finding.get("severity") or "info"), finding.get("confidence")
    head = f'<span class="badge">{safe(severity)}</span> {safe(finding.get("rule") or "")}'
    if finding.get("modality"):
        head += f" · {safe(finding['modality'])}"
    if isinstance(sure, int | float):
        head += f' · <span class="note">confidence {sure:.2f}</span>'
    advice = finding.get("advice")
    return (
        f'<article class="finding {safe(severity)}"><p class="head">{head}</p>'
        f"<p><strong>{safe(finding.get('what') or '')}</strong></p>"
        + (f"<p>Try:</p><pre>{safe(advice)}</pre>" if advice else "")
        + evidence_html(mapping(finding.get("evidence")))
        + "</article>"
    )
