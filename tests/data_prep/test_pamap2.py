import zipfile
from pathlib import Path

import numpy as np
import pytest

from mmtool.errors import SourceError
from mmtool.media.decode import decode
from mmtool.media.failure import MediaError
from mmtool.prepare.api import Clip
from mmtool.prepare.loader import load_preparer, parse_options
from mmtool.prepare.pipeline import prepare
from mmtool.prepare.request import PrepareRequest
from mmtool.store.reader import open_store

PREPARER = load_preparer("pamap2")
SUBJECTS = [str(n) for n in range(101, 110)]
FIRST = {"hand": 3, "chest": 20, "ankle": 37}


def read(root: Path, **options: str) -> list[Clip]:
    return list(PREPARER.clips(root, parse_options(PREPARER, options)))


def rows(*stretches: tuple[int, float], number: int = 0) -> np.ndarray:
    """Give rows of 100 Hz whose values are 1000 times the column plus the second and `number`."""
    ids = np.concatenate([np.full(round(100 * s), n) for n, s in stretches])
    times_s = 5.66 + np.arange(len(ids)) / 100
    table = 1000.0 * np.arange(54) + times_s[:, None] + number
    table[:, 0], table[:, 1] = times_s, ids
    # The heart rate comes in every tenth row, for the first time after a while.
    table[:, 2] = np.where((np.arange(len(ids)) % 10 == 5) & (times_s > 5.8), 100 + times_s, np.nan)
    return table


def text(table: np.ndarray) -> str:
    return "".join(" ".join(f"{v:.6g}" for v in row) + "\n" for row in table.tolist()).replace(
        "nan", "NaN"
    )


def write(root: Path, **special: str) -> Path:
    (root / "Protocol").mkdir(parents=True)
    (root / "Optional").mkdir()
    for subject in SUBJECTS:
        path = root / "Protocol" / f"subject{subject}.dat"
        short = text(rows((0, 1), (1, 7), number=int(subject)))
        path.write_text(special.get(f"s{subject}", short))
    (root / "Optional" / "subject101.dat").write_text(text(rows((9, 6))))
    return root


def test_windows_hold_one_activity_and_the_channels_the_release_calls_valid(tmp_path):
    table = text(rows((0, 1), (24, 8), (0, 2), (12, 7)))
    root = write(tmp_path, s101=table)
    names = PREPARER.classes(root, parse_options(PREPARER, {}))
    clips = [clip for clip in read(root) if clip.group == "101"]

    assert {names[clip.label] for clip in clips} == {"rope jumping", "ascending stairs"}
    clip = next(c for c in clips if c.sources["hand"].start_s > 7)
    for place, first in FIRST.items():
        spec = PREPARER.columns(root, parse_options(PREPARER, {}))[place].spec
        found = decode(clip.sources[place], spec).array
        assert found.shape == (171, 9)
        columns = first + np.array([1, 2, 3, 7, 8, 9, 10, 11, 12])
        np.testing.assert_allclose(found[0] - clip.sources[place].start_s, 1000 * columns, atol=0.2)
    whole = PREPARER.columns(root, parse_options(PREPARER, {"rate_hz": "100"}))["hand"].spec
    assert decode(clip.sources["hand"], whole).array.shape == (512, 9)


def test_the_heart_rate_holds_on_until_the_next_one(tmp_path):
    root = write(tmp_path, s101=text(rows((1, 9))))
    spec = PREPARER.columns(root, parse_options(PREPARER, {}))["heart_rate"].spec
    clips = [clip for clip in read(root) if clip.group == "101"]

    start_s = clips[2].sources["heart_rate"].start_s
    found = decode(clips[2].sources["heart_rate"], spec).array
    assert found.shape == (51, 1)
    assert np.isfinite(found).all()
    # Each value is that of a row at most a tenth of a second ago.
    ago_s = 100 + start_s + np.arange(51) / 10 - found[:, 0]
    assert ago_s.min() > -0.02
    assert ago_s.max() < 0.11


def test_a_long_loss_of_one_sensor_costs_this_sensor_alone(tmp_path):
    table = rows((1, 9))
    table[100:300, FIRST["chest"] : FIRST["ankle"]] = np.nan
    table[100:130, FIRST["ankle"] :] = np.nan
    root = write(tmp_path, s101=text(table))
    columns = PREPARER.columns(root, parse_options(PREPARER, {}))
    clip = next(clip for clip in read(root) if clip.group == "101")

    assert np.isfinite(decode(clip.sources["ankle"], columns["ankle"].spec).array).all()
    with pytest.raises(MediaError) as caught:
        decode(clip.sources["chest"], columns["chest"].spec)
    assert caught.value.reason == "no-data"


def test_optional_activities_come_on_demand_alone(tmp_path):
    root = write(tmp_path)
    options = parse_options(PREPARER, {"optional": "true"})

    assert len(PREPARER.classes(root, parse_options(PREPARER, {}))) == 12
    names = PREPARER.classes(root, options)
    assert len(names) == 18
    more = [clip for clip in read(root, optional="true") if "optional" in clip.id]
    assert {names[clip.label] for clip in more} == {"watching TV"}
    assert not any("optional" in clip.id for clip in read(root))


def test_the_default_test_is_subject_106_and_every_subject_is_tested_once(tmp_path):
    clips = read(write(tmp_path))

    split = {clip.group: clip.split for clip in clips}
    assert list(split["101"]) == ["holdout", *(f"subject-{n}" for n in SUBJECTS)]
    assert {n: s["holdout"] for n, s in split.items() if s["holdout"] != "train"} == {
        "105": "val",
        "106": "test",
    }
    for subject in SUBJECTS:
        tested = [n for n, s in split.items() if s[f"subject-{subject}"] == "test"]
        assert tested == [subject]


def test_a_zip_becomes_a_store(tmp_path):
    root = write(tmp_path / "PAMAP2_Dataset")
    (tmp_path / "zip").mkdir()
    with zipfile.ZipFile(tmp_path / "zip" / "PAMAP2_Dataset.zip", "w") as archive:
        for path in sorted(root.rglob("*.dat")):
            archive.write(path, path.relative_to(tmp_path).as_posix())

    made = prepare(PrepareRequest("pamap2", tmp_path / "zip", tmp_path / "out"), lambda _: None)

    with open_store(made.path) as store:
        assert store.modalities == ("ankle", "chest", "hand", "heart_rate")
        assert store.index.num_rows == len(read(root))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (text(rows((1, 1), (8, 1))), r"the activity 8 is unknown"),
        (text(rows((1, 1))[:, :53]), r"has 53 columns instead of 54"),
    ],
)
def test_a_file_that_contradicts_the_layout_is_refused(tmp_path, content, said):
    with pytest.raises(SourceError, match=said) as caught:
        read(write(tmp_path, s103=content))
    assert "subject103.dat" in str(caught.value)


def test_a_missing_subject_stops_the_work_unless_it_is_accepted(tmp_path):
    root = write(tmp_path / "raw")
    (root / "Protocol" / "subject104.dat").unlink()

    with pytest.raises(SourceError, match=r"1 clip of \d+ have no file"):
        prepare(PrepareRequest("pamap2", root, tmp_path / "out"), lambda _: None)
    accepted = PrepareRequest("pamap2", root, tmp_path / "out", max_missing=0.5, limit=12)
    assert prepare(accepted, lambda _: None).report["rows"] > 0
