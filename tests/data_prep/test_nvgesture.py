from collections import defaultdict
from pathlib import Path

import cv2
import numpy as np
import pytest

from mmtool.errors import SourceError
from mmtool.media.decode import decode
from mmtool.prepare.api import Clip
from mmtool.prepare.editions import edition_of
from mmtool.prepare.loader import load_preparer, parse_options
from mmtool.prepare.pipeline import prepare
from mmtool.prepare.request import PrepareRequest
from mmtool.store.reader import open_store

PREPARER = load_preparer("nvgesture")


def line(label: int, subject: int, take: int = 0, color: str = "60:140", depth: str = "62:141"):
    return (
        f"path:./Video_data/class_{label:02d}/subject{subject}_r{take} duo_left:duo_left:1:9 "
        f"sk_color:sk_color:{color} sk_depth:sk_depth:{depth} label:{label}"
    )


def release(root: Path, train: list[str], test: list[str], version: str = "_v2") -> Path:
    (root / "Video_data").mkdir(exist_ok=True)
    for part, lines in (("train", train), ("test", test)):
        name = f"nvgesture_{part}_correct_cvpr2016{version}.lst"
        (root / name).write_text("\n".join(lines) + "\n")
    return root


def read(root: Path) -> dict[str, Clip]:
    return {clip.id: clip for clip in PREPARER.clips(root, parse_options(PREPARER, {}))}


@pytest.fixture
def whole(tmp_path) -> Path:
    train = [line(label, subject) for label in range(1, 26) for subject in range(1, 15)]
    test = [line(label, subject) for label in range(1, 26) for subject in range(15, 21)]
    return release(tmp_path, train, test)


def test_each_stream_is_cut_at_its_own_frames(tmp_path):
    clip = read(release(tmp_path, [line(3, 7, 2)], [line(1, 1)]))["class_03_subject7_r2_0060"]

    rgb, depth = clip.sources["rgb"], clip.sources["depth"]
    assert rgb.path == tmp_path / "Video_data" / "class_03" / "subject7_r2" / "sk_color.avi"
    assert depth.path.name == "sk_depth.avi"
    assert (rgb.start_s, rgb.end_s) == (2.0, 140 / 30)
    assert (depth.start_s, depth.end_s) == (62 / 30, 4.7)
    assert clip.label == 2


def test_no_subject_is_in_two_splits(whole):
    subjects = defaultdict(set)
    for clip in read(whole).values():
        subjects[clip.split["official"]].add(clip.group)

    assert subjects["test"] == {f"subject{n}" for n in range(15, 21)}
    assert len(subjects["val"]) in (2, 3)
    assert not subjects["train"] & subjects["val"]
    assert len(set.union(*subjects.values())) == 20


def test_the_two_gestures_of_one_recording_are_two_clips(tmp_path):
    rows = [line(1, 1), line(1, 1, color="200:280", depth="201:281")]

    clips = read(release(tmp_path, rows, [line(2, 2)]))

    assert {"class_01_subject1_r0_0060", "class_01_subject1_r0_0200"} < set(clips)


@pytest.mark.parametrize(("version", "edition"), [("_v2", "v2"), ("", "v1")])
def test_the_lists_of_both_editions_are_read(tmp_path, version, edition):
    root = release(tmp_path, [line(1, 1)], [line(2, 2)], version)

    assert edition_of(root, PREPARER.module.EDITIONS) == edition
    assert len(read(root)) == 2


def test_the_corrected_lists_are_preferred(tmp_path):
    release(tmp_path, [line(1, 1)], [line(2, 2)], "")
    root = release(tmp_path, [line(1, 1), line(1, 3)], [line(2, 2)], "_v2")

    assert len(read(root)) == 3


@pytest.mark.parametrize(
    "row",
    [
        line(1, 1, color="140:60"),
        line(1, 1, depth="x:60"),
        line(26, 1),
        line(1, 1).replace("label:1", "label:2"),
        line(1, 1).replace("label:1", ""),
        line(1, 1).replace(" sk_depth:sk_depth:62:141", ""),
        line(1, 1).replace("subject1", "nobody"),
    ],
)
def test_a_line_that_is_no_gesture_is_named(tmp_path, row):
    root = release(tmp_path, [line(2, 1), row], [line(2, 2)])

    with pytest.raises(SourceError, match="line 2 of nvgesture_train_correct_cvpr2016_v2"):
        read(root)


def test_the_frames_of_each_stream_become_a_store(tmp_path):
    root = release(tmp_path, [line(1, 1, color="15:45", depth="0:30")], [line(2, 2)])
    for label, subject in ((1, 1), (2, 2)):
        folder = root / "Video_data" / f"class_{label:02d}" / f"subject{subject}_r0"
        folder.mkdir(parents=True)
        for stream in ("sk_color", "sk_depth"):
            path = folder / f"{stream}.avi"
            codec = cv2.VideoWriter.fourcc(*"MJPG")
            writer = cv2.VideoWriter(str(path), codec, 30.0, (32, 32))
            for number in range(150):
                # Each stream and folder with its own levels: no two files are the same.
                level = number + 20 * label + 40 * (stream == "sk_depth")
                writer.write(np.full((32, 32, 3), level, np.uint8))
            writer.release()
    options = {"num_frames": "2", "height": "32", "width": "32"}

    made = prepare(
        PrepareRequest("nvgesture", root, tmp_path / "store", options=options), lambda _: None
    )

    store = open_store(made.path)
    assert tuple(store.columns["rgb"].shape) == (2, 3, 32, 32)
    assert tuple(store.columns["depth"].shape) == (2, 1, 32, 32)
    columns = PREPARER.columns(root, parse_options(PREPARER, options))
    clip = read(root)["class_01_subject1_r0_0015"]
    # Centres of the two halves of one second, from frame 15 and from frame 0 on.
    for modality, levels in (("rgb", (42, 57)), ("depth", (67, 82))):
        shown = decode(clip.sources[modality], columns[modality].spec).array
        np.testing.assert_allclose(shown.mean(axis=(1, 2, 3)), levels, atol=3)
