"""SP-SW-HAR: phone in the pocket and watch on the wrist while people stand up, walk and sit down.

    mmtool prepare sp_sw_har --source DIR

    DIR/                                 or a zip archive of it in DIR
        DATA/executions_info.csv         the 223 executions, by id `s01_01`
        DATA/s01/s01_01_sp.csv           phone, 102 to 103 rows a second
        DATA/s01/s01_01_sw.csv           watch, 104 to 105 rows a second

Columns  phone_acc  phone_gyro  watch_acc  watch_gyro   three axes each, on a grid of 50 Hz

Splits  holdout       test subjects s18 to s23; val is drawn from the others by whole subjects
        subject-sNN   one subject is test, the next one val

The release defines no split; these are by subject, because windows of one person resemble each
other and neighbouring ones overlap.

Traps  The devices start and stop at different times, by up to a second: windows lie in what both
       recorded, on the clock that both share. The phone hands its rows over in bursts, so several
       rows have one millisecond: they are averaged. The label of a window is that of the phone's
       rows; a window counts where one label holds for 80 % of its grid. Windows of one second every
       half second are 2,234 of train and val together and 796 of test in the whole release. No
       paper names the stride; half a second was chosen because it gives the counts in use.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from mmtool.prepare import api

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

NAME = "sp_sw_har"
TITLE = "SP-SW-HAR: activities seen by a phone and a watch"
LICENCE = "CC BY 4.0"
SOURCE = "doi.org/10.5281/zenodo.8398688 or github.com/GeoTecINIT/sp-sw-har-dataset"
CITATION = (
    "M. Matey-Sanz, S. Casteleyn, C. Granell, Dataset of inertial measurements of smartphones and "
    "smartwatches for human activity recognition, Data in Brief, 2023"
)
EDITIONS = {"folder": ["DATA/executions_info.csv"], "zip": ["sp-sw-har-dataset*.zip"]}
MEDIA = ["DATA/s*/s*_s?.csv"]
MAX_MISSING = 0.0

ACTIVITIES = ("SEATED", "SITTING_DOWN", "STANDING_UP", "TURNING", "WALKING")
TEST_SUBJECTS = ("s18", "s19", "s20", "s21", "s22", "s23")
VAL_SHARE = 0.15
DEVICES = {"phone": "sp", "watch": "sw"}
SENSORS = ("acc", "gyro")


class Options(api.WindowOptions):
    """Windows and the grid."""

    window_s: float = Field(1.0, gt=0)
    stride_s: float = Field(0.5, gt=0)
    rate_hz: float = Field(50.0, gt=0)
    """Rate of the grid of both devices."""


def columns(root: "Path", options: Options) -> Mapping[str, api.Column]:
    """Three axes of each sensor of each device."""
    del root
    spec = api.SeriesSpec(rate_hz=options.rate_hz, max_gap_s=0.25)
    return {f"{d}_{s}": api.Column(f"{d}_{s}", spec) for d in DEVICES for s in SENSORS}


def classes(root: "Path", options: Options) -> Sequence[str]:
    """The five activities."""
    del root, options
    return ACTIVITIES


def clips(root: "Path", options: Options) -> Iterable[api.Clip]:
    """Every window of every execution that the release lists."""
    tree = api.open_tree(root, "executions_info.csv", "s??_??_s?.csv")
    info = tree.get("executions_info.csv")
    if info is None:
        raise api.SourceError(
            "executions_info.csv is missing", where=str(root), fix="complete the release"
        )
    executions = sorted(_table(info, ["execution_id"])["execution_id"].astype(str))
    splits = _splits({name.partition("_")[0] for name in executions})
    for execution in executions:
        sources = {}
        for device, ending in DEVICES.items():
            name = f"{execution}_{ending}.csv"
            file = tree.get(name) or _expected(info, name)
            for sensor in SENSORS:
                sources[f"{device}_{sensor}"] = replace(file, key=sensor, read=_read_device)
        subject = execution.partition("_")[0]
        whole = api.Clip(execution, 0, sources, splits[subject], group=subject)
        is_there = all(f"{execution}_{ending}.csv" in tree for ending in DEVICES.values())
        yield from _windows(whole, options) if is_there else [whole]


def _windows(whole: api.Clip, options: Options) -> Iterator[api.Clip]:
    phone, watch = (_table(whole.sources[f"{device}_acc"], ["timestamp"]) for device in DEVICES)
    start_ms, end_ms = (
        max(int(phone["timestamp"].iloc[0]), int(watch["timestamp"].iloc[0])),
        min(int(phone["timestamp"].iloc[-1]), int(watch["timestamp"].iloc[-1])),
    )
    times_ms = phone["timestamp"].to_numpy()
    where = f"{whole.sources['phone_acc'].path}, execution {whole.id}"
    known = {name: api.label_of(name, ACTIVITIES, where) for name in phone["label"].unique()}
    labels = phone["label"].map(known).to_numpy()
    # On the grid rather than by rows, which a burst would count several times.
    steps_s = np.arange(0.0, (end_ms - start_ms) / 1000, 1.0 / options.rate_hz)
    latest = np.searchsorted(times_ms, start_ms + 1000 * steps_s, side="right") - 1
    yield from api.window_clips(whole, start_ms / 1000 + steps_s, labels[latest], options)


def _splits(subjects: Iterable[str]) -> dict[str, dict[str, str]]:
    """Give the splits of every subject by protocol."""
    names = sorted(subjects)
    given = {name: "test" if name in TEST_SUBJECTS else "train" for name in names}
    protocols = {
        "holdout": api.carve(given, VAL_SHARE, "sp_sw_har"),
        **api.leave_one_out(names, prefix="subject"),
    }
    return {name: {p: splits[name] for p, splits in protocols.items()} for name in names}


def _expected(info: api.Source, name: str) -> api.Source:
    """Say where a file that is not there would lie."""
    inner = f"{name.partition('_')[0]}/{name}"
    if info.member is None:
        return api.Source(info.path.parent / inner)
    return replace(info, member=f"{info.member.removesuffix('executions_info.csv')}{inner}")


def _read_device(source: api.Source) -> dict[str, api.Recording]:
    wanted = {sensor: [f"{axis}_{sensor}" for axis in "xyz"] for sensor in SENSORS}
    table = _table(source, [name for names in wanted.values() for name in names])
    mean = table.drop(columns="label").groupby("timestamp").mean()
    times_s = mean.index.to_numpy(np.float64) / 1000
    return {
        sensor: api.Recording(times_s, mean[names].to_numpy(np.float32))
        for sensor, names in wanted.items()
    }


def _table(source: api.Source, names: Sequence[str]) -> "pd.DataFrame":
    import pandas as pd

    place = source.member or str(source.path)
    try:
        table = pd.read_csv(BytesIO(api.read_content(source)))
        lacking = [name for name in names if name not in table]
        problem = f"it has no column {', '.join(lacking)}" if lacking else ""
        if not lacking and (
            "timestamp" in table and not table["timestamp"].is_monotonic_increasing
        ):
            problem = "its time goes backwards"
    except (ValueError, UnicodeDecodeError) as error:
        problem = str(error)
    if problem or table.empty:
        raise api.SourceError(
            f"{place} is not a table of this release",
            where=str(source.path),
            why=problem or "it has no rows",
            fix="take the file from the release again",
        )
    return table
