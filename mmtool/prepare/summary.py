"""A report on one screen of plain text."""

from collections.abc import Mapping
from typing import Any

from mmtool.text import human_bytes, human_seconds, plural

_NUM_IDS = 3


def summary_lines(report: Mapping[str, Any]) -> list[str]:
    """Give the report of `prepare` (also of a dry run) as lines for a person."""
    lines: list[str] = []
    clips = plural(report["clips"], "clip")
    classes = plural(report["num_classes"], "class", "classes")
    if report["dry_run"]:
        lines.append(f"{clips} in {classes}, about {human_bytes(report['estimated_bytes'])}")
    else:
        lines.append(
            f"{report['rows']:,} of {clips} stored in {classes}, {human_bytes(report['bytes'])}"
        )
    lines += _split_lines(report)
    lines += _missing_lines(report) if report["dry_run"] else _result_lines(report)
    return lines


def _split_lines(report: Mapping[str, Any]) -> list[str]:
    lines = []
    for protocol, splits in report["splits"].items():
        counts = ", ".join(f"{split} {found['clips']:,}" for split, found in splits.items())
        line = f"split {protocol}: {counts or 'no clips'}"
        shared = report["shared_groups"].get(protocol)
        if shared and shared["shared"]:
            line += (
                f"; {shared['shared']} of {plural(shared['groups'], 'group')} in train are also "
                "in val or test"
            )
        lines.append(line)
        trained = set(splits.get("train", {}).get("classes", {}))
        for split in ("val", "test"):
            unseen = sorted(set(splits.get(split, {}).get("classes", {})) - trained)
            if unseen:
                lines.append(f"  note: {split} has classes that train lacks: {_some(unseen)}")
    return lines


def _missing_lines(report: Mapping[str, Any]) -> list[str]:
    missing = report["missing"]
    if not missing["count"]:
        return ["every raw file is there"]
    named = [file["path"] for file in missing["files"]]
    return [f"missing: {plural(missing['count'], 'file')}: {_some(named, missing['count'])}"]


def _result_lines(report: Mapping[str, Any]) -> list[str]:
    lines = []
    for modality, count in report["present"].items():
        if count < report["rows"]:
            lines.append(f"{modality} is absent from {plural(report['rows'] - count, 'clip')}")
    for reason, found in report["skipped"].items():
        some = _some(found["ids"], found["count"])
        lines.append(f"skipped {found['count']:,} ({reason}): {some}")
        lines.append(f"  for example: {found['example'].splitlines()[0]}")
    for flag, found in report["flags"].items():
        lines.append(f"kept {found['count']:,} ({flag}): {_some(found['ids'], found['count'])}")
    for name, pairs in report["identical_content"].items():
        some = _some([f"{a} = {b} ({modality})" for a, b, modality in pairs])
        lines.append(f"note: identical content {name.replace('_', ' ')}: {some}")
    for column, spread in report["lengths"].items():
        if "median" in spread:
            lines.append(
                f"{column}: {spread['shortest']:g} to {spread['longest']:g} {spread['unit']}, "
                f"median {spread['median']:g}"
            )
    took = human_seconds(report["seconds"])
    lines.append(f"took {took}, {report['clips_per_s']:g} clips/s, hash {report['hash'][:12]}")
    return lines


def _some(names: list[str], count: int | None = None) -> str:
    total = len(names) if count is None else count
    shown = ", ".join(names[:_NUM_IDS])
    return shown if total <= _NUM_IDS else f"{shown} and {total - _NUM_IDS:,} more"
