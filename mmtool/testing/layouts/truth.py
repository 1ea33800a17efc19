"""What a synthetic release holds, told to the test that reads it back."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

SPOILING = frozenset({
    "lfs-pointer", "empty", "stub", "truncated", "not-media", "missing", "no-audio", "no-picture",
    "too-short", "no-duration",
})  # fmt: skip
"""Kinds of defects that leave a clip without its sound or its picture. A `cut-short` flv or avi is
not one: it can be read up to where it ends. Nor is `flv-no-audio`, whose sound is in the wav."""


@dataclass(frozen=True, slots=True)
class Defect:
    """One planted defect: its kind, the clip it concerns, and the file if it lies in a file."""

    kind: str
    id: str
    path: Path | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Truth:
    """Everything that was written: what a preparer should find under `root`.

    `ids` holds the rows as the release lists them, duplicates and missing files included.
    """

    root: Path
    classes: tuple[str, ...]
    """Class names in the order of the literature."""
    ids: Mapping[tuple[str, str], tuple[str, ...]]
    """(protocol, split) -> ids in the order of the list."""
    label: Mapping[str, str]
    """Class name by id; of an id that is listed twice the class of its first row."""
    defects: tuple[Defect, ...] = ()
    fps: Mapping[str, Fraction] = field(default_factory=dict)
    """Frames per second of the picture, by id."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Length of the clip, by id."""
    group: Mapping[str, str] = field(default_factory=dict)
    """Speaker, source video or session by id, where the release has such a thing."""

    def bad(self, *kinds: str) -> frozenset[str]:
        """Give the ids with a defect of these kinds, or of any kind when none is named."""
        return frozenset(d.id for d in self.defects if not kinds or d.kind in kinds)

    def spoilt(self) -> frozenset[str]:
        """Give the ids of which no sound or no picture can be had."""
        return self.bad(*SPOILING)

    def defect(self, kind: str) -> Defect:
        """Give the first planted defect of one kind; KeyError when there is none."""
        for found in self.defects:
            if found.kind == kind:
                return found
        raise KeyError(f"no {kind!r} here; there is {sorted({d.kind for d in self.defects})}")


def chosen_traps(bad: bool | Iterable[str], traps: Collection[str]) -> frozenset[str]:
    """Give the traps that `bad` asks for: True is all, False none, else exactly those named."""
    if isinstance(bad, bool):
        return frozenset(traps) if bad else frozenset()
    asked = frozenset([bad] if isinstance(bad, str) else bad)
    if unknown := asked - frozenset(traps):
        raise ValueError(f"unknown traps {sorted(unknown)}; choose from {sorted(traps)}")
    return asked
