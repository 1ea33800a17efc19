"""Everything about a dataset that is known without decoding, checked before work starts."""

import hashlib
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mmtool.errors import RequestError, SourceError
from mmtool.prepare.api import Clip, Column, Options, Source
from mmtool.prepare.checks import check_clips
from mmtool.prepare.loader import LoadedPreparer, options_json
from mmtool.prepare.request import MediaRoom
from mmtool.store.schema import SPLITS, ColumnInfo, digest
from mmtool.types import sorted_modalities

_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(frozen=True, slots=True)
class Plan:
    """A checked list of clips in id order and what is to become of them."""

    preparer: LoadedPreparer
    options: Options
    root: Path
    columns: Mapping[str, Column]
    classes: tuple[str, ...]
    modalities: tuple[str, ...]
    protocols: tuple[str, ...]
    """The default one first."""
    clips: tuple[Clip, ...]
    fingerprints: tuple[Mapping[str, str], ...]
    """Modality -> fingerprint of its source, by clip; empty where the source is missing."""

    def split_counts(self, clips: Sequence[Clip]) -> dict[str, dict[str, int]]:
        """Count clips by protocol and split."""
        counts: dict[str, dict[str, int]] = {}
        for protocol in self.protocols:
            found = Counter(clip.split[protocol] for clip in clips if protocol in clip.split)
            counts[protocol] = {split: found[split] for split in SPLITS if found[split]}
        return counts

    def source_digest(self) -> str:
        """Give the identity of all raw data that the plan reads."""
        return digest([dict(found) for found in self.fingerprints])

    def shard_key(
        self, first: int, last: int, columns: Mapping[str, ColumnInfo], more: Mapping[str, Any]
    ) -> str:
        """Give the identity of the clips first..last-1: a shard of that key need not be redone."""
        return digest(
            {
                "clips": [_facts(clip) for clip in self.clips[first:last]],
                "fingerprints": [dict(found) for found in self.fingerprints[first:last]],
                "columns": {name: [c.dtype, c.shape, c.transform] for name, c in columns.items()},
                "options": options_json(self.options),
                "preparer": self.preparer.code_digest(),
                **more,
            }
        )


def make_plan(
    preparer: LoadedPreparer,
    options: Options,
    root: Path,
    media: MediaRoom,
    *,
    limit: int | None,
    allow_leak: bool,
    workers: int,
    read_content: bool = True,
) -> Plan:
    """Ask the preparer for its clips and check them; nothing is decoded.

    Without `read_content` raw files are only looked for, which is quick, and their fingerprints
    say no more than whether they are there.
    """
    columns = dict(preparer.columns(root, options))
    _check_names(preparer, columns)
    classes = tuple(preparer.classes(root, options))
    clips = list(preparer.clips(root, options))
    where = str(preparer.file)
    protocols = check_clips(clips, columns, classes, where=where, allow_leak=allow_leak)
    if limit is not None:
        clips = limited(clips, limit, protocols[0])
    clips.sort(key=lambda clip: clip.id)
    return Plan(
        preparer=preparer,
        options=options,
        root=root,
        columns=columns,
        classes=classes,
        modalities=sorted_modalities({column.modality for column in columns.values()}),
        protocols=protocols,
        clips=tuple(clips),
        fingerprints=_fingerprints(
            clips, media if read_content else replace(media, fingerprint=_presence), workers
        ),
    )


def limited(clips: Sequence[Clip], limit: int, protocol: str) -> list[Clip]:
    """Take `limit` clips in proportion to splits and classes, always the same ones."""
    if limit < 1:
        raise RequestError(f"a limit of {limit} leaves no clips", fix="give --limit 1 or more")
    strata: dict[tuple[str, int], list[Clip]] = {}
    for clip in clips:
        strata.setdefault((clip.split.get(protocol, ""), clip.label), []).append(clip)
    order: list[tuple[float, str, Clip]] = []
    for members in strata.values():
        ranked = sorted((_shuffle_key(clip.id), clip.id, clip) for clip in members)
        share = [(rank + 0.5) / len(ranked) for rank in range(len(ranked))]
        order += [(at, key, clip) for at, (key, _, clip) in zip(share, ranked, strict=True)]
    order.sort(key=lambda item: item[:2])
    return [clip for _, _, clip in order[:limit]]


def missing_sources(plan: Plan) -> list[tuple[Clip, str]]:
    """Give every clip and modality whose raw file does not exist."""
    return [
        (clip, modality)
        for clip, found in zip(plan.clips, plan.fingerprints, strict=True)
        for modality in sorted(clip.sources)
        if not found[modality]
    ]


def usable_cores() -> int:
    """Give the number of cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _shuffle_key(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _facts(clip: Clip) -> list[Any]:
    return [clip.id, clip.label, sorted(clip.sources), dict(clip.split), clip.group]


def _presence(source: Source) -> str:
    return "found" if source.text is not None or source.path.exists() else ""


def _fingerprints(
    clips: Sequence[Clip], media: MediaRoom, workers: int
) -> tuple[Mapping[str, str], ...]:
    def one(clip: Clip) -> Mapping[str, str]:
        found = {}
        for modality, source in sorted(clip.sources.items()):
            try:
                found[modality] = str(media.fingerprint(source))
            except (OSError, media.failure):
                found[modality] = ""
        return found

    with ThreadPoolExecutor(max_workers=workers) as pool:
        return tuple(pool.map(one, clips, chunksize=64))


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
