"""A comparison as a section of a Markdown page, which replaces the section of the same name."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from mmtool.diagnose.report.groups import column_notes, group_table
from mmtool.text import plural

Plain = Mapping[str, Any]
_SHOWN = ("mmtool", "torch", "numpy")


def render_markdown(report: Plain, *, command: str) -> str:
    """Give the section; `command` writes it anew."""
    comparison, suite = report["metrics"]["comparison"], report["meta"].get("suite") or {}
    table = group_table(comparison)
    lines = [f"## {suite.get('name') or 'Comparison'}", ""]
    lines += [suite["about"], ""] if suite.get("about") else []
    lines += [report["verdict"], "", *_rows(table), ""]
    lines += [f"- {note}" for note in column_notes(comparison)]
    lines += [f"- {limit}" for limit in report["limits"]]
    lines += ["", *_published(suite), *_origin(report["meta"], suite, command)]
    return "\n".join(lines) + "\n"


def replaced(page: str, section: str) -> str:
    """Give the page with this section in place of the one of the same name, or at its end."""
    title = section.partition("\n")[0]
    before, found, rest = f"\n{page}".partition(f"\n{title}\n")
    if not found:
        return f"{page.rstrip()}\n\n{section}" if page.strip() else section
    _, next_title, after = rest.partition("\n## ")
    kept = f"{before.strip()}\n\n" if before.strip() else ""
    return f"{kept}{section}" + (f"\n## {after}" if next_title else "")


def _rows(table: list[list[str]]) -> list[str]:
    head, *rows = [[cell.replace("|", "\\|") for cell in row] for row in table]
    rule = ["---"] + ["---:" if i else "---" for i in range(1, len(head))]
    return [f"| {' | '.join(row)} |" for row in (head, rule, *rows)]


def _published(suite: Plain) -> list[str]:
    if not suite.get("published"):
        return []
    lines = ["Published:", "", "| what | score | source | conditions |", "|---|---:|---|---|"]
    for row in suite["published"]:
        cells = (row["what"], row["score"], row["source"], row.get("note") or "")
        lines.append("| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |")
    return [*lines, ""]


def _origin(meta: Plain, suite: Plain, command: str) -> list[str]:
    environment = meta.get("environment") or {}
    versions = environment.get("versions") or {}
    named = [f"{name} {versions[name]}" for name in _SHOWN if name in versions]
    named += [f"Python {environment['python']}"] if environment.get("python") else []
    commit = str((environment.get("git") or {}).get("commit") or "")[:12]
    named += [f"commit {commit}"] if commit else []
    cores = environment.get("cpus_allowed")
    named += [plural(int(cores), "core")] if cores else []
    written = datetime.now(UTC).date().isoformat()
    again = [f"mmtool train {suite['recipe']}"] if suite.get("recipe") else []
    return [
        f"Written {written}; {', '.join(named)}. Again:",
        "",
        *(f"    {line}" for line in (*again, command)),
    ]
