"""What a person should know about a prepared dataset, as plain JSON values."""

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from mmtool.media.features import feature_shape
from mmtool.prepare.api import AudioSpec, Clip, FramesSpec, SeriesSpec, Spec, TextSpec
from mmtool.prepare.contents import shared_contents
from mmtool.prepare.listing import LeftOut
from mmtool.prepare.outcome import Outcome
from mmtool.prepare.plan import Plan
from mmtool.store.schema import SPLITS, Manifest

SCHEMA = "mmtool-prepare-report/1"
NUM_NAMED = 50


def inventory_report(plan: Plan) -> dict[str, Any]:
    """Give what a dry run finds: counts, missing files and about how many bytes."""
    states: dict[str, int] = Counter(
        found.state for found in plan.inventory.states.values() if found.state != "found"
    )
    return {
        **_about(plan),
        "dry_run": True,
        "clips": plan.num_listed,
        "rows": len(plan.clips),
        "splits": _splits(plan, plan.clips),
        "skipped": _by_reason(plan, _left_out(plan)),
        "removed": _removed(plan.removed),
        "unlisted": plan.num_unlisted,
        "files": dict(sorted(states.items())),
        "shared_groups": _shared_groups(plan, plan.clips),
        "estimated_bytes": _estimated_bytes(plan),
    }


def full_report(
    plan: Plan, manifest: Manifest, outcome: Outcome, *, seconds: float, decoded: int
) -> dict[str, Any]:
    """Give what a full run did."""
    flags = _grouped((flag, clip.id) for clip, flag in outcome.flags)
    return {
        **_about(plan),
        "dry_run": False,
        "hash": manifest.hash,
        "clips": plan.num_listed,
        "rows": len(outcome.kept),
        "splits": _splits(plan, outcome.kept),
        "present": {m: sum(m in names for names in outcome.present) for m in plan.modalities},
        "skipped": _by_reason(plan, [*_left_out(plan), *outcome.skipped]),
        "removed": _removed(outcome.removed),
        "unlisted": plan.num_unlisted,
        "flags": {flag: {"count": len(ids), "ids": ids[:NUM_NAMED]} for flag, ids in flags.items()},
        "media": dict(outcome.kinds),
        "lengths": {name: _spread(plan, name, found) for name, found in outcome.lengths.items()},
        "shared_groups": _shared_groups(plan, outcome.kept),
        "identical_content": _identical_content(outcome),
        "bytes": sum(file.bytes for file in manifest.files()),
        "num_shards": len(manifest.shards),
        "decoded": decoded,
        "seconds": round(seconds, 3),
        "clips_per_s": round(decoded / seconds, 1) if seconds > 0 else 0.0,
    }


def _about(plan: Plan) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "preparer": plan.preparer.name,
        "edition": plan.edition,
        "title": plan.preparer.text("TITLE"),
        "licence": plan.preparer.text("LICENCE"),
        "citation": plan.preparer.text("CITATION"),
        "num_classes": len(plan.classes),
        "multi_label": plan.is_multi_label,
    }


def _splits(plan: Plan, clips: Sequence[Clip]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for protocol in plan.protocols:
        found[protocol] = {}
        for split in SPLITS:
            members = [clip for clip in clips if clip.split.get(protocol) == split]
            if members:
                labels = Counter(label for clip in members for label in clip.every_label)
                classes = {plan.classes[label]: labels[label] for label in sorted(labels)}
                found[protocol][split] = {"clips": len(members), "classes": classes}
                if values := [clip.value for clip in members if clip.value is not None]:
                    found[protocol][split]["values"] = _value_spread(values)
    return found


def _value_spread(values: Sequence[float]) -> dict[str, float]:
    return {
        "clips": len(values),
        "smallest": round(min(values), 6),
        "mean": round(statistics.fmean(values), 6),
        "largest": round(max(values), 6),
    }


def _left_out(plan: Plan) -> list[tuple[Clip, str, str]]:
    return [(found.clip, found.reason, found.detail) for found in plan.left_out]


def _by_reason(plan: Plan, skipped: Sequence[tuple[Clip, str, str]]) -> dict[str, dict[str, Any]]:
    found: dict[str, list[tuple[Clip, str]]] = {}
    for clip, reason, detail in skipped:
        found.setdefault(reason, []).append((clip, detail))
    return {
        reason: {
            "count": len(clips),
            "ids": [clip.id for clip, _ in clips[:NUM_NAMED]],
            "example": clips[0][1],
            "splits": _splits(plan, [clip for clip, _ in clips]),
        }
        for reason, clips in sorted(found.items())
    }


def _removed(removed: Sequence[LeftOut]) -> dict[str, dict[str, Any]]:
    """Give clips that stay in the store, but left a protocol in which a held-out split has them."""
    by_reason = _grouped((found.reason, f"{found.clip.id} ({found.detail})") for found in removed)
    return {
        reason: {"count": len(said), "clips": said[:NUM_NAMED]}
        for reason, said in by_reason.items()
    }


def _grouped(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for key, value in pairs:
        found.setdefault(key, []).append(value)
    return dict(sorted(found.items()))


def _spread(plan: Plan, name: str, lengths: Sequence[int]) -> dict[str, Any]:
    spec = plan.columns[name].spec
    unit, scale = ("s", spec.rate_hz) if isinstance(spec, AudioSpec) else ("steps", 1)
    known = [length / scale for length in lengths if length]
    if not known:
        return {"unit": unit}
    return {
        "unit": unit,
        "shortest": round(min(known), 3),
        "median": round(statistics.median(known), 3),
        "longest": round(max(known), 3),
        "total": round(sum(known), 3),
    }


def _shared_groups(plan: Plan, clips: Sequence[Clip]) -> dict[str, dict[str, int]]:
    """Give how many groups (speakers, source videos) are in train and also in val or test."""
    found: dict[str, dict[str, int]] = {}
    for protocol in plan.protocols:
        groups = {
            split: {c.group for c in clips if c.group and c.split.get(protocol) == split}
            for split in SPLITS
        }
        everyone = set().union(*groups.values())
        if everyone:
            shared = groups["train"] & (groups["val"] | groups["test"])
            found[protocol] = {"groups": len(everyone), "shared": len(shared)}
    return found


def _identical_content(outcome: Outcome) -> dict[str, list[list[str]]]:
    """Give pairs of clips with byte-identical raw data that differ in split or in label."""
    shared = shared_contents(outcome.kept, outcome.contents)
    found = {
        "across_splits": [[s.first, s.second, s.modality] for s in shared if s.protocols],
        "across_labels": [[s.first, s.second, s.modality] for s in shared if not s.same_label],
    }
    return {name: pairs[:NUM_NAMED] for name, pairs in found.items() if pairs}


def _estimated_bytes(plan: Plan) -> int:
    total = 0
    for clip in plan.clips:
        for column in plan.columns.values():
            source = clip.sources.get(column.modality)
            fixed = _fixed_bytes(column.spec)
            if fixed is not None:
                total += fixed
            elif source is not None and source.text is not None:
                total += 4 * len(source.text.encode())
            elif source is not None and source.row is None and source.end_s is None:
                # Of what varies in length only the raw file's own size is known without decoding.
                total += plan.inventory.num_bytes(source)
    return total


def _fixed_bytes(spec: Spec) -> int | None:
    if isinstance(spec, FramesSpec):
        return spec.num_frames * spec.channels * spec.height * spec.width
    if isinstance(spec, AudioSpec) and spec.feature is not None:
        return 2 * math.prod(feature_shape(spec.feature))
    if isinstance(spec, AudioSpec) and spec.max_seconds is not None:
        return int(2 * spec.rate_hz * spec.max_seconds)
    if isinstance(spec, SeriesSpec | TextSpec | AudioSpec):
        return None
    raise TypeError(f"unknown spec {spec!r}")
