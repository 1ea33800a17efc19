from collections import Counter
from pathlib import Path

import pytest

from mmtool.errors import SourceError
from mmtool.prepare.api import Clip
from mmtool.prepare.loader import load_preparer, parse_options
from mmtool.prepare.pipeline import prepare
from mmtool.prepare.request import PrepareRequest, PrepareResult
from mmtool.store.reader import open_store
from mmtool.testing.layouts import Truth, require_tools, write_ave

PREPARER = load_preparer("ave")
IN_TRAIN_AND_TEST = {
    "-9_5_2i4igQ", "-PljzzluWNw", "-WOcO4B-Jis", "0NmA9tKpBdw",
    "0f_iTO5t3hU", "0qvQIuQoODo", "1cmo1SGxJnc", "7iIBkME4bSM",
}  # fmt: skip


def read(root: Path, **options: str) -> list[Clip]:
    return list(PREPARER.clips(root, parse_options(PREPARER, options)))


def names(root: Path) -> list[str]:
    return list(PREPARER.classes(root, parse_options(PREPARER, {})))


def run(root: Path, out: Path, **more) -> PrepareResult:
    return prepare(PrepareRequest("ave", root, out, workers=1, **more), lambda _: None)


@pytest.fixture(scope="module")
def clips(kit) -> list[Clip]:
    return read(kit / "ave_lists")


def test_the_three_lists_give_all_their_rows(clips, kit):
    assert len(clips) == 4_143
    assert len({clip.id for clip in clips}) == 4_097
    splits = Counter(clip.split["official"] for clip in clips)
    assert splits == {"train": 3_339, "val": 402, "test": 402}
    annotations = (kit / "ave_lists" / "Annotations.txt").read_text().splitlines()
    classes = names(kit / "ave_lists")
    assert classes == sorted({row.partition("&")[0] for row in annotations})
    assert len(classes) == 28
    listed = Counter("&".join(row.split("&")[:2]) for row in annotations)
    assert listed == Counter(f"{classes[clip.label]}&{clip.id}" for clip in clips)


def test_the_event_that_lasts_no_time_is_the_only_unusable_row(clips):
    assert [(c.id, c.skip) for c in clips if c.skip] == [("VWi2ENBuTbw", "zero-length")]


def test_rows_of_eighteen_videos_leave_train_because_val_or_test_has_them(clips, kit, tmp_path):
    of = {s: {c.id for c in clips if c.split["official"] == s} for s in ("train", "val", "test")}
    assert of["train"] & of["test"] == IN_TRAIN_AND_TEST
    assert len(of["train"] & of["val"]) == 10
    assert len(of["train"] & (of["val"] | of["test"])) == 18

    report = run(kit / "ave_lists", tmp_path, dry_run=True).report

    skipped = {reason: one["count"] for reason, one in report["skipped"].items()}
    assert skipped["zero-length"] == 1
    assert skipped["cross-split"] == 19
    assert skipped["duplicate-id"] == 27
    assert skipped["missing"] == 4_143 - 1 - 19 - 27


def test_classes_of_rows_with_commas_and_blanks_stay_whole(clips, kit):
    assert {"Male speech, man speaking", "Frying (food)"} <= set(names(kit / "ave_lists"))


@pytest.fixture
def lists(tmp_path) -> Path:
    for name in ("trainSet", "valSet", "testSet"):
        (tmp_path / f"{name}.txt").write_text(
            f"Category&VideoID&Quality&StartTime&EndTime\nA, b&-{name:_<10}&good&2&7\n"
        )
    return tmp_path


def test_a_header_is_no_row(lists):
    assert [clip.id for clip in read(lists)] == ["-trainSet__", "-valSet____", "-testSet___"]
    assert names(lists) == ["A, b"]


@pytest.mark.parametrize(
    ("row", "reason"), [("2&2", "zero-length"), ("7&2", "ends-before-start"), ("2&7", "")]
)
def test_a_row_without_an_event_says_why_it_is_left_out(lists, row, reason):
    (lists / "valSet.txt").write_text(f"A, b&-0123456789&good&{row}\r\n")
    assert [c.skip for c in read(lists) if c.split["official"] == "val"] == [reason]


def test_a_row_that_is_none_is_refused_with_its_line(lists):
    (lists / "valSet.txt").write_text("A&-0123456789&good&0&10\nA&-0123456780&good&0&ten\n")
    with pytest.raises(SourceError, match="ten") as caught:
        read(lists)
    assert caught.value.where.endswith("valSet.txt:2")


def test_the_event_alone_is_cut_out_on_request(lists):
    whole, event = read(lists)[0], read(lists, segment="event")[0]
    for modality in ("audio", "video"):
        assert (whole.sources[modality].start_s, whole.sources[modality].end_s) == (0.0, None)
        assert (event.sources[modality].start_s, event.sources[modality].end_s) == (2.0, 7.0)


@pytest.fixture(scope="module")
def release(tmp_path_factory) -> Truth:
    try:
        require_tools()
    except RuntimeError as error:
        pytest.skip(str(error))
    root = tmp_path_factory.mktemp("ave") / "AVE_Dataset"
    traps = (
        "duplicate-in-split",
        "duplicate-across-splits",
        "zero-length",
        "no-audio",
        "missing",
        "crlf",
    )
    return write_ave(root, 12, bad=traps, num_classes=2, seconds=2.0)


def test_a_small_release_becomes_a_store_that_counts_what_it_left_out(release, tmp_path):
    more = {"options": {"frames": "2"}, "max_skipped": 0.2}
    result = run(release.root.parent, tmp_path / "out", **more)

    skipped = {reason: one["count"] for reason, one in result.report["skipped"].items()}
    assert skipped == {
        "cross-split": 1, "duplicate-id": 1, "zero-length": 1, "missing": 1, "no-audio": 1,
    }  # fmt: skip
    with open_store(result.path) as store:
        assert list(store.classes) == sorted(release.classes)
        ids = store.index.ids()
        for name, label in zip(ids, store.index.label, strict=True):
            if name not in release.bad("duplicate-across-splits"):
                assert store.classes[label] == release.label[name]
        assert set(ids) == set(release.label) - release.bad("zero-length", "missing", "no-audio")
        assert store.columns["video"].shape == (2, 3, 256, 341)
        assert store.columns["audio.logmel"].shape == (1, 64, 500)
