"""Raw data that is the same byte for byte under two names: reported, never tested silently."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from mmtool.errors import SourceError
from mmtool.prepare.api import Clip
from mmtool.prepare.listing import Leaks, LeftOut
from mmtool.store.schema import SPLITS

_Key: TypeAlias = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class SharedContent:
    """Two clips with the same raw data in one modality."""

    first: str
    second: str
    modality: str
    protocols: tuple[str, ...]
    """Protocols in which the two lie in different splits."""
    same_label: bool


def shared_contents(
    clips: Sequence[Clip], contents: Sequence[Mapping[str, str]]
) -> list[SharedContent]:
    """Give pairs of clips whose raw data is the same: each clip with the first of them."""
    seen: dict[_Key, Clip] = {}
    found = []
    for clip, digests in zip(clips, contents, strict=True):
        for modality, digest in digests.items():
            source = clip.sources[modality]
            if not digest or source.text is not None:
                continue
            key = (modality, digest, source.row, source.key, source.start_s, source.end_s)
            other = seen.setdefault(key, clip)
            if other is not clip:
                differing = tuple(
                    p for p in clip.split if other.split.get(p, clip.split[p]) != clip.split[p]
                )
                same = set(clip.every_label) == set(other.every_label)
                found.append(SharedContent(other.id, clip.id, modality, differing, same))
    return found


def without_content_leaks(
    clips: Sequence[Clip], contents: Sequence[Mapping[str, str]], *, leaks: Leaks, where: str
) -> tuple[list[Clip], list[LeftOut]]:
    """Handle clips that equal one of another split in every modality: the same sample twice."""
    if leaks == "allow":
        return list(clips), []
    by_content: dict[_Key, list[int]] = {}
    for position, (clip, digests) in enumerate(zip(clips, contents, strict=True)):
        if set(digests) == set(clip.sources) and all(digests.values()):
            by_content.setdefault(_whole_key(clip, digests), []).append(position)
    current = list(clips)
    removed: list[LeftOut] = []
    for positions in by_content.values():
        for protocol in sorted({p for at in positions for p in clips[at].split}):
            splits = {
                at: clips[at].split[protocol] for at in positions if protocol in clips[at].split
            }
            if len(set(splits.values())) < 2:
                continue
            best = max(splits.values(), key=SPLITS.index)
            stays = min(at for at, split in splits.items() if split == best)
            for at in (at for at, split in splits.items() if split != best):
                if leaks == "refuse":
                    raise _leak(clips[at], clips[stays], protocol, where)
                split = {p: s for p, s in current[at].split.items() if p != protocol}
                current[at] = replace(current[at], split=split)
                detail = f"{protocol}: same content as {clips[stays].id} in {best}"
                removed.append(LeftOut(current[at], "cross-split-content", detail))
    return current, removed


def _whole_key(clip: Clip, digests: Mapping[str, str]) -> _Key:
    return tuple(
        (m, digests[m], s.row, s.key, s.start_s, s.end_s) for m, s in sorted(clip.sources.items())
    )


def _leak(clip: Clip, other: Clip, protocol: str, where: str) -> SourceError:
    return SourceError(
        f"leak: clips {other.id!r} ({other.split[protocol]}) and {clip.id!r} "
        f"({clip.split[protocol]}) hold the same bytes in protocol {protocol!r}",
        where=where,
        why="a model would be tested on what it was trained on; finished shards are kept",
        fix="put both into one split, or accept it with --allow-leak",
    )
