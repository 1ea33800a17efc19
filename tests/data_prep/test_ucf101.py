from pathlib import Path

import cv2
import numpy as np
import pytest

from mmtool.errors import SourceError
from mmtool.prepare.api import Clip
from mmtool.prepare.editions import locate
from mmtool.prepare.loader import load_preparer, parse_options
from mmtool.prepare.pipeline import prepare
from mmtool.prepare.request import PrepareRequest
from mmtool.store.reader import open_store

PREPARER = load_preparer("ucf101")
EDITIONS = PREPARER.module.EDITIONS
# In the order of classInd.txt, which differs from the sorted one.
CLASSES = ("HammerThrow", "Hammering", "HandstandPushups", "JumpRope")
TEST_GROUPS = {1: range(1, 8), 2: range(8, 15), 3: range(15, 22)}


def stem(name: str, group: int, clip: int = 1) -> str:
    spelled = "HandStandPushups" if name == "HandstandPushups" else name
    return f"v_{spelled}_g{group:02d}_c{clip:02d}"


@pytest.fixture
def lists(tmp_path) -> Path:
    """Write the seven lists of a release of four classes with one clip per group."""
    folder = tmp_path / "ucfTrainTestlist"
    folder.mkdir()
    numbered = [f"{number} {name}\r\n" for number, name in enumerate(CLASSES, start=1)]
    (folder / "classInd.txt").write_text("".join(numbered))
    for number, held_out in TEST_GROUPS.items():
        train, test = [], []
        for label, name in enumerate(CLASSES, start=1):
            for group in range(1, 26):
                row = f"{name}/{stem(name, group)}.avi"
                (test if group in held_out else train).append(
                    row if group in held_out else f"{row} {label}"
                )
        (folder / f"trainlist0{number}.txt").write_text("\n".join(train) + "\n")
        (folder / f"testlist0{number}.txt").write_text("\n".join(test) + "\n")
    return tmp_path


@pytest.fixture
def frames(lists) -> Path:
    picture = cv2.imencode(".jpg", np.full((8, 10, 3), 90, np.uint8))[1].tobytes()
    for name in CLASSES:
        for place in ("jpegs_256", "tvl1_flow/u", "tvl1_flow/v"):
            # The archives of some copies spell HandstandPushups like the class.
            spelled = f"v_{name}_g01_c01"
            folder = lists / place / spelled
            folder.mkdir(parents=True)
            (folder / "frame000001.jpg").write_bytes(picture)
            (lists / place / "v_list.bin").write_bytes(b"\0")
    return lists


@pytest.fixture
def avi(lists) -> Path:
    for name in CLASSES:
        path = lists / "UCF-101" / name / f"{stem(name, 1)}.avi"
        path.parent.mkdir(parents=True)
        path.write_bytes(b"RIFF")
    return lists


def read(root: Path, **options: str) -> dict[str, Clip]:
    return {clip.id: clip for clip in PREPARER.clips(root, parse_options(PREPARER, options))}


def test_labels_follow_class_ind_also_where_test_lists_hold_none(avi):
    clips = read(avi)

    assert tuple(PREPARER.classes(avi, parse_options(PREPARER, {}))) == CLASSES
    assert len(clips) == len(CLASSES) * 25
    assert clips["v_HammerThrow_g01_c01"].label == 0
    assert clips["v_Hammering_g25_c01"].label == 1


def test_no_group_is_in_two_splits_and_every_class_is_in_each(avi):
    clips = read(avi).values()

    for number, held_out in TEST_GROUPS.items():
        protocol = f"split{number}"
        by_split: dict[str, set[str]] = {"train": set(), "val": set(), "test": set()}
        for clip in clips:
            by_split[clip.split[protocol]].add(clip.group)
        assert by_split["test"] == {f"g{group:02d}" for group in held_out}
        assert by_split["val"]
        assert not by_split["val"] & by_split["train"]
        for split in by_split:
            assert {c.label for c in clips if c.split[protocol] == split} == {0, 1, 2, 3}
    assert next(iter(clips)).split.keys() == {"split1", "split2", "split3"}


def test_the_folders_of_pictures_are_matched_in_any_case(frames):
    clip = read(frames)["v_HandStandPushups_g01_c01"]

    assert clip.label == CLASSES.index("HandstandPushups")
    assert clip.sources["rgb"].path == frames / "jpegs_256" / "v_HandstandPushups_g01_c01"
    flow = clip.sources["flow"]
    assert flow.path == frames / "tvl1_flow" / "u" / "v_HandstandPushups_g01_c01"
    assert flow.parts == (frames / "tvl1_flow" / "v" / "v_HandstandPushups_g01_c01",)
    assert flow.path.is_dir()
    assert flow.parts[0].is_dir()


def test_flow_has_two_channels_and_the_videos_have_none(frames):
    columns = PREPARER.columns(frames, parse_options(PREPARER, {}))

    assert columns["flow"].spec.channels == 2
    assert columns["rgb"].spec.channels == 3
    assert columns["flow"].spec.num_frames == columns["rgb"].spec.num_frames == 3


def test_the_videos_give_sound_only_where_it_is_asked_for(avi):
    silent, loud = read(avi), read(avi, audio="true")

    assert {tuple(clip.sources) for clip in silent.values()} == {("rgb",)}
    assert loud["v_HammerThrow_g01_c01"].sources["audio"].path.name == "v_HammerThrow_g01_c01.avi"
    columns = PREPARER.columns(avi, parse_options(PREPARER, {"audio": "true"}))
    assert set(columns) == {"rgb", "audio"}


def test_sound_of_pictures_is_refused(frames):
    with pytest.raises(SourceError, match="pictures have no sound") as caught:
        PREPARER.columns(frames, parse_options(PREPARER, {"audio": "true"}))

    assert "audio" in caught.value.fix


def test_without_the_vertical_flow_the_folder_is_no_edition(frames):
    assert locate(frames, EDITIONS).edition == "frames"
    (frames / "tvl1_flow" / "v").rename(frames / "elsewhere")

    assert locate(frames, EDITIONS) is None


def test_a_video_that_is_not_there_keeps_the_name_it_should_have(avi):
    missing = read(avi)["v_JumpRope_g25_c01"].sources["rgb"].path

    assert missing == avi / "UCF-101" / "JumpRope" / "v_JumpRope_g25_c01.avi"
    assert not missing.exists()


def test_split_one_alone_is_enough(avi):
    for number in (2, 3):
        (avi / "ucfTrainTestlist" / f"testlist0{number}.txt").unlink()

    assert next(iter(read(avi).values())).split.keys() == {"split1"}


def test_a_list_that_names_fewer_videos_than_the_others_is_refused(avi):
    path = avi / "ucfTrainTestlist" / "testlist02.txt"
    path.write_text("\n".join(path.read_text().splitlines()[:-1]))

    with pytest.raises(SourceError, match="lists of split2 name 99 videos instead of 100"):
        read(avi)


def test_all_classes_mean_all_videos(avi):
    rows = [f"{number} Class{number}\n" for number in range(5, 102)]
    with (avi / "ucfTrainTestlist" / "classInd.txt").open("a") as file:
        file.writelines(rows)

    with pytest.raises(SourceError, match="100 videos instead of 13,320"):
        read(avi)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("HamerThrow/v_HamerThrow_g01_c01.avi", "did you mean 'HammerThrow'"),
        ("HammerThrow/clip1.avi", "not the name of a video"),
    ],
)
def test_a_wrong_row_is_named_with_its_line(avi, row, said):
    path = avi / "ucfTrainTestlist" / "testlist01.txt"
    path.write_text(f"{row}\n{path.read_text()}")

    with pytest.raises(SourceError) as caught:
        read(avi)

    assert said in str(caught.value)
    assert "testlist01.txt:1" in str(caught.value)


def test_pictures_and_flow_become_a_store(frames, tmp_path):
    for split in (1, 2, 3):
        for part, held_out in (("train", False), ("test", True)):
            path = frames / "ucfTrainTestlist" / f"{part}list0{split}.txt"
            kept = [row for row in path.read_text().splitlines() if "_g01_" in row]
            path.write_text("\n".join(kept) + "\n")
            assert bool(kept) == (held_out == (split == 1))
    for number, picture in enumerate(sorted(frames.rglob("*.jpg"))):
        pixels = np.random.default_rng(number).integers(0, 256, (8, 10)).astype(np.uint8)
        for frame in (1, 2, 3, 4):
            content = cv2.imencode(".jpg", pixels // frame)[1].tobytes()
            (picture.parent / f"frame{frame:06d}.jpg").write_bytes(content)
    options = {"num_frames": "2", "height": "8", "width": "10"}

    made = prepare(
        PrepareRequest("ucf101", frames, tmp_path / "store", options=options), lambda _: None
    )

    store = open_store(made.path)
    assert tuple(store.columns["rgb"].shape) == (2, 3, 8, 10)
    assert tuple(store.columns["flow"].shape) == (2, 2, 8, 10)
    assert store.index.num_rows == len(CLASSES)
