"""Problems of a recipe as text in the manner of a compiler: place, line, caret, help."""

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mmtool.config.locate import Span
from mmtool.errors import Problem


@dataclass(frozen=True, slots=True)
class Spot:
    """What a problem points at: a stretch of a file, a whole file, or the command line."""

    label: str
    """The file as shown, or `command line: -s key=value`."""
    rank: int = 0
    """Order among sources: the recipe, what it extends, the command line."""
    span: Span | None = None
    line: str = ""
    """Text of the line, without its end."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """A problem and the spot it is shown at."""

    problem: Problem
    spot: Spot


def shown(path: Path) -> str:
    """Give a path the way a person types it: relative when below the current folder."""
    absolute = path.absolute()
    here = Path.cwd()
    return (absolute.relative_to(here) if absolute.is_relative_to(here) else absolute).as_posix()


def in_order(troubles: Iterable[Trouble]) -> list[Trouble]:
    """Sort by source, then by line and column; what concerns a whole file comes first."""

    def place(trouble: Trouble) -> tuple[int, int, int]:
        span = trouble.spot.span
        return (trouble.spot.rank, span.line if span else 0, span.column if span else 0)

    return sorted(troubles, key=place)


def render(troubles: Iterable[Trouble]) -> str:
    """Give every problem as a block of text, in order, separated by empty lines."""
    return "\n\n".join(_block(trouble) for trouble in in_order(troubles))


def _block(trouble: Trouble) -> str:
    spot = trouble.spot
    lines = [f"error: {trouble.problem.what}"]
    if spot.span is None:
        lines.append(f"  --> {spot.label}")
    else:
        lines.append(f"  --> {spot.label}:{spot.span.line}:{spot.span.column}")
        gutter = str(spot.span.line)
        start = spot.span.column - 1
        marked = spot.line[start : start + spot.span.length]
        carets = "^" * max(1, sum(_width(letter) for letter in marked))
        lines.append(f"{gutter} | {spot.line}".rstrip())
        lines.append(f"{' ' * len(gutter)} | {_blank(spot.line[:start])}{carets}")
    if trouble.problem.fix:
        first, *rest = trouble.problem.fix.splitlines()
        lines.append(f"  help: {first}")
        lines += [f"        {line}" for line in rest]
    return "\n".join(lines)


def _blank(text: str) -> str:
    return "".join("\t" if letter == "\t" else " " * _width(letter) for letter in text)


def _width(letter: str) -> int:
    if unicodedata.combining(letter):
        return 0
    return 2 if unicodedata.east_asian_width(letter) in "WF" else 1
