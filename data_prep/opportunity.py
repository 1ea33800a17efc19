"""OPPORTUNITY: four people at breakfast with sensors on back, arms and legs.

    mmtool prepare opportunity --source DIR
    mmtool prepare opportunity --source DIR -s labels=gestures -s null_class=true

    DIR/                                 or `OpportunityUCIDataset.zip` in DIR
        column_names.txt                 what the 250 columns are: read, not assumed
        label_legend.txt                 names of the labels: read, not assumed
        S1-ADL1.dat  ...  S4-Drill.dat   six recordings per person, 30 Hz, blanks between

Columns  back  right_arm  left_arm  legs   inertial units on the jacket (nine channels each) and the
         shoes (sixteen each); with `-s accelerometers=true` also the twelve small accelerometers,
         113 channels together, those of the challenge. Sensors in objects and in the room are not
         read, nor are quaternions, which say the same as the nine channels.

Labels   locomotion   stand, walk, sit, lie
         gestures     17 of both arms, such as opening a drawer
         `null_class` adds what is none of them: most of the time, so report F1.

Splits  challenge    as published: S1 whole, ADL1-3 and Drill of S2 and S3 for training, of which
                     ADL3 of S2 and S3 is val; test is ADL4-5 of S2 and S3; S4 takes no part.
                     Recordings are apart, the people of test are in train.
        subject-SN   one person is test, the next one val

Papers cut windows of 0.5 s every 0.25 s or 0.8 s every 0.4 s: `-s window_s=0.5 -s stride_s=0.25`.

Traps  Rows are lost to the radio, above all of the small accelerometers. Losses of up to
       `max_gap_s` are bridged by straight lines; a window with a longer one is left out, or with
       `--missing-modality keep` loses this part of the body. Values are integers of a thousandth of
       their unit.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from mmtool.prepare import api

NAME = "opportunity"
TITLE = "OPPORTUNITY: daily activities seen from back, arms and legs"
LICENCE = "CC BY 4.0"
SOURCE = "archive.ics.uci.edu/dataset/226"
CITATION = (
    "D. Roggen et al., Collecting complex activity datasets in highly rich networked sensor "
    "environments, INSS 2010; R. Chavarriaga et al., The Opportunity challenge, Pattern "
    "Recognition Letters 34(15), 2013"
)
EDITIONS = {
    "folder": ["column_names.txt", "label_legend.txt", "S*-ADL*.dat"],
    "zip": ["[oO]pportunity*.zip"],
}
MEDIA = ["S*-*.dat"]
MAX_MISSING = 0.0

SUBJECTS = ("S1", "S2", "S3", "S4")
RUNS = ("ADL1", "ADL2", "ADL3", "ADL4", "ADL5", "Drill")
TRACKS = {"locomotion": "Locomotion", "gestures": "ML_Both_Arms"}
RATE_HZ = 30.0
_INERTIAL = {
    "back": ("BACK",),
    "right_arm": ("RUA", "RLA"),
    "left_arm": ("LUA", "LLA"),
    "legs": ("L-SHOE", "R-SHOE"),
}
_SMALL = {
    "back": ("BACK", "HIP"),
    "right_arm": ("RUA^", "RUA_", "RWR", "RH"),
    "left_arm": ("LUA^", "LUA_", "LWR", "LH"),
    "legs": ("RKN^", "RKN_"),
}
_COLUMN = re.compile(r"^\s*column\s*:?\s*(?P<number>\d+)\s*:?\s+(?P<text>[^;]*)", re.I)
_LABEL = re.compile(r"^\s*(?P<id>\d+)\s+-\s+(?P<track>\S+)\s+-\s+(?P<name>.*\S)\s*$")


class Options(api.WindowOptions):
    """Labels, sensors and windows."""

    labels: Literal["locomotion", "gestures"] = "locomotion"
    null_class: bool = False
    """Also take what has no label, as a class of its own."""
    accelerometers: bool = False
    """Also take the twelve small accelerometers, which lose much to the radio."""
    window_s: float = Field(1.0, gt=0)
    stride_s: float = Field(0.5, gt=0)
    max_gap_s: float = Field(0.5, ge=0)
    """Longest loss that is bridged."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Where in a row what stands, counted from 0, as column_names.txt says."""

    num_columns: int
    time: int
    label: int
    channels: Mapping[str, tuple[int, ...]]
    """Part of the body -> columns."""


def columns(root: Path, options: Options) -> Mapping[str, api.Column]:
    """The sensors of four parts of the body."""
    del root
    spec = api.SeriesSpec(rate_hz=RATE_HZ, max_gap_s=options.max_gap_s)
    return {place: api.Column(place, spec) for place in _INERTIAL}


def classes(root: Path, options: Options) -> Sequence[str]:
    """The labels of the track in label_legend.txt by number; `null` comes first."""
    names = list(_legend(root, options).values())
    return ["null", *names] if options.null_class else names


def clips(root: Path, options: Options) -> Iterable[api.Clip]:
    """Every window of every recording."""
    layout = _layout(root, options)
    first = 1 if options.null_class else 0
    label_by_number = {number: label for label, number in enumerate(_legend(root, options), first)}
    label_by_number[0] = 0 if options.null_class else -1
    tree = api.open_tree(root, "S?-ADL?.dat", "S?-Drill.dat")
    folds = api.leave_one_out(SUBJECTS, prefix="subject")
    # One for all clips, because readers are told apart by identity.
    read = partial(_read_run, layout=layout)
    for subject in SUBJECTS:
        for run in RUNS:
            name = f"{subject}-{run}.dat"
            source = replace(tree.get(name, api.Source(root / name)), read=read)
            sources = {place: replace(source, key=place) for place in layout.channels}
            split = {fold: splits[subject] for fold, splits in folds.items()}
            if subject != "S4":
                split = {"challenge": _challenge(subject, run), **split}
            whole = api.Clip(f"{subject}-{run}", 0, sources, split, group=subject)
            if name in tree:
                numbers = api.read_numbers(source, layout.num_columns)
                labels = api.labels_of_numbers(
                    numbers[:, layout.label], label_by_number, str(source.path)
                )
                yield from api.window_clips(whole, numbers[:, layout.time] / 1000, labels, options)
            else:
                # Without its file the windows of a recording are unknown: it is missing as one.
                yield whole


def _challenge(subject: str, run: str) -> str:
    if subject == "S1" or run in ("ADL1", "ADL2", "Drill"):
        return "train"
    return "val" if run == "ADL3" else "test"


def _layout(root: Path, options: Options) -> Layout:
    path, lines = _text(root, "column_names.txt")
    names = {
        int(match["number"]) - 1: match["text"].split()
        for line in lines
        if (match := _COLUMN.match(line))
    }
    wanted = {("InertialMeasurementUnit", s): p for p, found in _INERTIAL.items() for s in found}
    if options.accelerometers:
        wanted |= {("Accelerometer", s): p for p, found in _SMALL.items() for s in found}
    channels: dict[str, list[int]] = {place: [] for place in _INERTIAL}
    unseen = set(wanted)
    for number, words in sorted(names.items()):
        place = wanted.get(tuple(words[:2])) if len(words) > 2 else None
        if place is not None and not words[2].startswith("Quaternion"):
            channels[place].append(number)
            unseen.discard((words[0], words[1]))
    single = {words[0]: number for number, words in names.items() if len(words) == 1}
    lacking = [name for name in ("MILLISEC", TRACKS[options.labels]) if name not in single]
    lacking += [" ".join(sensor) for sensor in sorted(unseen)]
    if lacking or set(names) != set(range(len(names))):
        raise api.SourceError(
            f"column_names.txt does not name {', '.join(lacking) or 'every column'}",
            where=str(path),
            why=f"it names {len(names)} columns; data cannot be found without it",
            fix="take the file from the release again",
        )
    return Layout(
        num_columns=len(names),
        time=single["MILLISEC"],
        label=single[TRACKS[options.labels]],
        channels={place: tuple(found) for place, found in channels.items()},
    )


def _legend(root: Path, options: Options) -> dict[int, str]:
    """Give the names of the labels of the wanted track by their number."""
    path, lines = _text(root, "label_legend.txt")
    found = {
        int(match["id"]): match["name"]
        for line in lines
        if (match := _LABEL.match(line)) and match["track"] == TRACKS[options.labels]
    }
    if not found:
        raise api.SourceError(
            f"label_legend.txt names no label of {TRACKS[options.labels]}",
            where=str(path),
            why="expected lines such as `1   -   Locomotion   -   Stand`",
            fix="take the file from the release again",
        )
    return dict(sorted(found.items()))


def _text(root: Path, name: str) -> tuple[Path, list[str]]:
    source = api.open_tree(root, name).get(name)
    if source is None:
        raise api.SourceError(f"{name} is missing", where=str(root), fix="complete the release")
    return source.path, api.read_content(source).decode("utf-8-sig", "replace").splitlines()


def _read_run(source: api.Source, *, layout: Layout) -> dict[str, api.Recording]:
    numbers = api.read_numbers(source, layout.num_columns)
    times_s = numbers[:, layout.time] / 1000
    return {
        place: api.Recording(times_s, numbers[:, list(channels)].astype(np.float32))
        for place, channels in layout.channels.items()
    }
