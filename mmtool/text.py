"""Words for people: suggestions, plurals, sizes and durations."""

import difflib
from collections.abc import Iterable


def did_you_mean(word: str, known: Iterable[str]) -> str | None:
    """Give the closest known word, or nothing when none is close."""
    matches = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return matches[0] if matches else None


def suggestion(word: str, known: Iterable[str], *, otherwise: str = "") -> str:
    """Give a sentence that suggests the closest known word."""
    near = did_you_mean(word, known)
    return f"did you mean {near!r}?" if near else otherwise


def plural(count: int, noun: str, nouns: str | None = None) -> str:
    """Give a count with its noun: `1 clip`, `2 clips`."""
    return f"{count:,} {noun if count == 1 else nouns or noun + 's'}"


def human_bytes(count: float) -> str:
    """Give a size in binary units: `3.4 MiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024 or unit == "GiB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    raise AssertionError("unreachable")


def human_count(count: float) -> str:
    """Give a large number in thousands, millions or billions: `11.2 M`."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(count) >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count:.0f}"


def human_seconds(seconds: float) -> str:
    """Give a duration the way a person says it: `45 s`, `3 min 05 s`, `2 h 10 min`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
