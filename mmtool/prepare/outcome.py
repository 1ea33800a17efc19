"""What became of every clip, put together from the notes of all shards."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mmtool.prepare.api import Clip
from mmtool.prepare.contents import without_content_leaks
from mmtool.prepare.facts import duration_flags, merged_kinds
from mmtool.prepare.listing import Leaks, LeftOut
from mmtool.prepare.plan import Plan
from mmtool.store.writer import FinishedShard


@dataclass(frozen=True, slots=True)
class Outcome:
    """All shards' notes in one list each, in id order."""

    kept: tuple[Clip, ...]
    present: tuple[tuple[str, ...], ...]
    skipped: tuple[tuple[Clip, str, str], ...]
    """Clip, reason, detail."""
    flags: tuple[tuple[Clip, str], ...]
    lengths: Mapping[str, tuple[int, ...]]
    contents: tuple[Mapping[str, str], ...]
    """Modality -> identity of the raw bytes, by kept clip."""
    kinds: Mapping[str, Mapping[str, int]]
    """Modality -> codec, size and rate -> number of clips."""
    removed: tuple[LeftOut, ...]
    """Clips that lost a protocol because a held-out split has them."""


def collect(plan: Plan, shards: Sequence[FinishedShard], leaks: Leaks) -> Outcome:
    """Put the notes of all shards together, and take what leaks by its content out of train."""
    kept: list[Clip] = []
    present: list[tuple[str, ...]] = []
    skipped: list[tuple[Clip, str, str]] = []
    flags: list[tuple[Clip, str]] = []
    lengths: dict[str, list[int]] = {}
    contents: list[Mapping[str, str]] = []
    durations: list[Mapping[str, float]] = []
    first = 0
    for shard in shards:
        notes = shard.notes
        kept += [plan.clips[first + position] for position in notes["kept"]]
        present += [tuple(names) for names in notes["present"]]
        skipped += [(plan.clips[first + at], why, text) for at, why, text in notes["skipped"]]
        flags += [(plan.clips[first + position], flag) for position, flag in notes["flags"]]
        contents += notes["contents"]
        durations += notes["facts"]["durations_s"]
        for name, found in notes["lengths"].items():
            lengths.setdefault(name, []).extend(found)
        first += len(notes["kept"]) + len(notes["skipped"])
    flags += duration_flags(kept, durations)
    # Their share in the statistics of train is left as it is.
    clips, removed = without_content_leaks(kept, contents, leaks=leaks, where=str(plan.root))
    return Outcome(
        kept=tuple(clips),
        present=tuple(present),
        skipped=tuple(skipped),
        flags=tuple(flags),
        lengths={name: tuple(found) for name, found in lengths.items()},
        contents=tuple(contents),
        kinds=merged_kinds([shard.notes["facts"] for shard in shards]),
        removed=(*plan.removed, *removed),
    )
