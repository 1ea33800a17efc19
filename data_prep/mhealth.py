"""MHEALTH: 12 exercises of ten people with sensors on chest, left ankle and right arm, and an ECG.

    mmtool prepare mhealth --source DIR

    DIR/                                 or `MHEALTHDATASET.zip` in DIR
        mHealth_subject1.log             to mHealth_subject10.log: 24 columns, tabs between, 50 Hz
        README.txt                       says what the columns are; checked where it is there

Columns  chest   acceleration: three channels; there is no gyroscope
         ecg     two leads: a truly weak modality for these classes
         ankle   arm   acceleration, rotation, magnetic field: nine channels each

Splits  holdout      test subjects 9 and 10, val subject 8
        subject-NN   one subject is test, the next one val

Papers leave out one or several subjects, and not the same ones: compare within one protocol.

Traps  Label 0, no exercise, is more than 70 % of the rows and takes no part. Rows carry no time:
       they are 20 ms apart.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from mmtool.prepare import api

NAME = "mhealth"
TITLE = "MHEALTH: exercises seen from chest, ankle, arm and ECG"
LICENCE = "CC BY 4.0"
SOURCE = "archive.ics.uci.edu/dataset/319"
CITATION = (
    "O. Banos et al., mHealthDroid: a novel framework for agile development of mobile health "
    "applications, IWAAL 2014"
)
EDITIONS = {
    "folder": ["mHealth_subject*.log"],
    "zip": ["MHEALTH*.zip"],
    "uci-zip": ["mhealth*.zip"],
}
MEDIA = ["mHealth_subject*.log"]
MAX_MISSING = 0.0

ACTIVITIES = (
    "standing still", "sitting and relaxing", "lying down", "walking", "climbing stairs",
    "waist bends forward", "frontal elevation of arms", "knees bending", "cycling", "jogging",
    "running", "jump front and back",
)  # fmt: skip
LABEL_BY_NUMBER = {number: number - 1 for number in range(len(ACTIVITIES) + 1)}
SUBJECTS = tuple(f"{number:02d}" for number in range(1, 11))
HELD_OUT = {"09": "test", "10": "test", "08": "val"}
RATE_HZ, NUM_COLUMNS = 50.0, 24
CHANNELS = {
    "chest": range(3), "ecg": range(3, 5), "ankle": range(5, 14), "arm": range(14, 23),
}  # fmt: skip
# What the readme calls the columns of a modality; words are compared without case.
_WORDS = {"chest": "chest", "ecg": "electrocardiogram|ecg", "ankle": "ankle", "arm": "arm"}
_COLUMN = re.compile(r"^\s*column\s+(?P<number>\d+)\s*:\s*(?P<text>.*)$", re.I | re.M)


class Options(api.WindowOptions):
    """Windows."""


def columns(root: Path, options: Options) -> Mapping[str, api.Column]:
    """Three places of the body and the ECG, all at 50 Hz."""
    del root, options
    return {name: api.Column(name, api.SeriesSpec(rate_hz=RATE_HZ)) for name in CHANNELS}


def classes(root: Path, options: Options) -> Sequence[str]:
    """The twelve exercises."""
    del root, options
    return ACTIVITIES


def clips(root: Path, options: Options) -> Iterable[api.Clip]:
    """Every window of every subject."""
    tree = api.open_tree(root, "mHealth_subject*.log", "README*")
    if not any(name.endswith(".log") for name in tree):
        raise api.SourceError(
            "there is no mHealth_subject1.log", where=str(root), fix="complete the release"
        )
    _check_columns(tree)
    protocols = {
        "holdout": {subject: HELD_OUT.get(subject, "train") for subject in SUBJECTS},
        **api.leave_one_out(SUBJECTS, prefix="subject"),
    }
    for subject in SUBJECTS:
        name = f"mHealth_subject{int(subject)}.log"
        source = replace(tree.get(name, api.Source(root / name)), read=_read_subject)
        sources = {key: replace(source, key=key) for key in CHANNELS}
        split = {protocol: splits[subject] for protocol, splits in protocols.items()}
        whole = api.Clip(subject, 0, sources, split, group=subject)
        if name not in tree:
            # Without its file the windows of a subject are unknown: it is missing as one clip.
            yield whole
            continue
        numbers = api.read_numbers(source, NUM_COLUMNS)[:, -1]
        labels = api.labels_of_numbers(numbers, LABEL_BY_NUMBER, str(source.path))
        yield from api.window_clips(whole, np.arange(len(labels)) / RATE_HZ, labels, options)


def _read_subject(source: api.Source) -> dict[str, api.Recording]:
    numbers = api.read_numbers(source, NUM_COLUMNS)
    times_s = np.arange(len(numbers)) / RATE_HZ
    return {
        name: api.Recording(times_s, numbers[:, channels.start : channels.stop].astype(np.float32))
        for name, channels in CHANNELS.items()
    }


def _check_columns(tree: Mapping[str, api.Source]) -> None:
    """Refuse a release whose readme gives the columns another order."""
    for name in (name for name in tree if name.startswith("README")):
        text = api.read_content(tree[name]).decode("utf-8", "replace")
        said = {int(match["number"]): match["text"].strip() for match in _COLUMN.finditer(text)}
        for modality, channels in CHANNELS.items():
            for number in (channel + 1 for channel in channels):
                if number in said and not re.search(_WORDS[modality], said[number], re.I):
                    raise api.SourceError(
                        f"column {number} is {said[number]!r}, expected one of the {modality}",
                        where=str(tree[name].path),
                        why="this copy orders its columns otherwise than the release",
                        fix="take the release again",
                    )
