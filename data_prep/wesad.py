"""WESAD: stress and amusement of 15 people, from a belt around the chest and a watch.

    mmtool prepare wesad --source DIR
    mmtool prepare wesad --source DIR -s classes=binary

    DIR/
        S2/S2.pkl  ...  S17/S17.pkl      signals and labels of a subject; S1 and S12 do not exist
        S2/S2_E4_Data.zip  S2_respiban.txt  S2_quest.csv ...      not read

    {"signal": {"chest": {"ACC", "ECG", "EMG", "EDA", "Temp", "Resp"},      700 Hz
                "wrist": {"ACC", "BVP", "EDA", "TEMP"}},                    32, 64, 4, 4 Hz
     "label": 700 Hz, "subject": "S2"}

Columns  chest   eight channels: ACC x y z, ECG, EMG, EDA, Temp, Resp; means of the recorded rows at
                 `chest_hz`
         wrist_acc  wrist_bvp  wrist_eda  wrist_temp   at the rates of the watch
         Rates differ, so windows are cut by time.

Classes  3        baseline, stress, amusement
         binary   no stress (baseline and amusement), stress

Splits  holdout     test S16 and S17, val S15
        subject-SN  one subject is test, the next one val; this is what papers average over

Traps  Labels 0 (between), 4 (meditation), 5, 6 and 7 take no part. The pickles come from Python 2;
       they are read without running anything that they bring along. One is about a gigabyte: they
       are read one at a time, twice each, and windows are in the order of subjects.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from mmtool.prepare import api

NAME = "wesad"
TITLE = "WESAD: stress and affect from chest and wrist"
LICENCE = "for research, as its readme says; CC BY 4.0 by the UCI page"
SOURCE = "archive.ics.uci.edu/dataset/465"
CITATION = (
    "P. Schmidt, A. Reiss, R. Duerichen, C. Marberger, K. Van Laerhoven, Introducing WESAD, a "
    "multimodal dataset for wearable stress and affect detection, ICMI 2018"
)
EDITIONS = {"folder": ["S*/S*.pkl"]}
MEDIA = ["S*/S*.pkl"]
MAX_MISSING = 0.0

SUBJECTS = tuple(f"S{number}" for number in range(2, 18) if number != 12)
HELD_OUT = {"S16": "test", "S17": "test", "S15": "val"}
CHEST_HZ = 700
CHEST = {"ACC": 3, "ECG": 1, "EMG": 1, "EDA": 1, "Temp": 1, "Resp": 1}
WRIST = {"ACC": (3, 32.0), "BVP": (1, 64.0), "EDA": (1, 4.0), "TEMP": (1, 4.0)}
_CLASSES = {
    "3": (("baseline", "stress", "amusement"), {1: 0, 2: 1, 3: 2}),
    "binary": (("no stress", "stress"), {1: 0, 2: 1, 3: 0}),
}
_KNOWN_LABELS = range(8)
# Signals of one recording end within a second of each other.
_MOST_APART_S = 5.0


class Options(api.WindowOptions):
    """Windows, classes and the rate of the chest."""

    classes: Literal["3", "binary"] = "3"
    window_s: float = Field(30.0, gt=0)
    stride_s: float = Field(15.0, gt=0)
    min_share: float = Field(1.0, gt=0, le=1)
    chest_hz: int = Field(140, gt=0)
    """A divisor of 700."""

    @field_validator("chest_hz")
    @classmethod
    def _divides(cls, value: int) -> int:
        if CHEST_HZ % value:
            raise ValueError(f"must divide {CHEST_HZ}: 700, 350, 175, 140, 100, 70, 50, 35")
        return value


def columns(root: Path, options: Options) -> Mapping[str, api.Column]:
    """The belt, and each sensor of the watch at its own rate."""
    del root
    chest = api.SeriesSpec(rate_hz=float(options.chest_hz))
    wrist = {
        f"wrist_{name.lower()}": api.SeriesSpec(rate_hz=rate_hz)
        for name, (_, rate_hz) in WRIST.items()
    }
    return {name: api.Column(name, spec) for name, spec in {"chest": chest, **wrist}.items()}


def classes(root: Path, options: Options) -> Sequence[str]:
    """Three states or two."""
    del root
    return _CLASSES[options.classes][0]


def clips(root: Path, options: Options) -> Iterable[api.Clip]:
    """Every window of every subject."""
    tree = api.open_tree(root, "S*/S*.pkl")
    protocols = {
        "holdout": {subject: HELD_OUT.get(subject, "train") for subject in SUBJECTS},
        **api.leave_one_out(SUBJECTS, prefix="subject"),
    }
    # One for all clips, because readers are told apart by identity.
    read = partial(_read_subject, chest_hz=options.chest_hz)
    for subject in SUBJECTS:
        name = f"{subject}/{subject}.pkl"
        source = replace(tree.get(name, api.Source(root / name)), read=read)
        sources = {key: replace(source, key=key) for key in columns(root, options)}
        split = {protocol: splits[subject] for protocol, splits in protocols.items()}
        whole = api.Clip(subject, 0, sources, split, group=subject)
        # Without its file the windows of a subject are unknown: it is missing as one clip.
        yield from _windows(whole, source, options) if name in tree else [whole]


def _windows(whole: api.Clip, source: api.Source, options: Options) -> Iterator[api.Clip]:
    content = _content(source)
    found = np.ravel(content["label"])
    _refuse_unlike(source, content, len(found))
    label_by_number = dict.fromkeys(_KNOWN_LABELS, -1) | _CLASSES[options.classes][1]
    labels = api.labels_of_numbers(found.astype(np.float64), label_by_number, str(source.path))
    times_s = np.arange(len(found)) / CHEST_HZ
    yield from api.window_clips(whole, times_s, labels, options)


def _read_subject(source: api.Source, *, chest_hz: int) -> dict[str, api.Recording]:
    signal = _content(source)["signal"]
    factor = CHEST_HZ // chest_hz
    chest = np.concatenate(
        [_means(_plane(signal["chest"][name]), factor) for name in CHEST], axis=1
    )
    # A mean stands for the middle of the rows it was taken of.
    middle_s = (factor - 1) / 2 / CHEST_HZ
    found = {"chest": api.Recording(np.arange(len(chest)) / chest_hz + middle_s, chest)}
    for name, (_, rate_hz) in WRIST.items():
        values = _plane(signal["wrist"][name]).astype(np.float32)
        found[f"wrist_{name.lower()}"] = api.Recording(np.arange(len(values)) / rate_hz, values)
    return found


def _means(values: NDArray[np.float64], factor: int) -> NDArray[np.float32]:
    """Give the mean of each `factor` rows, which keeps higher frequencies from folding back."""
    used = values[: len(values) // factor * factor]
    means: NDArray[np.float32] = (
        used.reshape(-1, factor, values.shape[1]).mean(axis=1).astype(np.float32)
    )
    return means


def _plane(values: Any) -> NDArray[np.float64]:
    array = np.asarray(values, np.float64)
    return array[:, None] if array.ndim == 1 else array


def _content(source: api.Source) -> Mapping[str, Any]:
    content = api.read_pickle(source.path, member=source.member, keep=False)
    problem = ""
    if not isinstance(content, Mapping) or not {"signal", "label"} <= set(content):
        problem = "it has no signal and label"
    else:
        for place, names in (("chest", CHEST), ("wrist", WRIST)):
            there = content["signal"].get(place, {})
            if lacking := [name for name in names if name not in there]:
                problem = f"signal/{place} has no {', '.join(lacking)}"
    if problem:
        raise _unlike(source, problem)
    found: Mapping[str, Any] = content
    return found


def _refuse_unlike(source: api.Source, content: Mapping[str, Any], num_labels: int) -> None:
    """Refuse shapes and rates other than those that the release has."""
    signal = content["signal"]
    expected = [("chest", name, width, float(CHEST_HZ)) for name, width in CHEST.items()]
    expected += [("wrist", name, width, rate_hz) for name, (width, rate_hz) in WRIST.items()]
    duration_s = num_labels / CHEST_HZ
    for place, name, width, rate_hz in expected:
        shape = _plane(signal[place][name]).shape
        if len(shape) != 2 or shape[1] != width:
            raise _unlike(source, f"signal/{place}/{name} is {list(shape)}, not [n, {width}]")
        if abs(shape[0] / rate_hz - duration_s) > _MOST_APART_S:
            lasts = f"at {rate_hz:g} Hz it lasts {shape[0] / rate_hz:.0f} s, the labels"
            raise _unlike(source, f"signal/{place}/{name}: {lasts} {duration_s:.0f} s")


def _unlike(source: api.Source, why: str) -> api.SourceError:
    return api.SourceError(
        f"{source.path.name} is not a subject of WESAD",
        where=str(source.path),
        why=why,
        fix=f"take {source.path.name} from the release again",
    )
