import zipfile
from collections import Counter
from collections.abc import Iterable
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

PREPARER = load_preparer("wisdm")
LETTERS = "ABCDEFGHIJKLMOPQRS"
STREAMS = ("phone_accel", "phone_gyro", "watch_accel", "watch_gyro")
USERS = range(1600, 1605)
BEGIN_S = {"phone": 252_207.0, "watch": 90_000.0}


def read(root: Path, **options: str) -> list[Clip]:
    return list(PREPARER.clips(root, parse_options(PREPARER, options)))


def array(clip: Clip, stream: str, root: Path) -> np.ndarray:
    return decode(
        clip.sources[stream], PREPARER.columns(root, parse_options(PREPARER, {}))[stream].spec
    ).array


def row(user: int, activity: str, at_s: float, x: float) -> str:
    return f"{user},{activity},{round(at_s * 1e9)},{x:.5f},-0.5,{user}E-3;\n"


def first_edition(users: Iterable[int] = (3, 5, 8), *, seconds: float = 21.0) -> str:
    """Give the rows of users at 20 Hz whose x is the second since their begin."""
    return "".join(
        row(user, activity, 1_000.0 * user + at / 20, at / 20)
        for user in users
        for activity in ("Jogging", "Sitting")
        for at in range(round(20 * seconds))
    )


def write_first(root: Path, text: str) -> Path:
    root.mkdir(exist_ok=True)
    (root / "WISDM_ar_v1.1_raw.txt").write_text(text)
    return root


def test_the_first_edition_is_cut_within_one_user_and_one_activity(tmp_path):
    root = write_first(tmp_path, first_edition())
    clips = read(root)

    names = PREPARER.classes(root, parse_options(PREPARER, {}))
    counts = Counter((clip.group, names[clip.label]) for clip in clips)
    assert counts == {(u, a): 3 for u in ("3", "5", "8") for a in ("Jogging", "Sitting")}
    found = array(clips[1], "phone_accel", root)
    np.testing.assert_allclose(found[:, 0], 5 + np.arange(200) / 20, atol=1e-4)
    np.testing.assert_allclose(found[:, 1:], [[-0.5, 0.003]] * 200, atol=1e-6)


BROKEN = (
    "3,Jogging,1,2,3;\n",
    "3,Jogging,5,1,2,;\n",
    "3,Jogging,0,1,2,3;\n",
    "3,Jogging,5,1,2,3,;\n",
    "3,Jogging,5,1,2,3,4;\n",
    "3,Jogging,5.5,1,2,3;\n",
    "three,Jogging,5,1,2,3;\n",
    "3,Jogging,5,1,nan,3;\n",
)


@pytest.mark.parametrize("line", BROKEN)
def test_a_malformed_row_is_counted_and_changes_nothing_else(tmp_path, line):
    whole = read(write_first(tmp_path / "whole", first_edition()))
    lines = first_edition().splitlines(keepends=True)
    damaged = write_first(tmp_path / "damaged", "".join([*lines[:100], line, *lines[100:]]))

    found = read(damaged)

    assert [(clip.id, clip.skip) for clip in found if clip.skip] == [("row-101", "malformed-row")]
    assert [clip.id for clip in found if not clip.skip] == [clip.id for clip in whole]
    last = array(found[-1], "phone_accel", damaged)
    np.testing.assert_array_equal(last, array(whole[-1], "phone_accel", tmp_path / "whole"))


@pytest.mark.parametrize("between", ["\n\n", ";\n", " \n"])
def test_blank_lines_and_several_records_on_one_line_are_fine(tmp_path, between):
    text = first_edition()
    lines = text.splitlines()
    joined = "".join(lines[:2]) + between + "\n".join(lines[2:])

    root = write_first(tmp_path, joined)
    assert not any(clip.skip for clip in read(root))
    assert len(read(root)) == 18


def test_repeated_stamps_pauses_and_time_going_back_end_or_shorten_a_stretch(tmp_path):
    lines = first_edition(seconds=30).splitlines(keepends=True)
    of_user = lines[:600]
    doubled = [line for line in of_user for _ in range(2)]
    paused = [row(3, "Jogging", 5_000 + n / 20 + 5 * (n >= 250), n / 20) for n in range(500)]
    back = [row(3, "Jogging", 9_000 + (n % 250) / 20, n / 20) for n in range(500)]

    counts = [
        len(read(write_first(tmp_path / str(number), "".join(part))))
        for number, part in enumerate((of_user, doubled, paused, back))
    ]
    # 30 s give five windows of 10 s every 5 s; twice 12.5 s give one each.
    assert counts == [5, 5, 2, 2]


def test_an_unknown_activity_is_refused_with_the_closest_one(tmp_path):
    with pytest.raises(SourceError, match=r"there is no class 'Joging'") as caught:
        read(write_first(tmp_path, first_edition().replace("Jogging", "Joging")))
    assert "Jogging" in caught.value.fix


def second_edition(root: Path, *, late_s: float = 3.0) -> Path:
    """Write five users of 18 activities; the watch's gyroscope starts late, x is the second."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "activity_key.txt").write_text(
        "".join(f"name of {letter.lower()} = {letter}\n" for letter in LETTERS)
    )
    for stream in STREAMS:
        device, sensor = stream.split("_")
        folder = root / "raw" / device / sensor
        folder.mkdir(parents=True, exist_ok=True)
        offset = round(20 * late_s) if stream == "watch_gyro" else 0
        for user in USERS:
            begin_s = BEGIN_S[device] + 10_000 * (user - 1600)
            text = "".join(
                row(user, letter, begin_s + 100 * number + at / 20, at / 20)
                for number, letter in enumerate(LETTERS[:2])
                for at in range(offset, 400)
            )
            (folder / f"data_{user}_{sensor}_{device}.txt").write_text(text)
    return root


def test_phone_and_watch_are_laid_upon_each_other_at_their_own_first_stamps(tmp_path):
    root = second_edition(tmp_path / "wisdm-dataset")
    clips = [clip for clip in read(root) if clip.group == "1601"]

    # The four overlap from 3 s to 20 s of each activity.
    assert [clip.id for clip in clips] == [
        f"1601_{letter}_{at:07d}" for letter in "AB" for at in (3_000, 8_000)
    ]
    for stream in STREAMS:
        found = array(clips[3], stream, root)
        np.testing.assert_allclose(found[:, 0], 8 + np.arange(200) / 20, atol=1e-3)
    names = PREPARER.classes(root, parse_options(PREPARER, {}))
    assert [names[clip.label] for clip in clips] == ["name of a"] * 2 + ["name of b"] * 2


def test_an_activity_that_one_sensor_lacks_leaves_the_others(tmp_path):
    root = second_edition(tmp_path)
    path = root / "raw" / "phone" / "gyro" / "data_1600_gyro_phone.txt"
    path.write_text("".join(x for x in path.read_text().splitlines(True) if ",B," not in x))

    clip = next(clip for clip in read(root) if clip.id.startswith("1600_B"))
    with pytest.raises(MediaError) as caught:
        array(clip, "phone_gyro", root)
    assert caught.value.reason == "missing"
    assert array(clip, "phone_accel", root).shape == (200, 3)


@pytest.mark.parametrize(("factor", "reason"), [(1e-6, "odd-clock"), (None, "no-overlap")])
def test_stamps_that_cannot_be_right_are_counted_with_their_reason(tmp_path, factor, reason):
    root = second_edition(tmp_path)
    path = root / "raw" / "phone" / "gyro" / "data_1600_gyro_phone.txt"
    lines = []
    for line in path.read_text().splitlines():
        cells = line.split(",")
        stamp = int(cells[2])
        cells[2] = str(round(stamp * factor) if factor else stamp + 5_000_000_000_000)
        lines.append(",".join(cells))
    path.write_text("\n".join(lines) + "\n")

    reasons = Counter(clip.skip for clip in read(root) if clip.group == "1600")
    assert reasons[reason] == 2
    assert not any(clip.skip for clip in read(root) if clip.group != "1600")


def test_the_key_of_activities_must_name_all_of_them(tmp_path):
    root = second_edition(tmp_path)
    (root / "activity_key.txt").write_text("walking = A\nN-one = N\n")

    with pytest.raises(SourceError, match=r"does not name the activities A to S without N"):
        PREPARER.classes(root, parse_options(PREPARER, {}))


@pytest.mark.parametrize("edition", ["v1.1", "2019", "2019-zip"])
def test_every_edition_becomes_a_store_whose_splits_share_no_user(tmp_path, edition):
    raw = tmp_path / "raw"
    raw.mkdir()
    if edition == "v1.1":
        write_first(raw, first_edition(range(1, 8)))
    else:
        root = second_edition(tmp_path / "wisdm-dataset" if edition == "2019-zip" else raw)
        if edition == "2019-zip":
            with zipfile.ZipFile(raw / "wisdm-dataset.zip", "w") as archive:
                for path in sorted(root.rglob("*.txt")):
                    archive.write(path, path.relative_to(tmp_path).as_posix())

    made = prepare(PrepareRequest("wisdm", raw, tmp_path / "out"), lambda _: None)

    assert made.report["edition"] == edition
    with open_store(made.path) as store:
        assert store.modalities == (STREAMS[:1] if edition == "v1.1" else STREAMS)
        for protocol in store.index.protocols:
            groups = [
                set(store.index.group[store.index.rows(split, protocol)].tolist())
                for split in ("train", "val", "test")
            ]
            assert all(groups)
            assert len(set.union(*groups)) == sum(map(len, groups))
