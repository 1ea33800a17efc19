"""The first section of a Markdown page of comparisons: what each recipe did, side by side."""

from collections.abc import Sequence
from dataclasses import dataclass

_MARKS = {"improved": " ↑", "regressed": " ↓"}
_OPENING = """\
Overview

The score of the first row and changes against it, ↑ where a section says improved and ↓ where it
says regressed. Intervals, seeds and conditions stand in the sections, and so does what only one of
them has."""


@dataclass(frozen=True, slots=True)
class _Section:
    """The table of a comparison: recipe -> its cell in the overview, the baseline first."""

    title: str
    cells: dict[str, str]


def with_overview(page: str) -> str:
    """Give the page with a table over all its comparisons, if several have the same baseline."""
    before, *parts = f"\n{page}".split("\n## ")
    parts = [part for part in parts if not part.startswith(_OPENING)]
    sections = [section for section in map(_read, parts) if section]
    if len(sections) > 1 and len({next(iter(section.cells)) for section in sections}) == 1:
        parts = [f"{_OPENING}\n\n{_table(sections)}\n", *parts]
    return "\n## ".join([before, *parts])[1:]


def _table(sections: Sequence[_Section]) -> str:
    names = [name for section in sections for name in section.cells]
    baseline, *others = (name for name in dict.fromkeys(names) if names.count(name) > 1)
    head = ["recipe", *(section.title for section in sections), "improved", "regressed"]
    rows = [head, ["---", *("---:" for _ in head[1:])]]
    rows.append([baseline, *(section.cells[baseline] for section in sections), "", ""])
    for name in others:
        cells = [section.cells.get(name, "-") for section in sections]
        counts = [str(sum(cell.endswith(mark) for cell in cells)) for mark in _MARKS.values()]
        rows.append([name, *cells, *counts])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _read(part: str) -> _Section | None:
    """Read the first table of a section, if it is one that `markdown` wrote."""
    title, *lines = part.split("\n")
    rows = [_cells(line) for line in lines if line.startswith("| ")]
    columns = rows[0] if rows else []
    change = next((at for at, name in enumerate(columns) if name.endswith(" change")), None)
    if change is None or columns[0] != "recipe":
        return None
    split = columns[change].removesuffix(" change")
    score = next(at for at, name in enumerate(columns) if name.startswith(f"{split} "))
    found: dict[str, str] = {}
    for row in rows[2:]:
        if len(row) != len(columns):
            break  # the section's next table
        at = change if found else score
        found[row[0]] = row[at].partition(" ")[0] + _MARKS.get(row[change + 1], "")
    return _Section(title.strip(), found) if found else None


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split(" | ")]
