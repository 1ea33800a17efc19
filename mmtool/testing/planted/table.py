"""Verdicts against truths as a markdown table: counts, every miss, and how it was made."""

import platform
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import torch

from mmtool import __version__
from mmtool.diagnose.metrics.intervals import wilson
from mmtool.diagnose.rules import _thresholds as thresholds
from mmtool.testing.planted.runner import Judged


@dataclass(frozen=True, slots=True)
class Rate:
    """So many of so many."""

    count: int
    total: int

    def in_words(self) -> str:
        """Write it with its 95 % interval."""
        if not self.total:
            return "none run"
        found = wilson(self.count / self.total, self.total)
        return f"{self.count}/{self.total} = {found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"


def how_made(command: str, seeds: Sequence[int], num_run: int, num_planned: int) -> str:
    """Give date, versions, seeds, the command and how much of the grid was run."""
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    versions = {
        "mmtool": __version__,
        "rules": thresholds.VERSION,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }
    words = ", ".join(f"{name} {version}" for name, version in versions.items())
    return (
        f"Made by `{command}` on {now}; {words}; CPU, one thread.\n"
        f"Seeds {', '.join(str(s) for s in seeds)}, of the data and of the training alike. "
        f"{num_run} of {num_planned} cells were run; the others are not counted."
    )


def right_rate(judged: Sequence[Judged]) -> Rate:
    """Count right verdicts."""
    return Rate(sum(j.is_right for j in judged), len(judged))


def alarm_rate(judged: Sequence[Judged]) -> Rate:
    """Count false alarms among the healthy."""
    healthy = [j for j in judged if j.truth.is_healthy]
    return Rate(sum(j.is_false_alarm for j in healthy), len(healthy))


def finer_rate(judged: Sequence[Judged]) -> Rate:
    """Count, of right verdicts with a finer point, those that get that too."""
    with_finer = [j for j in judged if j.is_right and j.truth.finer]
    return Rate(sum(j.has_finer for j in with_finer), len(with_finer))


def confusion_table(judged: Sequence[Judged]) -> str:
    """Give a row per problem, truth, and how often each verdict was given."""
    rows: dict[tuple[str, str], list[Judged]] = {}
    for j in judged:
        rows.setdefault((j.problem, j.truth.in_words()), []).append(j)
    lines = ["| problem | truth | right | said |", "|---|---|---|---|"]
    for (problem, truth), members in rows.items():
        counts = Counter(j.said for j in members).most_common()
        said = ", ".join(f"{verdict} {count}" for verdict, count in counts)
        right = sum(j.is_right for j in members)
        lines.append(f"| {problem} | {truth} | {right}/{len(members)} | {said} |")
    return "\n".join(lines)


def confusion_matrix(judged: Sequence[Judged]) -> str:
    """Give truths as rows and codes as columns, whatever modalities they name."""
    codes = sorted({j.code for j in judged})
    truths = sorted({" or ".join(sorted(j.truth.codes)) for j in judged})
    lines = [
        "| truth | " + " | ".join(codes) + " |",
        "|---" * (len(codes) + 1) + "|",
    ]
    for truth in truths:
        members = [j for j in judged if " or ".join(sorted(j.truth.codes)) == truth]
        counts = Counter(j.code for j in members)
        cells = " | ".join(str(counts[code]) if counts[code] else "" for code in codes)
        lines.append(f"| {truth} | {cells} |")
    return "\n".join(lines)


def rate_table(judged: Sequence[Judged], key: Callable[[Judged], str], title: str) -> str:
    """Give the share of right verdicts by something."""
    groups: dict[str, list[Judged]] = {}
    for j in judged:
        groups.setdefault(key(j), []).append(j)
    lines = [f"| {title} | right | false alarms |", "|---|---|---|"]
    for name, members in groups.items():
        right, alarms = right_rate(members).in_words(), alarm_rate(members)
        shown = f"{alarms.count}/{alarms.total}"
        lines.append(f"| {name} | {right} | {shown} |")
    return "\n".join(lines)


def misses_table(judged: Sequence[Judged]) -> str:
    """Give every wrong verdict."""
    wrong = [j for j in judged if not j.is_right]
    if not wrong:
        return "None."
    lines = [
        "| problem | model | seed | truth | said | confidence | runner-up |",
        "|---|---|---|---|---|---|---|",
    ]
    for j in wrong:
        sure = "" if j.confidence is None else f"{j.confidence:.2f}"
        model = f"{j.setup.encoder}, {j.setup.fusion}"
        facts = (j.problem, model, j.setup.seed, j.truth.in_words(), j.said, sure, j.runner_up)
        lines.append("| " + " | ".join(str(fact) for fact in facts) + " |")
    return "\n".join(lines)


def whole_text(judged: Sequence[Judged], about: str, extra: Mapping[str, str]) -> str:
    """Give the file with all tables; `extra` are sections that follow, by title."""
    totals = "\n".join(
        (
            f"* right: {right_rate(judged).in_words()}",
            f"* false alarms on healthy problems: {alarm_rate(judged).in_words()}",
            f"* finer point, of right verdicts that have one: {finer_rate(judged).in_words()}",
        )
    )
    sections = {
        "Verdicts by problem": confusion_table(judged),
        "Codes": confusion_matrix(judged),
        "By encoder": rate_table(judged, lambda j: j.setup.encoder, "encoder"),
        "By fusion": rate_table(judged, lambda j: j.setup.fusion, "fusion"),
        "Every miss": misses_table(judged),
        **extra,
    }
    body = "\n\n".join(f"## {title}\n\n{text}" for title, text in sections.items())
    return f"# Verdicts on planted problems\n\n{about}\n\n{totals}\n\n{body}\n"
