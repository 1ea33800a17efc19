"""WISDM: activities seen by a phone alone (v1.1), or by a phone and a watch (2019).

    mmtool prepare wisdm --source DIR

    v1.1   DIR/WISDM_ar_v1.1_raw.txt                       33,Jogging,49105962326000,-0.6,12.6,0.5;
    2019   DIR/raw/phone/accel/data_1600_accel_phone.txt   1600,A,252207666810782,-0.4,8.8,1.1;
           DIR/raw/phone/gyro  raw/watch/accel  raw/watch/gyro    each with users 1600 to 1650
           DIR/activity_key.txt                            walking = A
           or `wisdm-dataset.zip` in DIR

    A row is user, activity, nanoseconds, x, y, z; nominally 20 Hz.

Columns  v1.1   phone_accel
         2019   phone_accel  phone_gyro  watch_accel  watch_gyro   three axes each, on 20 Hz

Splits  holdout    a fifth of the users is test, a seventh of the others val
        user-N     one user is test, the next one val

Traps  Rows of v1.1 are broken: axes missing, commas too many, time stamp zero. What is not exactly
       a row is counted as `malformed-row`; a row with the time stamp of the one before is dropped.
       A stretch ends where user or activity change, where time goes back, or after a pause.

       In 2019 the clocks of phone and watch are not synchronised, and the release gives no way to
       do it. For each user and activity, time runs from the first stamp of each device (the earlier
       one of its two sensors, which share its clock). This is approximate: windows of phone and
       watch may be seconds apart. An activity that a sensor lacks leaves its windows out, or with
       `--missing-modality keep` the sensor.
       Stamps that are no nanoseconds are counted as `odd-clock`, sensors of one device that never
       record together as `no-overlap`.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from mmtool.prepare import api

NAME = "wisdm"
TITLE = "WISDM: activities seen by phone and watch"
LICENCE = "2019: CC BY 4.0 (UCI); v1.1: free for research"
SOURCE = "archive.ics.uci.edu/dataset/507 or www.cis.fordham.edu/wisdm (v1.1)"
CITATION = (
    "G. M. Weiss, K. Yoneda, T. Hayajneh, Smartphone and smartwatch-based biometrics using "
    "activities of daily living, IEEE Access 7, 2019; J. R. Kwapisz, G. M. Weiss, S. A. Moore, "
    "Activity recognition using cell phone accelerometers, SIGKDD Explorations 12(2), 2011"
)
V1_FILE = "WISDM_ar_v1.1_raw.txt"
EDITIONS = {
    "v1.1": [V1_FILE],
    "2019": ["raw/phone/accel", "raw/watch/accel"],
    "2019-zip": ["wisdm*.zip"],
}
MEDIA = ["raw/*/*/data_*.txt"]
MAX_MISSING = 0.1  # some users of 2019 lack the file of a sensor

V1_ACTIVITIES = ("Downstairs", "Jogging", "Sitting", "Standing", "Upstairs", "Walking")
LETTERS = "ABCDEFGHIJKLMOPQRS"
DEVICES, SENSORS = ("phone", "watch"), ("accel", "gyro")
STREAMS = tuple(f"{device}_{sensor}" for device in DEVICES for sensor in SENSORS)
TEST_SHARE, VAL_SHARE = 0.2, 1 / 7
_LONGEST_PAUSE_S = 1.0
_PLAUSIBLE_STEP_S = (0.002, 0.5)
_NUMBER = rb"(-?\d+(?:\.\d*)?(?:[eE]-?\d+)?)"
_ROW = re.compile(rb"(\d+),(\w+),(\d+)," + rb",".join([_NUMBER] * 3))
_KEY = re.compile(r"^\s*(?P<name>.*\S)\s*=\s*(?P<letter>[A-Z])\s*$", re.M)


class Options(api.WindowOptions):
    """Windows and the grid."""

    window_s: float = Field(10.0, gt=0)
    stride_s: float = Field(5.0, gt=0)
    rate_hz: float = Field(20.0, gt=0)
    """Rate of the grid of all sensors."""
    max_gap_s: float = Field(0.5, ge=0)
    """Longest loss that is bridged."""


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """The rows of a file that are what they should be, in its order."""

    users: NDArray[np.int64]
    activities: NDArray[np.str_]
    times_s: NDArray[np.float64]
    values: NDArray[np.float64]
    rejected: Sequence[int]
    """Numbers of the other rows, from 1."""


def columns(root: Path, options: Options) -> Mapping[str, api.Column]:
    """Three axes of each sensor of each device of the edition."""
    spec = api.SeriesSpec(rate_hz=options.rate_hz, max_gap_s=options.max_gap_s)
    names = STREAMS[:1] if _is_first(root) else STREAMS
    return {name: api.Column(name, spec) for name in names}


def classes(root: Path, options: Options) -> Sequence[str]:
    """Six activities, or the eighteen of activity_key.txt by letter."""
    del options
    if _is_first(root):
        return V1_ACTIVITIES
    source = api.open_tree(root, "activity_key.txt").get("activity_key.txt")
    if source is None:
        return list(LETTERS)
    text = api.read_content(source).decode("utf-8-sig", "replace")
    names = {match["letter"]: match["name"] for match in _KEY.finditer(text)}
    if sorted(names) != list(LETTERS):
        raise api.SourceError(
            "activity_key.txt does not name the activities A to S without N",
            where=str(source.path),
            why=f"it names {', '.join(sorted(names)) or 'none'}",
            fix="take the file from the release again",
        )
    return [names[letter] for letter in LETTERS]


def clips(root: Path, options: Options) -> Iterable[api.Clip]:
    """Every window of every user."""
    return _first_edition(root, options) if _is_first(root) else _second_edition(root, options)


def _first_edition(root: Path, options: Options) -> Iterator[api.Clip]:
    source = api.Source(root / V1_FILE, read=_read_stretches)
    rows = _rows(source)
    labels = {
        name: api.label_of(name, V1_ACTIVITIES, V1_FILE) for name in set(rows.activities.tolist())
    }
    splits = _splits(sorted(set(rows.users.tolist())))
    for number in rows.rejected:
        yield api.Clip(f"row-{number}", 0, {}, {"holdout": "train"}, skip="malformed-row")
    for key, at in _stretches(rows):
        user, label = int(rows.users[at[0]]), labels[rows.activities[at[0]]]
        sources = {STREAMS[0]: replace(source, key=key)}
        whole = api.Clip(f"{user:02d}_{key}", label, sources, splits[user], group=str(user))
        yield from api.window_clips(whole, rows.times_s[at], np.full(len(at), label), options)


def _stretches(rows: Rows) -> list[tuple[str, NDArray[np.intp]]]:
    """Give the rows of each stretch of one user and one activity with time going forward."""
    steps_s = np.diff(rows.times_s)
    same = (np.diff(rows.users) == 0) & (rows.activities[1:] == rows.activities[:-1])
    fresh = np.concatenate([[True], ~(same & (steps_s == 0))])
    kept = np.flatnonzero(fresh)
    steps_s = np.diff(rows.times_s[kept])
    same = (np.diff(rows.users[kept]) == 0) & (
        rows.activities[kept[1:]] == rows.activities[kept[:-1]]
    )
    ends = np.flatnonzero(~same | (steps_s <= 0) | (steps_s > _LONGEST_PAUSE_S)) + 1
    return [(f"{number:05d}", at) for number, at in enumerate(np.split(kept, ends))]


def _read_stretches(source: api.Source) -> dict[str, api.Recording]:
    rows = _rows(source)
    return {
        key: api.Recording(rows.times_s[at], rows.values[at].astype(np.float32))
        for key, at in _stretches(rows)
    }


def _second_edition(root: Path, options: Options) -> Iterator[api.Clip]:
    tree = api.open_tree(root, *(f"{d}/{s}/data_*_{s}_{d}.txt" for d in DEVICES for s in SENSORS))
    if not tree:
        raise api.SourceError(
            "there is no raw/phone/accel/data_1600_accel_phone.txt",
            where=str(root),
            fix="complete the release, or unpack its archives",
        )
    splits = _splits(sorted({int(name.rpartition("/")[2].split("_")[1]) for name in tree}))
    for user in splits:
        sources: dict[str, api.Source] = {}
        found: dict[str, Rows] = {}
        for stream in STREAMS:
            device, sensor = stream.split("_")
            name = f"{device}/{sensor}/data_{user}_{sensor}_{device}.txt"
            source = tree.get(name, api.Source(root / "raw" / name))
            sources[stream] = replace(source, read=_read_activities)
            if name not in tree:
                continue
            found[stream] = _rows(source)
            for number in found[stream].rejected:
                clip_id = f"{user}_{stream}_row-{number}"
                yield api.Clip(clip_id, 0, {}, splits[user], skip="malformed-row")
        for label, letter in enumerate(LETTERS):
            of_activity = {stream: replace(one, key=letter) for stream, one in sources.items()}
            whole = api.Clip(f"{user}_{letter}", label, of_activity, splits[user], group=str(user))
            stamps = {
                stream: np.unique(rows.times_s[rows.activities == letter])
                for stream, rows in found.items()
            }
            yield from _windows(whole, stamps, options)


def _windows(
    whole: api.Clip, stamps: Mapping[str, NDArray[np.float64]], options: Options
) -> Iterator[api.Clip]:
    """Give the windows in which all sensors that saw the activity recorded."""
    there = {stream: times for stream, times in stamps.items() if len(times) > 1}
    steps_s = {stream: float(np.median(np.diff(times))) for stream, times in there.items()}
    for stream, step_s in steps_s.items():
        if not _PLAUSIBLE_STEP_S[0] <= step_s <= _PLAUSIBLE_STEP_S[1]:
            yield replace(whole, id=f"{whole.id}_{stream}", skip="odd-clock")
            del there[stream]
    if not there:
        return
    zeros_s = {
        device: min((t[0] for stream, t in there.items() if stream.startswith(device)), default=0.0)
        for device in DEVICES
    }
    zero_of = {stream: float(zeros_s[stream.partition("_")[0]]) for stream in whole.sources}
    start_s = max(float(times[0]) - zero_of[stream] for stream, times in there.items())
    end_s = min(float(times[-1]) - zero_of[stream] for stream, times in there.items())
    # The last row, too, stands for one step.
    count = int((end_s + min(steps_s.values()) - start_s - options.window_s) / options.stride_s + 1)
    if count < 1:
        yield replace(whole, skip="no-overlap")
    for number in range(count):
        at_s = start_s + number * options.stride_s
        yield replace(
            whole,
            id=f"{whole.id}_{round(1000 * at_s):07d}",
            sources={
                stream: replace(one, start_s=begin_s, end_s=begin_s + options.window_s)
                for stream, one in whole.sources.items()
                for begin_s in (zero_of[stream] + at_s,)
            },
        )


def _read_activities(source: api.Source) -> dict[str, api.Recording]:
    rows = _rows(source)
    found = {}
    for letter in sorted(set(rows.activities.tolist())):
        at = np.flatnonzero(rows.activities == letter)
        times_s, first = np.unique(rows.times_s[at], return_index=True)
        found[letter] = api.Recording(times_s, rows.values[at[first]].astype(np.float32))
    return found


def _splits(users: Sequence[int]) -> dict[int, dict[str, str]]:
    """Give the splits of every user by protocol."""
    names = [str(user) for user in users]
    test = api.draw_share(names, TEST_SHARE, "wisdm/test")
    given = {name: "test" if name in test else "train" for name in names}
    protocols = {
        "holdout": api.carve(given, VAL_SHARE, "wisdm/val"),
        **api.leave_one_out(names, prefix="user"),
    }
    return {user: {p: s[str(user)] for p, s in protocols.items()} for user in users}


def _is_first(root: Path) -> bool:
    return api.edition_of(root, EDITIONS) == "v1.1"


def _rows(source: api.Source) -> Rows:
    """Read a file at once where every row is well formed, else row by row."""
    parts = re.split(rb"[;\r\n]+", api.read_content(source))
    lines = [part for part in parts if part.strip(b" ,\t")]
    return _table(lines) or _parsed(lines)


def _table(lines: Sequence[bytes]) -> Rows | None:
    import pandas as pd

    kinds = {"user": "int64", "activity": "str", "time": "int64"} | dict.fromkeys("xyz", "float64")
    if not lines or any(line.count(b",") != 5 for line in lines):
        return None
    try:
        table = pd.read_csv(BytesIO(b"\n".join(lines)), header=None, names=list(kinds), dtype=kinds)
    except ValueError:
        return None
    values = table[list("xyz")].to_numpy()
    if len(table) != len(lines) or not np.isfinite(values).all() or (table["time"] <= 0).any():
        return None
    times_s = table["time"].to_numpy() / 1e9
    return Rows(table["user"].to_numpy(), table["activity"].to_numpy(str), times_s, values, ())


def _parsed(lines: Sequence[bytes]) -> Rows:
    matches = [_ROW.fullmatch(line.strip()) for line in lines]
    good = [match for match in matches if match is not None and int(match[3]) > 0]
    is_good = set(good)
    return Rows(
        np.array([int(match[1]) for match in good], np.int64),
        np.array([match[2].decode() for match in good], np.str_),
        np.array([int(match[3]) for match in good], np.int64) / 1e9,
        np.array([[float(match[n]) for n in (4, 5, 6)] for match in good]).reshape(-1, 3),
        [number for number, match in enumerate(matches, start=1) if match not in is_good],
    )
