"""Your own data, listed in a CSV file: one row per clip, one column per modality.

    mmtool prepare manifest --source my_data.csv

`--source` is a CSV file, or a folder that holds `manifest.csv`. Its header names

    id      unique name of the clip (required)
    label   class of the clip, any text (required unless there is a value); classes are sorted,
            numbers by value
    value   number that belongs to the clip, for data.task = "regression" (optional; may be empty)
    split   train, val or test (optional; without it val and test are drawn from all clips)
    group   speaker, subject or source video (optional; never shared between drawn splits)

and every other column is a modality: a path relative to the CSV, or the text itself in a column
called `text`. An empty cell means that this clip lacks the modality. The file's ending decides what
it is: wav flac mp3 m4a ogg sound, mp4 avi flv mkv mov webm video, jpg jpeg png bmp an image,
csv npy a series [time, channel], txt text.

    id,label,split,audio,video
    clip1,happy,train,wav/clip1.wav,mp4/clip1.mp4

Where the sound is the video's own track, leave the audio column out and add `-s audio_from=video`.

Where clips have any number of classes, list them in the label cell and name what stands between
them: with `-s label_separator=|` the cell `dog|bark` is two classes and an empty one is none. Train
such a dataset with data.task = "multi_label".
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

from pydantic import Field

from mmtool.prepare import api

NAME = "manifest"
TITLE = "Your own clips, listed in a CSV file"
LICENCE = "yours: whatever holds for the files you list"
SOURCE = "a CSV file with the columns id, label and one column per modality"
CITATION = "cite the origin of your data"

PROTOCOL = "manifest"
SPLITS = ("train", "val", "test")
_FACTS = ("id", "label", "split", "group", "value")
_UNLABELLED = "unlabelled"
"""The one class of a CSV without labels."""
_ENDINGS = {
    "audio": (".wav", ".flac", ".mp3", ".m4a", ".ogg"),
    "video": (".mp4", ".avi", ".flv", ".mkv", ".mov", ".webm"),
    "image": (".jpg", ".jpeg", ".png", ".bmp"),
    "series": (".csv", ".npy"),
    "text": (".txt",),
}
_KIND = {ending: kind for kind, endings in _ENDINGS.items() for ending in endings}
_NUM_NAMED = 5


class Options(api.Options):
    """How the files become arrays, and how splits are drawn."""

    num_frames: int = Field(1, ge=1)
    """Frames taken from a video, at the centres of equal segments."""
    height: int = Field(256, ge=1)
    """Height of frames in pixels."""
    width: int = Field(341, ge=1)
    """Width of frames in pixels."""
    channels: Literal[1, 3] = 3
    """3 stores colour, 1 grey."""
    rate_hz: int = Field(16_000, ge=1)
    """Sampling rate of sound."""
    max_seconds: float | None = Field(None, gt=0)
    """Longest sound that is kept; unset keeps all of it."""
    num_mels: int = Field(0, ge=0)
    """Store sound as a log-mel spectrogram with so many bands; 0 stores the wave."""
    max_steps: int | None = Field(None, ge=1)
    """Longest series that is kept; unset keeps all of it."""
    label_separator: str = ""
    """What stands between the classes of a label cell, such as |; empty reads a cell as one."""
    audio_from: str = ""
    """Column of videos whose own sound becomes the modality `audio`."""
    val_fraction: float = Field(0.1, ge=0, lt=1)
    """Share of train drawn as val where the CSV has no val clip."""
    test_fraction: float = Field(0.2, ge=0, lt=1)
    """Share of all clips drawn as test where the CSV has no split column."""
    seed: int = 0
    """Changes which clips are drawn."""
    allow_missing: bool = False
    """Skip clips whose files are missing instead of stopping."""


@dataclass(frozen=True, slots=True)
class Listing:
    """The CSV as read and checked."""

    table: api.Table
    kinds: Mapping[str, str]
    """Modality -> audio, video, image, series or text."""

    @property
    def folder(self) -> Path:
        """What the paths in the CSV are relative to."""
        return self.table.path.parent

    def source(self, modality: str, cell: str) -> api.Source:
        """Give where the raw data of a cell lies."""
        path = self.folder / cell
        if self.kinds[modality] == "text" and not (_is_file(path) or _names_text_file(cell)):
            return api.Source(self.table.path, text=cell)
        return api.Source(path)

    def sources(self, row: api.TableRow, audio_from: str) -> dict[str, api.Source]:
        """Give the raw data of a clip by modality."""
        found = {m: self.source(m, row.cells[m]) for m in self.kinds if row.cells[m]}
        if audio_from in found:
            found["audio"] = found[audio_from]
        return found


def columns(root: Path, options: Options) -> dict[str, api.Column]:
    """Give one column per modality of the CSV."""
    listing = _read(root, options)
    _check_files(listing, options)
    found = {m: api.Column(m, _spec(kind, options)) for m, kind in listing.kinds.items()}
    if options.audio_from:
        found["audio"] = api.Column("audio", _spec("audio", options))
    return found


def classes(root: Path, options: Options) -> list[str]:
    """Give the labels of the CSV, sorted; by value where all are whole numbers."""
    rows = _read(root, options).table.rows
    labels = {label for row in rows for label in _labels(row, options)}
    if all(re.fullmatch(r"-?[0-9]+", label) for label in labels):
        return sorted(labels, key=lambda label: (int(label), label))
    return sorted(labels)


def clips(root: Path, options: Options) -> list[api.Clip]:
    """Give one clip per line."""
    listing = _read(root, options)
    number = {name: index for index, name in enumerate(classes(root, options))}
    splits = _splits(listing.table, options)
    return [
        api.Clip(
            id=row.cells["id"],
            label=-1 if options.label_separator else number[_labels(row, options)[0]],
            labels=tuple(sorted(number[label] for label in _labels(row, options)))
            if options.label_separator
            else None,
            value=float(row.cells["value"]) if row.cells.get("value") else None,
            sources=listing.sources(row, options.audio_from),
            split={PROTOCOL: splits[row.cells["id"]]},
            group=row.cells.get("group", ""),
        )
        for row in listing.table.rows
    ]


def _labels(row: api.TableRow, options: Options) -> list[str]:
    cell = row.cells.get("label", _UNLABELLED)
    if not options.label_separator:
        return [cell]
    return [name.strip() for name in cell.split(options.label_separator)] if cell else []


def _spec(kind: str, options: Options) -> api.Spec:
    if kind == "audio":
        feature = None
        if options.num_mels:
            seconds, hop = options.max_seconds, api.LogMel().hop
            frames = math.ceil(seconds * options.rate_hz / hop) if seconds else 128
            feature = api.LogMel(num_mels=options.num_mels, num_frames=frames)
        return api.AudioSpec(options.rate_hz, options.max_seconds, feature)
    if kind in ("video", "image"):
        frames = options.num_frames if kind == "video" else 1
        return api.FramesSpec(frames, options.height, options.width, options.channels)
    return api.TextSpec() if kind == "text" else api.SeriesSpec(max_steps=options.max_steps)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False  # literal text can be too long for a path, or hold a null byte


def _names_text_file(cell: str) -> bool:
    return cell.lower().endswith(_ENDINGS["text"]) and not re.search(r"\s", cell)


def _read(root: Path, options: Options) -> Listing:
    path = root / "manifest.csv" if root.is_dir() else root
    if not path.is_file():
        raise api.SourceError(
            "there is no manifest.csv in this folder",
            where=str(root),
            fix="name the CSV file itself: --source my_data.csv",
        )
    table = _plain_header(api.read_table(path))
    _check_header(table, options)
    for row in table.rows:
        _check_facts(table, row, options)
        _check_numbers(table, row)
    table.refuse_repeated_ids()
    kinds = {name: _kind(table, name) for name in table.header if name not in _FACTS}
    if options.audio_from and (kinds.get(options.audio_from) != "video" or "audio" in kinds):
        videos = [modality for modality, kind in kinds.items() if kind == "video"]
        raise api.SourceError(
            f"audio_from = {options.audio_from!r} cannot be used with this CSV",
            where=str(path),
            why=f"it names a column of videos ({', '.join(videos) or 'there is none'}) "
            "of a CSV without a column 'audio'",
            fix=api.suggestion(options.audio_from, videos, otherwise="leave -s audio_from out"),
        )
    return Listing(table, kinds)


def _plain_header(table: api.Table) -> api.Table:
    """Accept `audio=path` for `audio`."""

    def plain(name: str) -> str:
        return name.removesuffix("=path").strip()

    rows = [replace(r, cells={plain(n): cell for n, cell in r.cells.items()}) for r in table.rows]
    return replace(table, header=[plain(name) for name in table.header], rows=rows)


def _check_header(table: api.Table, options: Options) -> None:
    needs_label = "value" not in table.header or bool(options.label_separator)
    for name in ("id", "label") if needs_label else ("id",):
        if name not in table.header:
            near = {item.lower(): item for item in table.header}
            fix = "start the file with a header: id,label,audio,video"
            close = get_close_matches(name, list(near), n=1)
            if close:
                fix = f"rename the column {near[close[0]]!r} to {name!r}"
            raise table.error(table.header_line, f"the CSV has no column {name!r}", fix)
    if not set(table.header) - set(_FACTS):
        fix = "add a column of files, such as audio"
        raise table.error(table.header_line, "the CSV has no modality", fix)


def _check_facts(table: api.Table, row: api.TableRow, options: Options) -> None:
    for name in ("id",) if options.label_separator else ("id", "label"):
        if not row.cells.get(name, _UNLABELLED):
            raise table.error(row.line, f"line {row.line} has no {name}", f"fill in the {name}")
    labels = _labels(row, options)
    if options.label_separator and (not all(labels) or len(set(labels)) < len(labels)):
        cell, fix = row.cells["label"], "list each class once"
        what = f"line {row.line}: the label {cell!r} has an empty or a repeated class"
        raise table.error(row.line, what, fix)
    split = row.cells.get("split", SPLITS[0])
    if split not in SPLITS:
        word = "val" if split.lower().startswith("val") else split.lower()
        fix = api.suggestion(word, SPLITS, otherwise=f"use one of {', '.join(SPLITS)}")
        raise table.error(row.line, f"line {row.line} has the unknown split {split!r}", fix)
    if not any(cell for name, cell in row.cells.items() if name not in _FACTS):
        what = f"line {row.line}: clip {row.cells['id']!r} has no file at all"
        raise table.error(row.line, what, "name a file of one modality, or remove the line")


def _check_numbers(table: api.Table, row: api.TableRow) -> None:
    cell = row.cells.get("value", "")
    try:
        is_number = not cell or math.isfinite(float(cell))
    except ValueError:
        is_number = False
    if not is_number:
        what = f"line {row.line}: the value {cell!r} is not a number"
        raise table.error(row.line, what, "write a number such as -0.5, or leave the cell empty")


def _kind(table: api.Table, modality: str) -> str:
    if modality == "text":
        return "text"
    first: dict[str, tuple[int, str]] = {}
    for row in table.rows:
        cell = row.cells[modality]
        if not cell:
            continue
        kind = _KIND.get(Path(cell).suffix.lower(), "")
        if not kind:
            known = " ".join(ending.removeprefix(".") for ending in _KIND)
            what = f"line {row.line}: {cell!r} ({modality}) is no kind of file that mmtool reads"
            raise table.error(row.line, what, "convert the file, or drop the column", known)
        first.setdefault(kind, (row.line, cell))
    if len(first) > 1:
        named = ", ".join(f"{kind} on line {line} ({cell})" for kind, (line, cell) in first.items())
        line = max(line for line, _ in first.values())
        fix = "give each kind a column of its own"
        raise table.error(line, f"column {modality!r} mixes {named}", fix)
    if not first:
        raise table.error(table.header_line, f"column {modality!r} is empty", "drop the column")
    return next(iter(first))


def _check_files(listing: Listing, options: Options) -> None:
    files = [
        (row.line, row.cells[modality])
        for row in listing.table.rows
        for modality in listing.kinds
        if row.cells[modality] and listing.source(modality, row.cells[modality]).text is None
    ]
    missing = [(line, cell) for line, cell in files if not _is_file(listing.folder / cell)]
    if not missing or options.allow_missing:
        return
    named = "; ".join(f"line {line}: {cell}" for line, cell in missing[:_NUM_NAMED])
    more = len(missing) - _NUM_NAMED
    raise api.SourceError(
        f"{len(missing)} of the {len(files)} files listed do not exist",
        where=f"{listing.table.path}: {named}{f'; and {more} more' if more > 0 else ''}",
        why=f"paths are taken relative to {listing.folder}",
        fix="correct the paths, or skip these clips with -s allow_missing=true",
    )


def _splits(table: api.Table, options: Options) -> dict[str, str]:
    found = {row.cells["id"]: row.cells.get("split", "train") for row in table.rows}

    def draw(share: float, split: str) -> None:
        rows = [row.cells for row in table.rows if found[row.cells["id"]] == "train"]
        drawn = api.draw_share(
            [cells["id"] for cells in rows],
            share,
            f"{split}:{options.seed}",
            labels=[cells.get("label", "") for cells in rows],
            groups=[cells["group"] for cells in rows] if "group" in table.header else None,
        )
        found.update(dict.fromkeys(drawn, split))

    if "split" not in table.header:
        draw(options.test_fraction, "test")
    if "val" not in found.values():
        draw(options.val_fraction, "val")
    return found
