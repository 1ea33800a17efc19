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
    if report["multi_label"]:
        classes += ", any number for a clip"
    edition = f" (edition {report['edition']})" if report["edition"] else ""
    if report["dry_run"]:
        size = human_bytes(report["estimated_bytes"])
        lines.append(f"{report['rows']:,} of {clips} usable in {classes}{edition}, about {size}")
    else:
        lines.append(
            f"{report['rows']:,} of {clips} stored in {classes}{edition}, "
            f"{human_bytes(report['bytes'])}"
        )
    lines += _split_lines(report)
    lines += _left_out_lines(report)
    return lines if report["dry_run"] else lines + _result_lines(report)


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
        values = [
            f"{split} {found['values']['smallest']:g} to {found['values']['largest']:g} "
            f"(mean {found['values']['mean']:.3g}, {plural(found['values']['clips'], 'clip')})"
            for split, found in splits.items()
            if "values" in found
        ]
        if values:
            lines.append(f"  values: {', '.join(values)}")
        trained = set(splits.get("train", {}).get("classes", {}))
        for split in ("val", "test"):
            unseen = sorted(set(splits.get(split, {}).get("classes", {})) - trained)
            if unseen:
                lines.append(f"  note: {split} has classes that train lacks: {_some(unseen)}")
    return lines


def _left_out_lines(report: Mapping[str, Any]) -> list[str]:
    lines = []
    for reason, found in report["skipped"].items():
        some = _some(found["ids"], found["count"])
        lines.append(f"skipped {found['count']:,} ({reason}): {some}")
        lines.append(f"  for example: {found['example'].splitlines()[0]}")
        lines += [
            f"  of split {protocol}: "
            + ", ".join(f"{split} {counts['clips']:,}" for split, counts in splits.items())
            for protocol, splits in list(found["splits"].items())[:1]
            if splits and len(splits) > 1
        ]
    for reason, found in report["removed"].items():
        some = _some(found["clips"], found["count"])
        lines.append(f"taken out of a split {found['count']:,} ({reason}): {some}")
    if report["unlisted"]:
        lines.append(f"ignored {plural(report['unlisted'], 'file')} that no list names")
    for state, count in report.get("files", {}).items():
        if state != "missing":
            lines.append(f"{plural(count, 'raw file')}: {state}")
    return lines


def _result_lines(report: Mapping[str, Any]) -> list[str]:
    lines = []
    for modality, count in report["present"].items():
        if count < report["rows"]:
            lines.append(f"{modality} is absent from {plural(report['rows'] - count, 'clip')}")
    for modality, kinds in report["media"].items():
        lines.append(f"{modality}: {_some([f'{kind} ({n:,})' for kind, n in kinds.items()])}")
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
