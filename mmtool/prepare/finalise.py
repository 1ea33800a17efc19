"""From finished shards to a published store: index, statistics, manifest, report."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import mmtool
from mmtool.prepare.listing import Leaks
from mmtool.prepare.loader import options_json
from mmtool.prepare.outcome import Outcome, collect
from mmtool.prepare.plan import Plan
from mmtool.prepare.report import full_report
from mmtool.prepare.request import MediaRoom
from mmtool.prepare.statistics import Moments
from mmtool.store.index import index_bytes
from mmtool.store.schema import ColumnInfo, Manifest, content_hash, digest
from mmtool.store.writer import FinishedShard, StoreWriter


def finalise(
    plan: Plan,
    columns: Mapping[str, ColumnInfo],
    shards: Sequence[FinishedShard],
    writer: StoreWriter,
    media: MediaRoom,
    *,
    leaks: Leaks,
    started: float,
    redone: int,
) -> tuple[dict[str, Any], str]:
    """Publish the store; give its report and its hash."""
    outcome = collect(plan, shards, leaks)
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
        is_multi_label=plan.is_multi_label,
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
            "edition": plan.edition,
            "source_fingerprint": digest([dict(found) for found in outcome.contents]),
            "mmtool": mmtool.__version__,
            "decoders": dict(media.versions),
        },
        is_multi_label=plan.is_multi_label,
    )
    seconds = time.monotonic() - started
    report = full_report(plan, manifest, outcome, seconds=seconds, decoded=redone)
    writer.publish(manifest, report)
    return report, found


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
        values=[clip.value for clip in outcome.kept],
        label_sets=([clip.every_label for clip in outcome.kept] if plan.is_multi_label else None),
        splits={p: [clip.split.get(p) for clip in outcome.kept] for p in plan.protocols},
        present=[[m in names for m in plan.modalities] for names in outcome.present],
        num_modalities=len(plan.modalities),
    )
