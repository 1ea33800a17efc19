"""How a report looks as text: width, glyphs, colours, sparklines, bars and aligned tables."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from unicodedata import combining, east_asian_width

SPARK_BINS = 16
BAR_CELLS = 10
SPARKS = {True: "▁▂▃▄▅▆▇█", False: "_.-=+*%#"}
BAR = {True: ("█", "·"), False: ("#", ".")}
ASCII_FOR = str.maketrans(
    {"≥": ">=", "≤": "<=", "±": "+-", "–": "-", "—": "-", "…": "...", "·": "-", "²": "^2"}
)
COLOURS = {"error": "31", "warn": "33", "info": "36", "bold": "1", "dim": "2"}
_PASTED = re.compile(r"mmtool |python |#|\[|from [\w.]+ import |import \w+$|[\w.]+ = |[\w.]+\(")
"""How commands and lines of a recipe or of Python begin, and sentences do not."""
Table = list[list[str]]


@dataclass(frozen=True, slots=True)
class TextStyle:
    """What the place that shows the text can do."""

    width: int
    unicode: bool
    colour: bool

    def paint(self, text: str, name: str) -> str:
        """Colour words, if they are to be coloured."""
        return f"\x1b[{COLOURS[name]}m{text}\x1b[0m" if self.colour and name in COLOURS else text

    def clean(self, text: str) -> str:
        """Drop control characters, and in ASCII whatever the terminal cannot show."""
        text = "".join(c for c in text if c.isprintable() or c == "\n")
        if self.unicode:
            return text
        return text.translate(ASCII_FOR).encode("ascii", "replace").decode("ascii")

    def wrap(self, text: str, indent: str = "") -> list[str]:
        """Give text as lines of the width; a command to paste is never broken over lines."""
        lines: list[str] = []
        for line in self.clean(text).splitlines():
            if is_command(line):
                lines.append(indent + line)
                continue
            lines += textwrap.wrap(
                line, self.width, initial_indent=indent, subsequent_indent=indent
            ) or [""]
        return lines


def is_command(line: str) -> bool:
    """Tell whether a line of advice is there to be pasted."""
    return _PASTED.match(line) is not None


def cells(text: str) -> int:
    """Give the columns of a terminal that a text takes."""
    return sum(0 if combining(c) else 2 if east_asian_width(c) in ("W", "F") else 1 for c in text)


def sparkline(
    values: Sequence[float], *, unicode: bool, low: float = 0.0, high: float = 1.0
) -> str:
    """Give at most sixteen cells whose height follows the values between low and high."""
    marks = SPARKS[unicode]
    if not values:
        return ""
    num_bins = min(SPARK_BINS, len(values))
    edges = [round(i * len(values) / num_bins) for i in range(num_bins + 1)]
    drawn = []
    for start, stop in pairwise(edges):
        part = values[start:stop]
        level = (sum(part) / len(part) - low) / ((high - low) or 1)
        drawn.append(marks[min(max(int(level * len(marks)), 0), len(marks) - 1)])
    return "".join(drawn)


def bar(share: float, *, unicode: bool, size: int = BAR_CELLS) -> str:
    """Give a horizontal bar for a share between 0 and 1."""
    full, empty = BAR[unicode]
    share = min(max(share, 0.0), 1.0)
    filled = round(share * size) if share > 0.995 else min(round(share * size), size - 1)
    return full * filled + empty * (size - filled)


def fitted(table: Table, width: int, least_needed: Sequence[str], gap: int = 2) -> Table:
    """Drop columns, the least needed first, until the table is no wider than this."""
    for name in least_needed:
        if table_width(table, gap) <= width:
            break
        if name in table[0]:
            at = table[0].index(name)
            table = [row[:at] + row[at + 1 :] for row in table]
    return table


def table_width(table: Table, gap: int = 2) -> int:
    """Give the columns of a terminal that a table takes."""
    return sum(column_widths(table)) + gap * (len(table[0]) - 1)


def column_widths(table: Table) -> list[int]:
    """Give the width of each column."""
    return [max(cells(row[i]) for row in table) for i in range(len(table[0]))]


def aligned(table: Table) -> list[str]:
    """Give a table as lines."""
    widths = column_widths(table)
    return [
        "  ".join(c + " " * (w - cells(c)) for c, w in zip(row, widths, strict=True)).rstrip()
        for row in table
    ]
