import zipfile
from pathlib import Path

import numpy as np
import pytest

from mmtool.errors import SourceError
from mmtool.media.decode import decode
from mmtool.prepare.api import Clip
from mmtool.prepare.loader import load_preparer, parse_options
from mmtool.prepare.pipeline import prepare
from mmtool.prepare.request import PrepareRequest
from mmtool.store.reader import open_store

PREPARER = load_preparer("opportunity")
RUNS = ("ADL1", "ADL2", "ADL3", "ADL4", "ADL5", "Drill")
SMALL = ["RKN^", "HIP", "LUA^", "RUA_", "LH", "BACK", "RKN_", "RWR", "RUA^", "LUA_", "LWR", "RH"]
NINE = [f"{kind}{axis}" for kind in ("acc", "gyro", "magnetic") for axis in "XYZ"]
SHOE = [
    *(f"Eu{a}" for a in "XYZ"),
    *(f"{kind}{a}" for kind in ("Nav_A", "Body_A") for a in "xyz"),
    *(f"AngVel{frame}Frame{a}" for frame in ("Body", "Nav") for a in "XYZ"),
    "Compass",
]
TRACKS = [
    "Locomotion", "HL_Activity", "LL_Left_Arm", "LL_Left_Arm_Object", "LL_Right_Arm",
    "LL_Right_Arm_Object", "ML_Both_Arms",
]  # fmt: skip
NAMES = [
    "MILLISEC",
    *(f"Accelerometer {sensor} acc{axis}" for sensor in SMALL for axis in "XYZ"),
    *(
        f"InertialMeasurementUnit {sensor} {channel}"
        for sensor in ("BACK", "RUA", "RLA", "LUA", "LLA")
        for channel in (*NINE, *(f"Quaternion{n}" for n in range(1, 5)))
    ),
    *(f"InertialMeasurementUnit {s} {c}" for s in ("L-SHOE", "R-SHOE") for c in SHOE),
    "Accelerometer CUP accX",
    "REED SWITCH DISHWASHER S1",
    "LOCATION TAG1 X",
    *TRACKS,
]
LEGEND = """Unique index   -   Track name   -   Label name

1   -   Locomotion   -   Stand
2   -   Locomotion   -   Walk
4   -   Locomotion   -   Sit
5   -   Locomotion   -   Lie

101   -   HL_Activity   -   Relaxing
406516   -   ML_Both_Arms   -   Open Door 1
404516   -   ML_Both_Arms   -   Close Door 1
"""


def read(root: Path, **options: str) -> list[Clip]:
    return list(PREPARER.clips(root, parse_options(PREPARER, options)))


def rows(*stretches: tuple[int, int, float], number: int = 0) -> np.ndarray:
    """Give rows of 30 Hz with locomotion and gesture; a value is its column plus `number`."""
    labels = np.concatenate([np.tile([[a, b]], (round(30 * s), 1)) for a, b, s in stretches])
    table = np.tile(np.arange(1.0, len(NAMES) + 1) + 1000 * number, (len(labels), 1))
    table[:, 0] = np.round(np.arange(len(labels)) * 1000 / 30)
    table[:, NAMES.index("Locomotion")] = labels[:, 0]
    table[:, NAMES.index("ML_Both_Arms")] = labels[:, 1]
    return table


def text(table: np.ndarray) -> str:
    return "".join(" ".join(f"{v:g}" for v in row) + "\n" for row in table.tolist()).replace(
        "nan", "NaN"
    )


def write(root: Path, **special: str) -> Path:
    root.mkdir(parents=True)
    lines = ["Data columns:", ""]
    for number, name in enumerate(NAMES, start=1):
        lines += ["", "Label columns:"] if name == "Locomotion" else []
        is_data = number > 1 and name not in TRACKS
        lines.append(f"Column: {number} {name}" + ("; value = round(v), unit = g" * is_data))
    (root / "column_names.txt").write_text("\n".join(lines) + "\n")
    (root / "label_legend.txt").write_text(LEGEND)
    for subject in range(1, 5):
        for position, run in enumerate(RUNS):
            short = text(rows((2, 0, 1.5), (0, 0, 0.5), number=10 * subject + position))
            (root / f"S{subject}-{run}.dat").write_text(special.get(f"S{subject}_{run}", short))
    return root


def channels(root: Path, clip: Clip, **options: str) -> dict[str, np.ndarray]:
    columns = PREPARER.columns(root, parse_options(PREPARER, options))
    return {name: decode(clip.sources[name], c.spec).array for name, c in columns.items()}


def test_the_sensors_are_found_by_their_names(tmp_path):
    root = write(tmp_path / "dataset")
    clip = read(root)[0]

    found = channels(root, clip)

    assert {name: array.shape for name, array in found.items()} == {
        "back": (30, 9),
        "right_arm": (30, 18),
        "left_arm": (30, 18),
        "legs": (30, 32),
    }
    first = NAMES.index("InertialMeasurementUnit RUA accX") + 1
    second = NAMES.index("InertialMeasurementUnit RLA accX") + 1
    expected = 10_000 + np.concatenate([first + np.arange(9), second + np.arange(9)])
    np.testing.assert_array_equal(found["right_arm"][7], expected)


def test_with_the_small_accelerometers_there_are_the_113_channels_of_the_challenge(tmp_path):
    root = write(tmp_path / "dataset")
    clip = read(root, accelerometers="true")[0]

    found = channels(root, clip, accelerometers="true")
    assert sum(array.shape[1] for array in found.values()) == 113


def test_columns_in_another_order_are_followed_and_lacking_ones_refused(tmp_path):
    root = write(tmp_path / "dataset")
    path = root / "column_names.txt"
    names = path.read_text()
    path.write_text(names.replace(" BACK acc", " TMP acc").replace(" RUA acc", " BACK acc"))
    with pytest.raises(SourceError, match=r"does not name Inertial.* RUA|does not name") as caught:
        read(root, accelerometers="true")
    assert "column_names.txt" in str(caught.value)

    path.write_text(names.replace(" MILLISEC", " SECONDS"))
    with pytest.raises(SourceError, match=r"does not name MILLISEC"):
        read(root)


def test_labels_and_the_null_class_come_from_the_legend(tmp_path):
    special = text(rows((1, 0, 3.0), (0, 406516, 3.0), (5, 404516, 3.0)))
    root = write(tmp_path / "dataset", S1_ADL1=special)

    def labels(**options: str) -> list[str]:
        names = PREPARER.classes(root, parse_options(PREPARER, options))
        clips = [clip for clip in read(root, **options) if clip.id.startswith("S1-ADL1")]
        found = [names[clip.label] for clip in sorted(clips, key=lambda clip: clip.id)]
        return [name for n, name in enumerate(found) if n == 0 or found[n - 1] != name]

    assert labels() == ["Stand", "Lie"]
    assert labels(null_class="true") == ["Stand", "null", "Lie"]
    assert labels(labels="gestures") == ["Open Door 1", "Close Door 1"]
    assert labels(labels="gestures", null_class="true") == ["null", "Open Door 1", "Close Door 1"]


def test_an_unknown_label_is_refused(tmp_path):
    with pytest.raises(SourceError, match=r"the activity 3 is unknown") as caught:
        read(write(tmp_path / "dataset", S2_Drill=text(rows((3, 0, 2.0)))))
    assert "S2-Drill.dat" in str(caught.value)


def test_the_challenge_tests_the_last_two_recordings_and_leaves_s4_out(tmp_path):
    clips = read(write(tmp_path / "dataset"))

    of_run = {clip.id.rpartition("_")[0]: clip.split for clip in clips}
    assert len(of_run) == 24
    for run, split in of_run.items():
        subject, _, name = run.partition("-")
        expected = {"ADL3": "val", "ADL4": "test", "ADL5": "test"}.get(name, "train")
        if subject == "S4":
            assert "challenge" not in split
        else:
            assert next(iter(split)) == "challenge"
            assert split["challenge"] == ("train" if subject == "S1" else expected)
        assert split[f"subject-{subject}"] == "test"


def test_a_short_loss_is_bridged_and_a_long_one_leaves_the_window_out(tmp_path):
    table = rows((2, 0, 6.0))
    of_back = NAMES.index("InertialMeasurementUnit BACK accX")
    table[30:40, of_back] = np.nan
    table[90:150, of_back] = np.nan
    root = write(tmp_path / "dataset", S1_ADL1=text(table))

    made = prepare(PrepareRequest("opportunity", root, tmp_path / "out"), lambda _: None)

    lost = [clip.id for clip in read(root) if clip.id.startswith("S1-ADL1")]
    with open_store(made.path) as store:
        kept = [name for name in store.index.ids() if name.startswith("S1-ADL1")]
        values, _ = store.gather("back", np.array([store.index.ids().index(kept[2])]))
    assert set(kept) < set(lost)
    assert {int(name.rpartition("_")[2]) // 1000 for name in set(lost) - set(kept)} == {2, 3, 4}
    assert np.isfinite(values).all()


def test_an_archive_two_folders_deep_becomes_a_store(tmp_path):
    root = write(tmp_path / "OpportunityUCIDataset" / "dataset")
    (tmp_path / "zip").mkdir()
    with zipfile.ZipFile(tmp_path / "zip" / "OpportunityUCIDataset.zip", "w") as archive:
        for path in sorted(root.iterdir()):
            archive.write(path, path.relative_to(tmp_path).as_posix())

    for source in (tmp_path / "OpportunityUCIDataset", tmp_path / "zip"):
        out = tmp_path / f"out-{source.name}"
        made = prepare(PrepareRequest("opportunity", source, out), lambda _: None)
        assert made.report["rows"] == len(read(root))
