"""Pickles of features of utterances, as the releases of the sentiment literature share them.

    {"train": {"text": [n, time, channel], "audio": ..., "vision": ..., "labels": ..., "id": ...},
     "valid": ..., "test": ...}

MulT and MultiBench write `labels` [n, 1, k], of which the first is the sentiment; MMSA writes
`regression_labels` [n], `raw_text` and, without alignment, `audio_lengths` and `vision_lengths`.
Names are text or bytes: `video$_$3`, `video[3]`, `video_3`, or the triple video, start, end.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mmtool.errors import SourceError
from mmtool.media.spec import Source
from mmtool.prepare.pickles import read_pickle

Arrays: TypeAlias = dict[str, NDArray[np.generic]]
FEATURES = ("text", "audio", "vision")
_SPLITS = {"train": "train", "valid": "val", "test": "test"}
_LABELS = ("regression_labels", "labels")
_NAME = re.compile(r"(?P<video>.+?)(?:\$_\$|\[|_)(?P<number>\d+)\]?")


@dataclass(frozen=True, slots=True)
class Utterance:
    """One row of such a pickle."""

    id: str
    video: str
    """What the name says it was cut from; an unusual name counts as a video of its own."""
    split: str
    value: float
    sources: Mapping[str, Source]
    text: str | None
    """The words, where the pickle holds them."""


def read_utterances(path: Path) -> list[Utterance]:
    """Give all rows of a pickle; unknown keys or shapes are refused with what was found."""
    content = read_pickle(path)
    lacking = [key for key in _SPLITS if not isinstance(content, Mapping) or key not in content]
    if lacking:
        raise _unlike(path, f"it has no {', '.join(lacking)}", content)
    return [row for part in _SPLITS for row in _rows(path, part, content[part])]


def without_padding(sources: Mapping[str, Source], arrays: Arrays) -> Arrays:
    """Give series without the rows of zeros that fill them up, in front or at the end.

    Series of one length are taken for aligned and cut alike. Where the pickle gives lengths, a
    series is cut to them on the side on which the rest is zero.
    """
    series = {name: array for name, array in arrays.items() if array.ndim == 2}
    spans = {name: _span(array) for name, array in series.items()}
    if len({len(array) for array in series.values()}) == 1:
        used = [(start, end) for start, end in spans.values() if end > start]
        both = (min(s for s, _ in used), max(e for _, e in used)) if used else (0, 0)
        spans = dict.fromkeys(series, both)
    else:
        spans = {name: _known_span(sources, name, series[name], spans[name]) for name in series}
    return {
        name: array[slice(*spans[name])]
        if name in spans and spans[name][1]
        else array[:1]
        if name in spans
        else array
        for name, array in arrays.items()
    }


def _rows(path: Path, part: str, content: Any) -> list[Utterance]:
    if not isinstance(content, Mapping):
        raise _unlike(path, f"{part} is no mapping", content)
    labels = next((key for key in _LABELS if key in content), _LABELS[1])
    if lacking := [key for key in (*FEATURES, labels, "id") if key not in content]:
        raise _unlike(path, f"{part} has no {', '.join(lacking)}", content)
    names = [_name(entry) for entry in content["id"]]
    if not names:
        raise _unlike(path, f"{part} is empty", content)
    count = len(names)
    for key in FEATURES:
        array = content[key]
        if len(array) != count or np.ndim(array[0]) != 2:
            raise _unlike(path, f"{part}/{key} is not [{count}, time, channel]", content)
    values = np.asarray(content[labels], np.float64)
    if len(values) != count or not np.isfinite(values.reshape(count, -1)[:, :1]).all():
        raise _unlike(path, f"{part}/{labels} is not one finite number per id", content)
    values = values.reshape(count, -1)
    texts = [_text(entry) for entry in content["raw_text"]] if "raw_text" in content else None
    return [
        Utterance(
            name,
            video,
            _SPLITS[part],
            float(values[row, 0]),
            {key: Source(path, key=f"{part}/{key}", row=row) for key in FEATURES},
            None if texts is None else texts[row],
        )
        for row, (name, video) in enumerate(names)
    ]


def _name(entry: Any) -> tuple[str, str]:
    """Give the id of an utterance and the video it belongs to."""
    if isinstance(entry, np.ndarray | list | tuple) and np.ndim(entry) == 1:
        parts = [_text(part) for part in entry]
        if len(parts) > 1:
            return "_".join(parts), parts[0]
        entry = parts[0]
    name = _text(entry)
    found = _NAME.fullmatch(name)
    return name, found["video"] if found else name


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _span(array: NDArray[np.generic]) -> tuple[int, int]:
    used = np.flatnonzero(np.any(array, axis=1))
    return (int(used[0]), int(used[-1]) + 1) if len(used) else (0, 0)


def _known_span(
    sources: Mapping[str, Source],
    name: str,
    array: NDArray[np.generic],
    span: tuple[int, int],
) -> tuple[int, int]:
    """Give the span of the length in the pickle, where the rows outside of it are zero."""
    source = sources.get(name)
    if source is None or source.key is None or source.row is None:
        return span
    part, _, key = source.key.partition("/")
    lengths = read_pickle(source.path)[part].get(f"{key}_lengths")
    if lengths is None:
        return span
    length = int(np.ravel(lengths[source.row])[0])
    for start, end in ((0, length), (len(array) - length, len(array))):
        if 0 <= start <= span[0] and span[1] <= end <= len(array):
            return start, end
    return span


def _unlike(path: Path, what: str, content: Any) -> SourceError:
    return SourceError(
        f"{path.name} is not one of the known pickles: {what}",
        where=str(path),
        why=f"found {_described(content)}",
        fix=f"take {path.name} from the release again",
    )


def _described(content: Any) -> str:
    if not isinstance(content, Mapping):
        return f"a {type(content).__name__}"
    shapes = {
        str(key): list(np.shape(value)) if isinstance(value, np.ndarray) else type(value).__name__
        for key, value in content.items()
    }
    return ", ".join(f"{key}: {shape}" for key, shape in sorted(shapes.items())) or "nothing"
