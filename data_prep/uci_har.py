"""UCI HAR: six activities of 30 people, seen by the accelerometer and gyroscope of a phone.

    mmtool prepare uci_har --source DIR
    mmtool prepare uci_har --source DIR -s body_acc=true

    DIR/                                 or `UCI HAR Dataset.zip` in DIR
        train/y_train.txt                a number 1 to 6 per window of 128 values at 50 Hz
        train/subject_train.txt          whose window it is; some copies lack it
        train/Inertial Signals/total_acc_x_train.txt  ..._y_  ..._z_
        train/Inertial Signals/body_gyro_x_train.txt  ..._y_  ..._z_
        train/Inertial Signals/body_acc_x_train.txt   ..._y_  ..._z_
        test/...                         the same with `test`
        activity_labels.txt              names of the activities; some copies lack it

Columns  total_acc  body_gyro   three axes each
         body_acc               on demand; it is total_acc without gravity, computed from it, so it
                                is no further modality: counting it as one flatters every method

Splits  official     test as released, by subject; val is drawn from train by whole subjects
        subject-NN   one of the 30 subjects is test, the next one val

Traps  Neighbouring windows share half of their values. Windows drawn at random for val would show
       half of themselves in train, so val is made of whole subjects. Where a copy has no
       subject_train.txt, val is made of whole stretches of the file, which end where the activity
       changes; there are no `subject-NN` protocols then, and val still shares people with train.
       Smaller copies with other numbers of windows circulate; the report says how many were found.
       features.txt names several features twice; the 561 features are not read here.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mmtool.prepare import api

NAME = "uci_har"
TITLE = "UCI HAR: activities seen by a phone's accelerometer and gyroscope"
LICENCE = "CC BY 4.0 by its page; the readme of 2012 forbids commercial use"
SOURCE = "archive.ics.uci.edu/dataset/240"
CITATION = (
    "D. Anguita, A. Ghio, L. Oneto, X. Parra, J. L. Reyes-Ortiz, A public domain dataset for human "
    "activity recognition using smartphones, ESANN 2013"
)
PARTS = ("train", "test")
EDITIONS = {
    "folder": [
        f"{part}/{name}" for part in PARTS for name in ("Inertial Signals", f"y_{part}.txt")
    ],
    "zip": ["UCI*HAR*.zip"],
}
MEDIA = ["*/Inertial Signals/*.txt"]
MAX_MISSING = 0.0

ACTIVITIES = (
    "WALKING", "WALKING_UPSTAIRS", "WALKING_DOWNSTAIRS", "SITTING", "STANDING", "LAYING",
)  # fmt: skip
RATE_HZ, NUM_STEPS = 50, 128
VAL_SHARE = 0.15
NUM_STRETCHES = 20


class Options(api.Options):
    """What is stored."""

    body_acc: bool = False
    """Also store the acceleration without gravity, which is derived from total_acc."""


def columns(root: Path, options: Options) -> Mapping[str, api.Column]:
    """Acceleration and rotation, 128 steps of three axes."""
    del root
    names = ("total_acc", "body_gyro", "body_acc")[: 2 + options.body_acc]
    return {name: api.Column(name, api.SeriesSpec()) for name in names}


def classes(root: Path, options: Options) -> Sequence[str]:
    """The names in activity_labels.txt, else those that its page gives."""
    del options
    source = api.open_tree(root, "activity_labels.txt").get("activity_labels.txt")
    if source is None:
        return ACTIVITIES
    text = api.read_content(source).decode("utf-8-sig")
    rows = [line.split() for line in text.splitlines() if line.strip()]
    if [row[0] for row in rows] != [str(n + 1) for n in range(len(ACTIVITIES))]:
        raise api.SourceError(
            "activity_labels.txt does not name the activities 1 to 6 in this order",
            where=str(source.path),
            why=f"it has {'; '.join(' '.join(row) for row in rows)}",
            fix="take the file from the release again",
        )
    return [" ".join(row[1:]) for row in rows]


def clips(root: Path, options: Options) -> Iterable[api.Clip]:
    """Every window in the order of the files."""
    patterns = [f"{part}/{name}_{part}.txt" for part in PARTS for name in ("y", "subject")]
    tree = api.open_tree(root, *patterns, *(f"{part}/Inertial Signals/*.txt" for part in PARTS))
    labels = {part: _whole_numbers(tree, root, f"{part}/y_{part}.txt") for part in PARTS}
    groups = _groups(tree, root, labels)
    splits = _splits(groups, by_subject="train/subject_train.txt" in tree)
    for part in PARTS:
        signals = {
            name: _signal(tree, root, part, name, len(labels[part]))
            for name in columns(root, options)
        }
        for row, label in enumerate(labels[part].tolist()):
            # Divided as the reader divides, so that a window ends exactly where the next begins.
            start_s, end_s = (at * NUM_STEPS / RATE_HZ for at in (row, row + 1))
            yield api.Clip(
                id=f"{part}-{row:05d}",
                label=label - 1,
                sources=api.between(signals, start_s, end_s),
                split=splits[groups[part][row]],
                group=groups[part][row],
            )


def _groups(
    tree: Mapping[str, api.Source], root: Path, labels: Mapping[str, NDArray[np.int64]]
) -> dict[str, list[str]]:
    """Give the subject of each window; without subjects the stretch of the file it lies in."""
    names = {part: f"{part}/subject_{part}.txt" for part in PARTS}
    if not any(name in tree for name in names.values()):
        return {part: _stretches(part, found) for part, found in labels.items()}
    groups = {
        part: [f"{subject:02d}" for subject in _whole_numbers(tree, root, names[part]).tolist()]
        for part in PARTS
    }
    for part in PARTS:
        if len(groups[part]) != len(labels[part]):
            raise api.SourceError(
                f"{names[part]} has {len(groups[part]):,} rows, y_{part}.txt {len(labels[part]):,}",
                where=str(tree[names[part]].path),
                fix="take both files from one copy of the release",
            )
    if both := sorted(set(groups["train"]) & set(groups["test"])):
        raise api.SourceError(
            f"subjects {', '.join(both)} are in train and in test",
            where=str(tree[names["train"]].path),
            why="the official split shares no subject",
            fix="take the release again, this copy was mixed",
        )
    return groups


def _stretches(part: str, labels: NDArray[np.int64]) -> list[str]:
    """Cut a file into stretches of about equal length that end where the activity changes."""
    changes = np.flatnonzero(np.diff(labels)) + 1
    wanted = np.linspace(0, len(labels), NUM_STRETCHES + 1)[1:-1]
    nearest = {int(changes[np.abs(changes - at).argmin()]) for at in wanted} if len(changes) else ()
    number = np.searchsorted(sorted(nearest), np.arange(len(labels)), side="right")
    return [f"{part}-stretch-{stretch:02d}" for stretch in number.tolist()]


def _splits(groups: Mapping[str, Sequence[str]], *, by_subject: bool) -> dict[str, dict[str, str]]:
    """Give the splits of every subject or stretch by protocol."""
    part_of = {f"{part}-{n}": part for part in PARTS for n in range(len(groups[part]))}
    group_of = {f"{part}-{n}": name for part in PARTS for n, name in enumerate(groups[part])}
    carved = api.carve(part_of, VAL_SHARE, "uci_har", groups=group_of)
    official = {group_of[row]: split for row, split in carved.items()}
    folds = api.leave_one_out(list(official), prefix="subject") if by_subject else {}
    protocols = {"official": official, **folds}
    return {name: {p: splits[name] for p, splits in protocols.items()} for name in official}


def _whole_numbers(tree: Mapping[str, api.Source], root: Path, name: str) -> NDArray[np.int64]:
    numbers = api.read_numbers(_file(tree, root, name), 1)[:, 0].astype(np.int64)
    last = len(ACTIVITIES) if "/y_" in name else 30
    if numbers.min() < 1 or numbers.max() > last:
        raise api.SourceError(
            f"{name} holds numbers from {numbers.min()} to {numbers.max()} instead of 1 to {last}",
            where=str(tree[name].path),
            fix="take the file from the release again",
        )
    return numbers


def _signal(
    tree: Mapping[str, api.Source], root: Path, part: str, name: str, num_windows: int
) -> api.Source:
    """Give the source of the three axes of a signal, after counting their windows."""
    axes = [
        _file(tree, root, f"{part}/Inertial Signals/{name}_{axis}_{part}.txt") for axis in "xyz"
    ]
    for source in axes:
        num_lines = len(api.read_content(source).rstrip().split(b"\n"))
        if num_lines != num_windows:
            raise api.SourceError(
                f"{source.member or source.path.name} has {num_lines:,} windows, "
                f"y_{part}.txt {num_windows:,}",
                where=str(source.path),
                fix="take both files from one copy of the release",
            )
    parts = tuple(source.path for source in axes[1:] if source.member is None)
    return replace(axes[0], parts=parts, read=_read_axes)


def _file(tree: Mapping[str, api.Source], root: Path, name: str) -> api.Source:
    if name in tree:
        return tree[name]
    raise api.SourceError(f"{name} is missing", where=str(root), fix="complete the release")


def _read_axes(source: api.Source) -> dict[str, api.Recording]:
    """Join all windows of three files to one recording, as if they followed each other."""
    values = np.stack([_axis(source, axis).ravel() for axis in "xyz"], axis=1)
    times_s = np.arange(len(values)) / RATE_HZ
    return {"signal": api.Recording(times_s, values.astype(np.float32))}


def _axis(source: api.Source, axis: str) -> NDArray[np.float64]:
    if source.member is not None:
        name = source.member.replace("_x_", f"_{axis}_")
        return api.read_numbers(replace(source, member=name), NUM_STEPS)
    path = source.path.with_name(source.path.name.replace("_x_", f"_{axis}_"))
    return api.read_numbers(replace(source, path=path), NUM_STEPS)
