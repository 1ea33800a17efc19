"""What diagnosis says: findings with their evidence, gathered into one report."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeAlias

REPORT_SCHEMA = "mmtool.diagnose/1"

Severity: TypeAlias = Literal["info", "warn", "error"]
SEVERITIES: tuple[Severity, ...] = ("info", "warn", "error")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found, with the numbers that support it and what to do next."""

    rule: str
    """Id of the rule, with dashes: `under-trained`."""
    severity: Severity
    what: str
    """One sentence a person understands without the evidence."""
    modality: str | None = None
    evidence: Mapping[str, Any] = field(default_factory=dict)
    """Named numbers; an interval is a list [low, high] under `<name>_ci95`."""
    advice: str = ""
    confidence: float | None = None
    """Share of resamples of the validation counts in which the rule says the same."""

    def as_dict(self) -> dict[str, Any]:
        """Give the finding as plain data."""
        return plain(asdict(self))  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True)
class Report:
    """Everything `mmtool diagnose` knows about a run; every rendering starts from this."""

    run: str
    verdict: str
    findings: tuple[Finding, ...] = ()
    metrics: Mapping[str, Any] = field(default_factory=dict)
    system: Mapping[str, Any] = field(default_factory=dict)
    limits: tuple[str, ...] = ()
    meta: Mapping[str, Any] = field(default_factory=dict)
    schema: str = REPORT_SCHEMA

    def as_dict(self) -> dict[str, Any]:
        """Give the report as plain data that `json.dumps(..., allow_nan=False)` accepts."""
        return {
            "schema": self.schema,
            "run": self.run,
            "verdict": self.verdict,
            "findings": [finding.as_dict() for finding in self.findings],
            "metrics": plain(self.metrics),
            "system": plain(self.system),
            "limits": list(self.limits),
            "meta": plain(self.meta),
        }

    def at_least(self, severity: Severity) -> tuple[Finding, ...]:
        """Give the findings of this severity or a higher one."""
        floor = SEVERITIES.index(severity)
        return tuple(f for f in self.findings if SEVERITIES.index(f.severity) >= floor)


def plain(value: Any) -> Any:
    """Turn mappings, sequences and numbers of any library into what strict JSON can hold."""
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return round(value, 6) if abs(value) < float("inf") else None
    if isinstance(value, Sequence | set | frozenset):
        return [plain(entry) for entry in value]
    item = getattr(value, "item", None)
    return plain(item()) if callable(item) else str(value)
