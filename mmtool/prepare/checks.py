"""What can be wrong with a list of clips, found before anything is decoded."""

import os
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from mmtool.errors import SourceError
from mmtool.prepare.api import Clip, Column, Source
from mmtool.store.schema import SPLITS
from mmtool.text import suggestion

_Identity: TypeAlias = tuple[str, str, int, float, float]


def check_clips(
    clips: Sequence[Clip],
    columns: Mapping[str, Column],
    classes: Sequence[str],
    *,
    where: str,
    allow_leak: bool,
) -> tuple[str, ...]:
    """Refuse a faulty list; give the split protocols, the default one first."""
    if not clips:
        raise SourceError(
            "the preparer found no clips",
            where=where,
            fix="check that --source is the folder of the raw release",
        )
    if len(set(classes)) != len(classes) or not classes:
        raise SourceError(
            "class names are missing or not unique", where=where, why=", ".join(classes)
        )
    modalities = {column.modality for column in columns.values()}
    protocols: dict[str, None] = {}
    for clip in clips:
        _check_clip(clip, modalities, len(classes), where)
        protocols.update(dict.fromkeys(clip.split))
    if not protocols:
        raise SourceError(
            "no clip belongs to a split", where=where, fix='give clips split={"default": "train"}'
        )
    _check_ids(clips, where)
    if not allow_leak:
        _check_leaks(clips, tuple(protocols), where)
    return tuple(protocols)


def _check_clip(clip: Clip, modalities: set[str], num_classes: int, where: str) -> None:
    if not clip.id:
        raise SourceError("a clip has an empty id", where=where, why=f"its sources: {clip.sources}")
    if not 0 <= clip.label < num_classes:
        raise SourceError(
            f"clip {clip.id!r} has label {clip.label}, but classes are 0..{num_classes - 1}",
            where=where,
            fix="let classes() name every label",
        )
    for protocol, split in clip.split.items():
        if split not in SPLITS:
            raise SourceError(
                f"clip {clip.id!r} is in split {split!r} of protocol {protocol!r}",
                where=where,
                why=f"splits are {', '.join(SPLITS)}",
                fix=suggestion(split, SPLITS, otherwise="leave the protocol out for this clip"),
            )
    unknown = sorted(set(clip.sources) - modalities)
    if unknown:
        raise SourceError(
            f"clip {clip.id!r} has a source for {unknown[0]!r}, which no column holds",
            where=where,
            fix=suggestion(unknown[0], modalities, otherwise="add a column of that modality"),
        )
    if not clip.sources:
        raise SourceError(
            f"clip {clip.id!r} has no source at all",
            where=where,
            fix="leave the clip out, or name the raw file of one modality",
        )


def _check_ids(clips: Sequence[Clip], where: str) -> None:
    seen: dict[str, Clip] = {}
    for clip in clips:
        first = seen.setdefault(clip.id, clip)
        if first is clip:
            continue
        for protocol in sorted(set(first.split) & set(clip.split)):
            if first.split[protocol] != clip.split[protocol]:
                raise SourceError(
                    f"id {clip.id!r} is in two splits of protocol {protocol!r}: "
                    f"{first.split[protocol]} and {clip.split[protocol]}",
                    where=where,
                    why="a model would be tested on what it was trained on",
                    fix="keep one of the two",
                )
        raise SourceError(
            f"id {clip.id!r} occurs twice: {_one_place(first)} and {_one_place(clip)}",
            where=where,
            fix="give every clip an id of its own",
        )


def _check_leaks(clips: Sequence[Clip], protocols: Sequence[str], where: str) -> None:
    seen: dict[_Identity, list[Clip]] = {}
    for clip in clips:
        for source in set(clip.sources.values()):
            if source.text is None:
                seen.setdefault(_identity(source), []).append(clip)
    for identity, sharing in seen.items():
        for protocol in protocols if len(sharing) > 1 else ():
            first = next((clip for clip in sharing if protocol in clip.split), None)
            for clip in sharing:
                if (
                    first is None
                    or clip.split.get(protocol, first.split[protocol]) == (first.split[protocol])
                ):
                    continue
                raise SourceError(
                    f"leak: clips {first.id!r} ({first.split[protocol]}) and {clip.id!r} "
                    f"({clip.split[protocol]}) share their raw data in protocol {protocol!r}",
                    where=f"{identity[0]} (listed by {where})",
                    why="a model would be tested on what it was trained on",
                    fix="put both into one split, or accept it with --allow-leak",
                )


def _identity(source: Source) -> _Identity:
    # os.path.abspath resolves no links, so a million clips cost no system call each.
    path = os.path.abspath(source.path)  # noqa: PTH100
    row = -1 if source.row is None else source.row
    end_s = -1.0 if source.end_s is None else source.end_s
    return (path, source.member or "", row, source.start_s, end_s)


def _one_place(clip: Clip) -> str:
    _, source = min(clip.sources.items())
    detail = source.member or ("" if source.row is None else f"row {source.row}")
    return f"{source.path}{f' ({detail})' if detail else ''}"
