"""From finished shards to a published store: index, statistics, manifest, report."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import mmtool
from mmtool.prepare.api import Clip
from mmtool.prepare.loader import options_json
from mmtool.prepare.plan import Plan
from mmtool.prepare.report import full_report
from mmtool.prepare.request import MediaRoom
from mmtool.prepare.statistics import Moments
from mmtool.store.index import index_bytes
from mmtool.store.schema import ColumnInfo, Manifest, content_hash
from mmtool.store.writer import FinishedShard, StoreWriter


@dataclass(frozen=True, slots=True)
class Outcome:
    """All shards' notes in one list each, in id order."""

    kept: tuple[Clip, ...]
    present: tuple[tuple[str, ...], ...]
    skipped: tuple[tuple[Clip, str, str], ...]
    """Clip, reason, detail."""
    flags: tuple[tuple[Clip, str], ...]
    lengths: Mapping[str, tuple[int, ...]]


def finalise(
    plan: Plan,
    columns: Mapping[str, ColumnInfo],
    shards: Sequence[FinishedShard],
    writer: StoreWriter,
    media: MediaRoom,
    *,
    started: float,
    redone: int,
) -> tuple[dict[str, Any], str]:
    """Publish the store; give its report and its hash."""
    outcome = collect(plan, shards)
    columns = with_statistics(columns, shards, outcome)
    index = writer.write_index(_index(plan, outcome))
    options = options_json(plan.options)
    infos = tuple(shard.info for shard in shards)
    found = content_hash(
        columns=columns,
        shards=infos,
        index=index,
        classes=plan.classes,
        preparer=plan.preparer.name,
        options=options,
    )
    manifest = Manifest(
        name=writer.out.name,
        title=plan.preparer.text("TITLE"),
        licence=plan.preparer.text("LICENCE"),
        source=plan.preparer.text("SOURCE"),
        citation=plan.preparer.text("CITATION"),
        hash=found,
        classes=plan.classes,
        modalities=plan.modalities,
        columns=columns,
        protocols=plan.split_counts(outcome.kept),
        default_protocol=plan.protocols[0],
        shards=infos,
        index=index,
        provenance={
            "preparer": plan.preparer.name,
            "options": options,
            "source_fingerprint": plan.source_digest(),
            "mmtool": mmtool.__version__,
            "decoders": dict(media.versions),
        },
    )
    report = full_report(
        plan,
        manifest,
        kept=outcome.kept,
        skipped=outcome.skipped,
        flags=outcome.flags,
        present=outcome.present,
        lengths=outcome.lengths,
        seconds=time.monotonic() - started,
        decoded=redone,
    )
    writer.publish(manifest, report)
    return report, found


def collect(plan: Plan, shards: Sequence[FinishedShard]) -> Outcome:
    """Put the notes of all shards together."""
    kept: list[Clip] = []
    present: list[tuple[str, ...]] = []
    skipped: list[tuple[Clip, str, str]] = []
    flags: list[tuple[Clip, str]] = []
    lengths: dict[str, list[int]] = {}
    first = 0
    for shard in shards:
        notes = shard.notes
        kept += [plan.clips[first + position] for position in notes["kept"]]
        present += [tuple(names) for names in notes["present"]]
        skipped += [(plan.clips[first + at], why, text) for at, why, text in notes["skipped"]]
        flags += [(plan.clips[first + position], flag) for position, flag in notes["flags"]]
        for name, found in notes["lengths"].items():
            lengths.setdefault(name, []).extend(found)
        first += len(notes["kept"]) + len(notes["skipped"])
    return Outcome(
        tuple(kept),
        tuple(present),
        tuple(skipped),
        tuple(flags),
        {name: tuple(found) for name, found in lengths.items()},
    )


def with_statistics(
    columns: Mapping[str, ColumnInfo], shards: Sequence[FinishedShard], outcome: Outcome
) -> dict[str, ColumnInfo]:
    """Give the columns with the longest length and each protocol's train statistics."""
    merged: dict[str, dict[str, Moments]] = {}
    for shard in shards:
        for protocol, by_column in shard.notes["moments"].items():
            for name, state in by_column.items():
                merged.setdefault(name, {}).setdefault(protocol, Moments()).merge(Moments(**state))
    return {
        name: replace(
            column,
            max_length=max(outcome.lengths.get(name, ()), default=0) if column.ragged else None,
            stats={
                protocol: moments.result(column.kind)
                for protocol, moments in merged.get(name, {}).items()
                if moments.count
            },
        )
        for name, column in columns.items()
    }


def _index(plan: Plan, outcome: Outcome) -> bytes:
    return index_bytes(
        ids=[clip.id for clip in outcome.kept],
        labels=[clip.label for clip in outcome.kept],
        groups=[clip.group for clip in outcome.kept],
        splits={p: [clip.split.get(p) for clip in outcome.kept] for p in plan.protocols},
        present=[[m in names for m in plan.modalities] for names in outcome.present],
        num_modalities=len(plan.modalities),
    )
