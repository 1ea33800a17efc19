"""What the renderings have in common: a report's plain data, brought into one form.

A report may lack any metric, and an older one keeps what a newer one calls answers under balance.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

Plain: TypeAlias = Mapping[str, Any]
RELIANCE, AVAILABILITY, INFORMATIVENESS = "reliance", "availability", "informativeness"
HEADROOM = "headroom"
SOLO = "trained alone"
CONDITIONS = {
    "unfinished": "Every statement is about what was logged so far.",
    "foreign-log": "What the log lacks is left out.",
}


def mapping(value: Any) -> Plain:
    """Give a mapping, an empty one in the place of anything else."""
    return value if isinstance(value, Mapping) else {}


def listed(value: Any) -> Sequence[Any]:
    """Give a sequence, an empty one in the place of anything else."""
    return value if isinstance(value, Sequence) and not isinstance(value, str) else ()


def estimate(value: Any) -> dict[str, Any] | None:
    """Give a number, or a mapping with a value, as {value, low, high, ...}; None when unknown."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return {"value": float(value)}
    found = mapping(value)
    known = found.get("value")
    return dict(found) if isinstance(known, int | float) and not isinstance(known, bool) else None


def balance_rows(metrics: Plain) -> dict[str, Plain]:
    """Give the row of each modality of the balance at the judged epoch."""
    rows = listed(mapping(metrics.get("balance")).get("modalities"))
    return {str(row["modality"]): row for row in rows if isinstance(row, Mapping)}


def answer_rows(metrics: Plain) -> dict[str, dict[str, dict[str, Any]]]:
    """Give, by modality, the three answers and what it could reach; the unknown is left out.

    Reliance is the share of the decision, informativeness what a probe of the encoder reaches.
    """
    answers, balance = mapping(metrics.get("answers")), balance_rows(metrics)
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for name in dict.fromkeys([*answers, *balance]):
        new, old = mapping(answers.get(name)), mapping(balance.get(name))
        reliance = mapping(new.get(RELIANCE))
        informative = mapping(new.get(INFORMATIVENESS))
        known = {
            RELIANCE: (reliance.get("share"), reliance, old.get("share")),
            AVAILABILITY: (new.get(AVAILABILITY), old.get("alone")),
            INFORMATIVENESS: (informative.get("probe"), old.get("probe"), informative),
            HEADROOM: (informative.get("headroom"),),
            SOLO: (informative.get("solo"), old.get("reference")),
        }
        found[str(name)] = {
            question: one for question, ways in known.items() if (one := _any(ways))
        }
    return found


def _any(ways: Iterable[Any]) -> dict[str, Any] | None:
    return next((one for way in ways if (one := estimate(way)) is not None), None)


def headline(report: Plain) -> dict[str, Any]:
    """Give the verdict of a report: its code, sentence, confidence and what else is known."""
    known = dict(mapping(mapping(report.get("metrics")).get("verdict")))
    known["sentence"] = capital(str(known.get("sentence") or report.get("verdict") or ""))
    basis = known.get("basis")
    known["basis"] = [basis] if isinstance(basis, str) else list(listed(basis))
    known["severity"] = severity_of(report)
    return known


def severity_of(report: Plain) -> str:
    """Give the severity of the finding that carries the verdict, or of the gravest one."""
    code = mapping(mapping(report.get("metrics")).get("verdict")).get("code")
    findings = [f for f in listed(report.get("findings")) if isinstance(f, Mapping)]
    own = [f for f in findings if f.get("rule") == code]
    kinds = {str(f.get("severity")) for f in own or findings}
    return next((kind for kind in ("error", "warn") if kind in kinds), "info")


def other_findings(report: Plain) -> list[Plain]:
    """Give the findings beside those that only repeat the verdict."""
    if "comparison" in mapping(report.get("metrics")):
        return []
    code = mapping(mapping(report.get("metrics")).get("verdict")).get("code")
    findings = [f for f in listed(report.get("findings")) if isinstance(f, Mapping)]
    return [f for f in findings if code is None or f.get("rule") != code]


def verdict_finding(report: Plain) -> Plain | None:
    """Give the finding that repeats the verdict, for its evidence; none of a comparison does."""
    code = mapping(mapping(report.get("metrics")).get("verdict")).get("code")
    findings = [f for f in listed(report.get("findings")) if isinstance(f, Mapping)]
    return next((f for f in findings if code is not None and f.get("rule") == code), None)


def system_verdict(report: Plain) -> str:
    """Give the main system finding in a sentence, or how long a step takes."""
    kinds = [f for f in other_findings(report) if f.get("kind") == "system"]
    if not kinds:
        kinds = [f for f in other_findings(report) if f.get("rule") in SYSTEM_RULES]
    if kinds:
        return str(kinds[0].get("what") or "")
    step = mapping(mapping(mapping(report.get("metrics")).get("steps")).get("step"))
    if not step:
        return "no step was timed"
    return f"nothing conspicuous; a step takes {step['p50_ms']:.1f} ms (p95 {step['p95_ms']:.1f})"


SYSTEM_RULES = frozenset(
    {
        "data-bound", "launch-bound", "sync-bound", "comm-bound", "memory-bound",
        "compute-bound", "modality-bound", "straggler", "stall", "host-contended", "throttled",
        "fragmented", "foreign-tenant", "device-trace",
    }
)  # fmt: skip


def conditions(report: Plain) -> list[str]:
    """Say what a reader must know before the verdict: not finished, crashed, or of another tool."""
    said = []
    for rule, consequence in CONDITIONS.items():
        found = next((f for f in other_findings(report) if f.get("rule") == rule), None)
        if found is not None:
            said.append(f"{capital(str(found.get('what') or rule))}. {consequence}")
    return said


def capital(text: str) -> str:
    """Give a sentence with a capital at its start."""
    return text[:1].upper() + text[1:]


def advice_of(verdict: Plain, finding: Plain | None) -> list[dict[str, Any]]:
    """Give what to try: {text, recipe_patch, preconditions, method}, the best first."""
    found = [dict(entry) for entry in listed(verdict.get("advice")) if isinstance(entry, Mapping)]
    if not found and finding and finding.get("advice"):
        found = [{"text": str(finding["advice"]), "recipe_patch": ""}]
    return found


def paste_lines(advice: Plain) -> list[str]:
    """Give what is to be pasted: a recipe patch, as text or as values by key, then commands."""
    patch = advice.get("recipe_patch")
    if isinstance(patch, Mapping):
        lines = [f"{key} = {_toml(value)}" for key, value in patch.items()]
    else:
        lines = _nonempty(patch)
    commands = _nonempty(advice.get("command"))
    return [*lines, *([""] if lines and commands else []), *commands]


def _nonempty(text: Any) -> list[str]:
    if isinstance(text, str):
        return [line for line in text.strip().splitlines() if line.strip()]
    return [str(line) for line in listed(text)]


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else str(value)
