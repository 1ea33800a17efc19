"""What can be wrong with a list of clips, found before anything is decoded."""

import math
from collections.abc import Mapping, Sequence

from mmtool.errors import SourceError
from mmtool.prepare.api import Clip, Column
from mmtool.store.schema import SPLITS
from mmtool.text import suggestion


def check_clips(
    clips: Sequence[Clip],
    columns: Mapping[str, Column],
    classes: Sequence[str],
    *,
    where: str,
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
        if (clip.labels is None) != (clips[0].labels is None):
            raise SourceError(
                f"clips {clips[0].id!r} and {clip.id!r} differ in what a label is",
                where=where,
                why="one has a label, the other any number of labels",
                fix="give labels to every clip, or to none",
            )
        _check_clip(clip, modalities, len(classes), where)
        protocols.update(dict.fromkeys(clip.split))
    if not protocols:
        raise SourceError(
            "no clip belongs to a split", where=where, fix='give clips split={"default": "train"}'
        )
    return tuple(protocols)


def _check_clip(clip: Clip, modalities: set[str], num_classes: int, where: str) -> None:
    if not clip.id:
        raise SourceError("a clip has an empty id", where=where, why=f"its sources: {clip.sources}")
    _check_labels(clip, num_classes, where)
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
    if not clip.sources and not clip.skip:
        raise SourceError(
            f"clip {clip.id!r} has no source at all",
            where=where,
            fix="leave the clip out, or name the raw file of one modality",
        )


def _check_labels(clip: Clip, num_classes: int, where: str) -> None:
    wrong = [label for label in clip.every_label if not 0 <= label < num_classes]
    if wrong:
        raise SourceError(
            f"clip {clip.id!r} has label {wrong[0]}, but classes are 0..{num_classes - 1}",
            where=where,
            fix="let classes() name every label",
        )
    if clip.labels is not None and (clip.label != -1 or len(set(clip.labels)) < len(clip.labels)):
        raise SourceError(
            f"clip {clip.id!r} has the labels {clip.labels} and the label {clip.label}",
            where=where,
            why="a clip with labels lists each once and has the label -1",
        )
    if clip.value is not None and not math.isfinite(clip.value):
        raise SourceError(
            f"clip {clip.id!r} has the value {clip.value}, which is not a finite number",
            where=where,
            fix="leave the value out where there is none",
        )
