from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmtool.prepare.api import VideoFiles, draw_videos, video_and_start

IDS = st.text(
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_", min_size=11, max_size=11
)


@given(IDS, st.integers(0, 999_999), st.integers(0, 999_999))
def test_every_way_of_writing_a_clip_gives_its_id_and_first_second(video, start, end):
    assert video_and_start(video) == (video, None)
    for written in (f"{start}", f"{start:06d}", f"{start:06d}_{end:06d}"):
        assert video_and_start(f"{video}_{written}") == (video, start)


@pytest.mark.parametrize("name", ["", "short", "-abcdefghij_x", "-abcdefghij_1_2_3", "é" * 11])
def test_other_names_are_not_clips(name):
    assert video_and_start(name) is None


@pytest.fixture
def files(tmp_path) -> VideoFiles:
    for name in (
        "a b/-abcdefghij_000034_000044.mp4",
        "a_b/-abcdefghij_216.mp4",
        "whole/00000000000.mp4",
        "whole/00000000000_000005.mkv",
        "11111111111_000007.webm",
        "._11111111111_000008.webm",
        "22222222222_000009.txt",
    ):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    return VideoFiles(tmp_path)


def name_of(path: Path | None) -> str:
    return "" if path is None else path.name


def test_of_several_files_the_one_that_begins_at_the_second_is_found(files):
    assert name_of(files.find("-abcdefghij", 34)) == "-abcdefghij_000034_000044.mp4"
    assert name_of(files.find("-abcdefghij", 216)) == "-abcdefghij_216.mp4"
    assert files.find("-abcdefghij", 35) is files.find("-abcdefghij", 35, any_start=True) is None


def test_another_stretch_of_a_video_does_only_where_that_is_allowed(files):
    assert files.find("11111111111", 8) is None
    assert name_of(files.find("11111111111", 8, any_start=True)) == "11111111111_000007.webm"
    assert name_of(files.find("00000000000", 8, any_start=True)) == "00000000000.mp4"
    assert name_of(files.find("00000000000", 5, any_start=True)) == "00000000000_000005.mkv"


def test_ids_keep_their_case_and_other_files_do_not_count(files):
    assert files.find("-ABCDEFGHIJ", 34) is None
    assert files.find("22222222222", 9, any_start=True) is None


def test_videos_are_drawn_evenly_over_labels_and_whatever_their_order():
    labels = {f"{number:011d}": number % 4 for number in range(400)}
    drawn = draw_videos(labels, 0.1, "salt")
    assert [sum(labels[video] == label for video in drawn) for label in range(4)] == [10] * 4
    assert draw_videos(dict(reversed(labels.items())), 0.1, "salt") == drawn
    assert draw_videos(labels, 0.1, "other") != drawn
    assert draw_videos(labels, 0.0, "salt") == set()
