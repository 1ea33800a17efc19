"""Everything about a dataset that is known without decoding, checked before work starts."""

import hashlib
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mmtool.errors import RequestError, SourceError
from mmtool.prepare.api import AudioSpec, Clip, Column, FramesSpec, Options, Source
from mmtool.prepare.checks import check_clips
from mmtool.prepare.editions import Found
from mmtool.prepare.files import is_junk
from mmtool.prepare.inventory import (
    Inventory,
    refuse_damaged,
    refuse_missing,
    take_inventory,
    without_missing,
)
from mmtool.prepare.listing import Leaks, LeftOut, one_entry_per_clip
from mmtool.prepare.loader import LoadedPreparer, options_json
from mmtool.prepare.request import MediaRoom, PrepareRequest
from mmtool.store.schema import SPLITS, ColumnInfo, digest
from mmtool.types import sorted_modalities

_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(frozen=True, slots=True)
class Plan:
    """A checked list of clips in id order and what is to become of them."""

    preparer: LoadedPreparer
    options: Options
    root: Path
    edition: str
    """Which layout of the release was found; "" where a preparer knows only one."""
    columns: Mapping[str, Column]
    classes: tuple[str, ...]
    modalities: tuple[str, ...]
    protocols: tuple[str, ...]
    """The default one first."""
    clips: tuple[Clip, ...]
    """What is to be decoded, in id order."""
    left_out: tuple[LeftOut, ...]
    """Rows of the release's list that are not: unusable, repeated, leaking or missing."""
    removed: tuple[LeftOut, ...]
    """Clips that no longer take part in a protocol, because a held-out split has them."""
    inventory: Inventory
    num_unlisted: int
    """Media files that no clip names."""

    @property
    def is_multi_label(self) -> bool:
        """Whether a clip may have any number of classes."""
        return bool(self.clips) and self.clips[0].labels is not None

    @property
    def num_listed(self) -> int:
        """Number of rows of the release's list."""
        return len(self.clips) + len(self.left_out)

    def split_counts(self, clips: Sequence[Clip]) -> dict[str, dict[str, int]]:
        """Count clips by protocol and split."""
        counts: dict[str, dict[str, int]] = {}
        for protocol in self.protocols:
            found = Counter(clip.split[protocol] for clip in clips if protocol in clip.split)
            counts[protocol] = {split: found[split] for split in SPLITS if found[split]}
        return counts

    def shard_key(
        self, first: int, last: int, columns: Mapping[str, ColumnInfo], more: Mapping[str, Any]
    ) -> str:
        """Give the identity of the clips first..last-1: a shard of that key need not be redone."""
        return digest(
            {
                "clips": [_facts(clip) for clip in self.clips[first:last]],
                "files": [self.inventory.stamps(clip) for clip in self.clips[first:last]],
                "columns": {name: [c.dtype, c.shape, c.transform] for name, c in columns.items()},
                "options": options_json(self.options),
                "preparer": self.preparer.code_digest(),
                **more,
            }
        )


def make_plan(
    preparer: LoadedPreparer,
    options: Options,
    release: Found,
    media: MediaRoom,
    request: PrepareRequest,
    *,
    workers: int,
) -> Plan:
    """Ask the preparer for its clips, look at their files and check both; nothing is decoded."""
    root = release.root
    columns = dict(preparer.columns(root, options))
    _check_names(preparer, columns)
    classes = tuple(preparer.classes(root, options))
    where = str(preparer.file)
    listed = preparer.clips(root, options)
    protocols = check_clips(listed, columns, classes, where=where)
    listing = one_entry_per_clip(
        listed, duplicates=request.duplicates, leaks=leak_policy(preparer, request), where=where
    )
    clips = sorted(listing.clips, key=lambda clip: clip.id)
    if request.limit is not None:
        clips = sorted(limited(clips, request.limit, protocols[0]), key=lambda clip: clip.id)
    if request.max_seconds is not None:
        clips = [_capped(clip, columns, request.max_seconds) for clip in clips]
    inventory = take_inventory(clips, media, workers)
    present, missing = without_missing(
        clips, inventory, keep_partial=request.missing_modality == "keep"
    )
    plan = Plan(
        preparer=preparer,
        options=options,
        root=root,
        edition=release.edition,
        columns=columns,
        classes=classes,
        modalities=sorted_modalities({column.modality for column in columns.values()}),
        protocols=protocols,
        clips=tuple(present),
        left_out=(*listing.left_out, *missing),
        removed=listing.removed,
        inventory=inventory,
        num_unlisted=_num_unlisted(root, preparer.media, listed),
    )
    if not request.dry_run:
        _refuse(plan, missing, len(clips), request)
    return plan


def leak_policy(preparer: LoadedPreparer, request: PrepareRequest) -> Leaks:
    """Give what becomes of a clip that two splits hold."""
    return "allow" if request.allow_leak else preparer.leaks


def limited(clips: Sequence[Clip], limit: int, protocol: str) -> list[Clip]:
    """Take `limit` clips in proportion to splits and classes, always the same ones."""
    if limit < 1:
        raise RequestError(f"a limit of {limit} leaves no clips", fix="give --limit 1 or more")
    strata: dict[tuple[str, tuple[int, ...]], list[Clip]] = {}
    for clip in clips:
        strata.setdefault((clip.split.get(protocol, ""), clip.every_label), []).append(clip)
    order: list[tuple[float, str, Clip]] = []
    for members in strata.values():
        ranked = sorted((_shuffle_key(clip.id), clip.id, clip) for clip in members)
        share = [(rank + 0.5) / len(ranked) for rank in range(len(ranked))]
        order += [(at, key, clip) for at, (key, _, clip) in zip(share, ranked, strict=True)]
    order.sort(key=lambda item: item[:2])
    return [clip for _, _, clip in order[:limit]]


def usable_cores() -> int:
    """Give the number of cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _shuffle_key(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _facts(clip: Clip) -> list[Any]:
    return [clip.id, clip.label, sorted(clip.sources), dict(clip.split), clip.group]


def _refuse(
    plan: Plan, missing: Sequence[LeftOut], num_wanted: int, request: PrepareRequest
) -> None:
    refuse_damaged(plan.inventory, plan.root, plan.preparer.name)
    allowed = plan.preparer.max_missing
    if request.max_missing is not None:
        allowed = request.max_missing
    refuse_missing(
        missing,
        num_wanted,
        max_missing=request.max_skipped if allowed is None else allowed,
        classes=plan.classes,
        protocol=plan.protocols[0],
    )
    if not plan.clips:
        reasons = Counter(found.reason for found in plan.left_out)
        raise SourceError(
            "no clip of the list is usable",
            where=str(plan.root),
            why=", ".join(f"{reason}: {count:,}" for reason, count in reasons.most_common()),
            fix="check that --source is the folder of the raw release",
        )


def _capped(clip: Clip, columns: Mapping[str, Column], max_seconds: float) -> Clip:
    timed = {
        column.modality
        for column in columns.values()
        if isinstance(column.spec, AudioSpec)
        or (isinstance(column.spec, FramesSpec) and column.spec.num_frames > 1)
    }

    def cap(source: Source) -> Source:
        end_s = source.start_s + max_seconds
        return replace(source, end_s=end_s if source.end_s is None else min(end_s, source.end_s))

    sources = {m: cap(s) if m in timed else s for m, s in clip.sources.items()}
    return replace(clip, sources=sources)


def _num_unlisted(root: Path, patterns: Sequence[str], clips: Sequence[Clip]) -> int:
    if not patterns:
        return 0
    named = {source.path for clip in clips for source in clip.sources.values()}
    found = {path for pattern in patterns for path in root.glob(pattern) if not is_junk(path.name)}
    return len(found - named)


def _check_names(preparer: LoadedPreparer, columns: Mapping[str, Column]) -> None:
    if not columns:
        raise SourceError("the preparer declares no columns", where=str(preparer.file))
    names = [*columns, *(column.modality for column in columns.values())]
    for name in names:
        if not _SAFE_NAME.fullmatch(name) or name.endswith(".offsets"):
            raise SourceError(
                f"{name!r} cannot name a column or a modality",
                where=str(preparer.file),
                why="names become parts of file names",
                fix="use letters, digits, '_', '-' and '.', and do not end in '.offsets'",
            )
