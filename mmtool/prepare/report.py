"""What a person should know about a prepared dataset, as plain JSON values."""

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mmtool.prepare.api import AudioSpec, Clip, FramesSpec, SeriesSpec, Spec, TextSpec
from mmtool.prepare.plan import Plan, missing_sources
from mmtool.store.schema import SPLITS, Manifest

SCHEMA = "mmtool-prepare-report/1"
NUM_NAMED = 50


def inventory_report(plan: Plan) -> dict[str, Any]:
    """Give what a dry run finds: counts, missing files and about how many bytes."""
    missing = missing_sources(plan)
    return {
        **_about(plan),
        "dry_run": True,
        "clips": len(plan.clips),
        "splits": _splits(plan, plan.clips),
        "missing": {
            "count": len(missing),
            "files": [
                {"id": clip.id, "modality": modality, "path": str(clip.sources[modality].path)}
                for clip, modality in missing[:NUM_NAMED]
            ],
        },
        "shared_groups": _shared_groups(plan, plan.clips),
        "estimated_bytes": _estimated_bytes(plan),
    }


def full_report(
    plan: Plan,
    manifest: Manifest,
    *,
    kept: Sequence[Clip],
    skipped: Sequence[tuple[Clip, str, str]],
    flags: Sequence[tuple[Clip, str]],
    present: Sequence[Sequence[str]],
    lengths: Mapping[str, Sequence[int]],
    seconds: float,
    decoded: int,
) -> dict[str, Any]:
    """Give what a full run did."""
    return {
        **_about(plan),
        "dry_run": False,
        "hash": manifest.hash,
        "clips": len(plan.clips),
        "rows": len(kept),
        "splits": _splits(plan, kept),
        "present": {m: sum(m in names for names in present) for m in plan.modalities},
        "skipped": _by_reason(skipped),
        "flags": {
            flag: {"count": len(ids), "ids": ids[:NUM_NAMED]}
            for flag, ids in _grouped((flag, clip.id) for clip, flag in flags).items()
        },
        "lengths": {name: _spread(plan, name, found) for name, found in lengths.items()},
        "shared_groups": _shared_groups(plan, kept),
        "identical_content": _identical_content(plan),
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
        "title": plan.preparer.text("TITLE"),
        "licence": plan.preparer.text("LICENCE"),
        "citation": plan.preparer.text("CITATION"),
        "num_classes": len(plan.classes),
    }


def _splits(plan: Plan, clips: Sequence[Clip]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for protocol in plan.protocols:
        found[protocol] = {}
        for split in SPLITS:
            labels = Counter(clip.label for clip in clips if clip.split.get(protocol) == split)
            if labels:
                classes = {plan.classes[label]: labels[label] for label in sorted(labels)}
                found[protocol][split] = {"clips": labels.total(), "classes": classes}
    return found


def _by_reason(skipped: Sequence[tuple[Clip, str, str]]) -> dict[str, dict[str, Any]]:
    details: dict[str, str] = {}
    for _, reason, detail in skipped:
        details.setdefault(reason, detail)
    ids = _grouped((reason, clip.id) for clip, reason, _ in skipped)
    return {
        reason: {"count": len(found), "ids": found[:NUM_NAMED], "example": details[reason]}
        for reason, found in ids.items()
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


def _identical_content(plan: Plan) -> dict[str, list[list[str]]]:
    """Give pairs of clips with byte-identical raw data that differ in split or in label."""
    first: dict[tuple[str, str, int | None, float, float | None], Clip] = {}
    found: dict[str, list[list[str]]] = {"across_splits": [], "across_labels": []}
    for clip, fingerprints in zip(plan.clips, plan.fingerprints, strict=True):
        for modality, content in fingerprints.items():
            source = clip.sources[modality]
            if not content or source.text is not None:
                continue
            key = (modality, content, source.row, source.start_s, source.end_s)
            other = first.setdefault(key, clip)
            shared = set(other.split) & set(clip.split)
            if any(other.split[protocol] != clip.split[protocol] for protocol in shared):
                found["across_splits"].append([other.id, clip.id, modality])
            if other.label != clip.label:
                found["across_labels"].append([other.id, clip.id, modality])
    return {name: pairs[:NUM_NAMED] for name, pairs in found.items() if pairs}


def _estimated_bytes(plan: Plan) -> int:
    sizes: dict[str, int] = {}
    total = 0
    for clip in plan.clips:
        for column in plan.columns.values():
            source = clip.sources.get(column.modality)
            fixed = _fixed_bytes(column.spec)
            if fixed is not None:
                total += fixed
            elif source is not None and source.text is not None:
                total += 4 * len(source.text.encode())
            elif source is not None and source.member is None and source.row is None:
                # Of what varies in length only the raw file's own size is known without decoding.
                path = str(source.path)
                if path not in sizes:
                    sizes[path] = source.path.stat().st_size if source.path.is_file() else 0
                total += sizes[path]
    return total


def _fixed_bytes(spec: Spec) -> int | None:
    if isinstance(spec, FramesSpec):
        return spec.num_frames * spec.channels * spec.height * spec.width
    if isinstance(spec, AudioSpec) and spec.feature is not None:
        return 2 * spec.feature.num_mels * spec.feature.num_frames
    if isinstance(spec, AudioSpec) and spec.max_seconds is not None:
        return int(2 * spec.rate_hz * spec.max_seconds)
    if isinstance(spec, SeriesSpec | TextSpec | AudioSpec):
        return None
    raise TypeError(f"unknown spec {spec!r}")
