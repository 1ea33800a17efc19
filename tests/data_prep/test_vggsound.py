from collections import Counter, defaultdict
from pathlib import Path

import pytest

from mmtool.errors import SourceError
from mmtool.prepare.api import Clip
from mmtool.prepare.loader import load_preparer, parse_options
from mmtool.prepare.pipeline import prepare
from mmtool.prepare.request import PrepareRequest, PrepareResult
from mmtool.store.reader import open_store
from mmtool.testing.layouts import Truth, require_tools, write_vggsound

PREPARER = load_preparer("vggsound")


def read(root: Path, **options: str) -> list[Clip]:
    return list(PREPARER.clips(root, parse_options(PREPARER, options)))


def run(root: Path, out: Path, **more) -> PrepareResult:
    return prepare(PrepareRequest("vggsound", root, out, workers=1, **more), lambda _: None)


def listed(root: Path, *rows: str) -> Path:
    (root / "vggsound.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return root


@pytest.fixture
def large(tmp_path) -> Path:
    """Three classes, of which a part of the videos has two stretches."""
    rows = []
    for number in range(600):
        label = ("train horning", "dog, barking", "test of bells")[number % 3]
        split = "test" if number % 6 == 0 else "train"
        starts = (30, 34) if number % 10 == 1 else (30,)
        rows += [f'-{number:010d},{start},"{label}",{split}' for start in starts]
    return listed(tmp_path, *rows)


def test_labels_are_read_whole_and_sorted_whatever_lies_on_the_disk(large):
    names = PREPARER.classes(large, parse_options(PREPARER, {}))
    assert list(names) == ["dog, barking", "test of bells", "train horning"]
    first = read(large)[0]
    assert (first.id, names[first.label]) == ("-0000000000_000030", "train horning")


def test_val_is_a_twentieth_of_each_class_of_train_in_whole_videos(large):
    clips = read(large)
    assert len(clips) == 660
    splits = defaultdict(set)
    for clip in clips:
        splits[clip.group].add(clip.split["official"])
    assert all(len(found) == 1 for found in splits.values())
    val = Counter(c.label for c in clips if c.split["official"] == "val")
    videos = {(c.group, c.label) for c in clips if c.split["official"] == "val"}
    assert len(val) == 3
    # A twentieth of 500 videos, of which a tenth has two stretches.
    assert len(videos) == pytest.approx(25, abs=2)
    assert Counter(c.split["official"] for c in clips)["test"] == 100
    assert not any(c.split["official"] == "val" for c in read(large, val_share="0"))


def test_the_draw_does_not_depend_on_the_order_of_the_list(large):
    before = {clip.id: clip.split for clip in read(large)}
    path = large / "vggsound.csv"
    path.write_text("\n".join(reversed(path.read_text().splitlines())), encoding="utf-8")
    assert {clip.id: clip.split for clip in read(large)} == before


def test_both_ways_of_naming_a_file_are_found_and_a_start_is_never_taken_for_another(tmp_path):
    (tmp_path / "a").mkdir()
    for name in ("-40DA8RPuq0_34.mp4", "-40DA8RPuq0_000216.mp4", "00000000000_000001.mp4"):
        (tmp_path / "a" / name).touch()
    root = listed(tmp_path, *(f"-40DA8RPuq0,{s},a,train" for s in (34, 216, 7)),
                  "00000000000,2,a,test")  # fmt: skip
    found = [clip.sources["video"].path.name for clip in read(root)]
    assert found[:2] == ["-40DA8RPuq0_34.mp4", "-40DA8RPuq0_000216.mp4"]
    assert not any((root / "a" / name).exists() for name in found[2:])


def test_train_clips_of_a_video_that_test_has_are_left_out_unless_asked_for(tmp_path):
    rows = [f"-{n:010d},0,a,train" for n in range(60)]
    root = listed(tmp_path, *rows, "-0000000000,9,a,test")
    left_out = [clip.id for clip in read(root) if clip.skip == "cross-split-video"]
    assert left_out == ["-0000000000_000000"]
    kept = read(root, keep_shared_videos="true")
    assert not any(clip.skip for clip in kept)
    assert kept[0].split["official"] == "train"


def test_a_header_is_no_row(tmp_path):
    root = listed(tmp_path, "ytid,start,label,split", "-0000000000,9,a,test")
    assert len(read(root)) == 1


@pytest.mark.parametrize("row", ["-0000000000,9,a,val", "-0000000000,nine,a,train"])
def test_a_row_that_is_none_is_refused_with_its_line(tmp_path, row):
    root = listed(tmp_path, "-0000000001,9,a,test", row)
    with pytest.raises(SourceError) as caught:
        read(root)
    assert caught.value.where.endswith("vggsound.csv:2")


def test_a_list_without_rows_is_refused(tmp_path):
    with pytest.raises(SourceError, match="lists no clips"):
        read(listed(tmp_path, "ytid,start,label,split"))


@pytest.fixture(scope="module")
def release(tmp_path_factory) -> Truth:
    try:
        require_tools()
    except RuntimeError as error:
        pytest.skip(str(error))
    traps = ("two-starts", "cross-split-video", "no-audio", "stub", "missing")
    root = tmp_path_factory.mktemp("vggsound")
    return write_vggsound(root, 16, bad=traps, num_classes=2, seconds=1.0)


def test_a_small_release_becomes_a_store_that_counts_what_it_left_out(release, tmp_path):
    options = {"frames": "1", "height": "48"}
    result = run(release.root, tmp_path / "out", options=options, max_skipped=0.2)

    skipped = {reason: set(one["ids"]) if "ids" in one else one["count"]
               for reason, one in result.report["skipped"].items()}  # fmt: skip
    assert {"cross-split-video", "missing", "no-audio"} <= set(skipped)
    with open_store(result.path) as store:
        assert tuple(store.classes) == release.classes
        ids = store.index.ids()
        assert set(ids) == set(release.label) - release.spoilt() - release.bad("cross-split-video")
        for name, label in zip(ids, store.index.label, strict=True):
            assert store.classes[label] == release.label[name]
        assert store.columns["video"].shape == (3, 48, 64)
