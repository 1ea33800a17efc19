"""One entry per clip: rows of a list that repeat an id or put one clip into two splits.

A list of a release is somebody else's work. What it repeats is decided by a policy that the user
names, what would be tested on its own training data is taken out of training or refused, and
everything left out is counted with its reason.
"""

import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from mmtool.errors import SourceError
from mmtool.prepare.api import Clip, Source
from mmtool.prepare.request import Duplicates
from mmtool.store.schema import SPLITS

Leaks: TypeAlias = Literal["refuse", "drop-train", "allow"]
_Identity: TypeAlias = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A clip of the list that the store does not get, and why."""

    clip: Clip
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class Listing:
    """Clips with ids of their own, and what was left out to get there."""

    clips: tuple[Clip, ...]
    left_out: tuple[LeftOut, ...]
    removed: tuple[LeftOut, ...]
    """Clips that stay, but no longer take part in a protocol."""


def one_entry_per_clip(
    clips: Iterable[Clip], *, duplicates: Duplicates, leaks: Leaks, where: str
) -> Listing:
    """Apply the policies for unusable rows, for leaks between splits and for repeated ids."""
    left_out: list[LeftOut] = []
    usable: list[Clip] = []
    for clip in clips:
        if clip.skip:
            left_out.append(LeftOut(clip, clip.skip, "so the preparer says"))
        else:
            usable.append(clip)
    removed: list[LeftOut] = []
    if leaks != "allow":
        usable, without_split, removed = _without_leaks(usable, leaks, where)
        left_out += without_split
    kept, repeated = _without_repeats(usable, duplicates)
    return Listing(tuple(kept), (*left_out, *repeated), tuple(removed))


def _without_leaks(
    clips: Sequence[Clip], leaks: Leaks, where: str
) -> tuple[list[Clip], list[LeftOut], list[LeftOut]]:
    """Take clips out of the protocols in which another split holds the same clip.

    Gives the clips that stay, those left without any split, and those that lost one of several.
    """
    current = list(clips)
    details: dict[int, str] = {}
    for identity, positions in _sharing(clips).items():
        for protocol in sorted({name for at in positions for name in clips[at].split}):
            for at, other in _conflicts(clips, positions, protocol):
                if leaks == "refuse":
                    raise _leak(clips[at], clips[other], protocol, identity, where)
                split = {p: s for p, s in current[at].split.items() if p != protocol}
                current[at] = replace(current[at], split=split)
                details[at] = f"{protocol}: also in {clips[other].split[protocol]}"
    gone = {at for at in details if not current[at].split}
    return (
        [clip for at, clip in enumerate(current) if at not in gone],
        [LeftOut(clips[at], "cross-split", details[at]) for at in sorted(gone)],
        [LeftOut(current[at], "cross-split", details[at]) for at in sorted(set(details) - gone)],
    )


def _sharing(clips: Sequence[Clip]) -> dict[_Identity, list[int]]:
    """Give the positions of clips that have an id or a raw source in common."""
    sharing: dict[_Identity, list[int]] = defaultdict(list)
    for position, clip in enumerate(clips):
        sharing["id", clip.id].append(position)
        for source in set(clip.sources.values()):
            if source.text is None:
                sharing[_identity(source)].append(position)
    return {identity: positions for identity, positions in sharing.items() if len(positions) > 1}


def _conflicts(
    clips: Sequence[Clip], positions: Sequence[int], protocol: str
) -> list[tuple[int, int]]:
    """Give each position to be taken out of a protocol, with one that stays: test before val."""
    held = [at for at in positions if protocol in clips[at].split]
    if len({clips[at].split[protocol] for at in held}) < 2:
        return []
    rank = {split: SPLITS.index(split) for split in SPLITS}
    stays = max(held, key=lambda at: (rank[clips[at].split[protocol]], -at))
    best = clips[stays].split[protocol]
    return [(at, stays) for at in held if clips[at].split[protocol] != best]


def _without_repeats(
    clips: Sequence[Clip], duplicates: Duplicates
) -> tuple[list[Clip], list[LeftOut]]:
    by_id: dict[str, list[Clip]] = defaultdict(list)
    for clip in clips:
        by_id[clip.id].append(clip)
    kept: list[Clip] = []
    left_out: list[LeftOut] = []
    for entries in by_id.values():
        if len(entries) == 1 or duplicates == "multi":
            kept += [
                clip if number == 1 else replace(clip, id=f"{clip.id}#{number}")
                for number, clip in enumerate(entries, start=1)
            ]
            continue
        chosen = {"first": entries[:1], "last": entries[-1:], "drop": []}[duplicates]
        kept += chosen
        detail = f"listed {len(entries)} times, --duplicates {duplicates}"
        left_out += [
            LeftOut(clip, "duplicate-id", detail)
            for clip in entries
            if not any(clip is one for one in chosen)
        ]
    return kept, left_out


def _leak(clip: Clip, other: Clip, protocol: str, identity: _Identity, where: str) -> SourceError:
    first, second = (other, clip) if other.id <= clip.id else (clip, other)
    said = (
        f"id {clip.id!r} is in two splits of protocol {protocol!r}: "
        f"{first.split[protocol]} and {second.split[protocol]}"
        if identity[0] == "id"
        else f"leak: clips {first.id!r} ({first.split[protocol]}) and {second.id!r} "
        f"({second.split[protocol]}) share their raw data in protocol {protocol!r}"
    )
    return SourceError(
        said,
        where=where if identity[0] == "id" else f"{identity[0]} (listed by {where})",
        why="a model would be tested on what it was trained on",
        fix="keep one of the two, or accept it with --allow-leak",
    )


def _identity(source: Source) -> _Identity:
    # os.path.abspath resolves no links, so a million clips cost no system call each.
    path = os.path.abspath(source.path)  # noqa: PTH100
    return (path, source.member, source.row, source.key, source.start_s, source.end_s)
