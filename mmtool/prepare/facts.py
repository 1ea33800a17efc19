"""What decoding found out about the raw files, told once: codecs, odd durations, odd pairs."""

import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mmtool.media.spec import MediaFacts
from mmtool.prepare.api import Clip

_OUTLIER_FACTOR = 10.0
_LENGTHS_DIFFER_S = 0.5


def describe(facts: MediaFacts) -> str:
    """Give codec, size and rate of a file in a few words; "" where nothing is known."""
    size = f"{facts.width}x{facts.height}" if facts.width and facts.height else ""
    fps = f"{facts.fps:.5g} fps" if facts.fps else ""
    rate = f"{facts.rate_hz} Hz" if facts.rate_hz else ""
    varying = "variable rate" if facts.variable_rate else ""
    return " ".join(word for word in (facts.codec or "", size, fps, rate, varying) if word)


class FactsSeen:
    """Counts the facts of many clips; keeps the durations that odd ones are measured against."""

    def __init__(self) -> None:
        self._kinds: dict[str, Counter[str]] = {}
        self._durations: list[dict[str, float]] = []

    def add(self, facts: Mapping[str, MediaFacts]) -> None:
        """Take in the facts of one clip, by modality."""
        for modality, found in facts.items():
            if text := describe(found):
                self._kinds.setdefault(modality, Counter())[text] += 1
        self._durations.append(
            {m: round(f.duration_s, 4) for m, f in facts.items() if f.duration_s is not None}
        )

    def as_json(self) -> dict[str, Any]:
        """Give the counts and durations as plain values."""
        kinds = {m: dict(sorted(counts.items())) for m, counts in sorted(self._kinds.items())}
        return {"kinds": kinds, "durations_s": self._durations}


def merged_kinds(notes: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    """Give how many clips have which codec, size and rate, the commonest first, by modality."""
    counts: dict[str, Counter[str]] = {}
    for found in notes:
        for modality, kinds in found["kinds"].items():
            counts.setdefault(modality, Counter()).update(kinds)
    return {modality: dict(found.most_common()) for modality, found in sorted(counts.items())}


def duration_flags(
    clips: Sequence[Clip], durations_s: Sequence[Mapping[str, float]]
) -> Iterator[tuple[Clip, str]]:
    """Give clips that last ten times longer or shorter than most, or whose streams differ."""
    medians = {
        modality: statistics.median(found[modality] for found in durations_s if modality in found)
        for modality in {name for found in durations_s for name in found}
    }
    for clip, found in zip(clips, durations_s, strict=True):
        for modality, seconds in found.items():
            usual_s = medians[modality]
            if not usual_s / _OUTLIER_FACTOR <= seconds <= usual_s * _OUTLIER_FACTOR:
                yield clip, "outlier-duration"
                break
        whole = [s for m, s in found.items() if clip.sources[m].end_s is None]
        if len(whole) > 1 and max(whole) - min(whole) > _LENGTHS_DIFFER_S:
            yield clip, "av-length"
