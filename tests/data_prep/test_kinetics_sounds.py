import json
import shutil
from collections import Counter
from pathlib import Path

import pytest

from mmtool.errors import SourceError
from mmtool.prepare.api import Clip, read_rows
from mmtool.prepare.loader import load_preparer, parse_options
from mmtool.prepare.pipeline import prepare
from mmtool.prepare.request import PrepareRequest
from mmtool.store.reader import open_store
from mmtool.testing.layouts import Truth, require_tools, write_kinetics_sounds

PREPARER = load_preparer("kinetics_sounds")
NAMES = list(PREPARER.classes(Path(), parse_options(PREPARER, {})))
HEADER = "label,youtube_id,time_start,time_end,split,is_cc"


def read(root: Path, **options: str) -> list[Clip]:
    return list(PREPARER.clips(root, parse_options(PREPARER, options)))


def split_ids(clips: list[Clip], protocol: str) -> dict[str, set[str]]:
    assert {tuple(clip.split) for clip in clips} == {(protocol,)}
    return {s: {c.id for c in clips if c.split[protocol] == s} for s in ("train", "val", "test")}


@pytest.fixture(scope="module")
def clips(kit) -> list[Clip]:
    return read(kit / "ks_lists")


def test_the_classes_are_those_of_the_published_index(kit):
    rows = read_rows(kit / "ks_lists" / "class_index.csv")[1:]
    assert [(str(number), name) for number, name in enumerate(NAMES)] == [
        tuple(cells) for _, cells in rows
    ]


def test_the_two_lists_give_their_counts_with_val_out_of_train(clips, kit):
    found = split_ids(clips, "ogm-ge")
    lines = {name: (kit / "ks_lists" / f"my_{name}.txt").read_text().splitlines()
             for name in ("train", "test")}  # fmt: skip
    assert len(found["train"] | found["val"]) == 14_799
    assert len(found["test"]) == 2_597
    assert found["train"] | found["val"] == {line.partition(",")[0] for line in lines["train"]}
    assert len(found["val"]) == pytest.approx(1_480, abs=16)
    index = dict(line.split(",10,") for line in [*lines["train"], *lines["test"]])
    assert all(clip.label == int(index[clip.id]) for clip in clips)
    share = Counter(c.label for c in clips if c.id in found["val"])
    everything = Counter(c.label for c in clips if c.id not in found["test"])
    assert all(abs(share[n] - everything[n] / 10) <= 1 for n in range(31))


def test_no_video_lies_in_two_splits(clips):
    assert len({clip.group for clip in clips}) == len(clips) == 14_799 + 2_597
    assert all(len(clip.group) == 11 and clip.id.startswith(clip.group) for clip in clips)


def test_the_lists_may_lie_elsewhere(kit, tmp_path):
    (tmp_path / "bowling").mkdir()
    video = tmp_path / "bowling" / "--4-0ihtnBU.mp4"
    video.touch()
    clips = read(tmp_path, lists=str(kit / "ks_lists"))
    assert clips[0].id == "--4-0ihtnBU_000058_000068"
    assert clips[0].sources == dict.fromkeys(("audio", "video"), clips[0].sources["audio"])
    assert clips[0].sources["audio"].path == video
    assert not any(clip.sources["audio"].path.exists() for clip in clips[1:50])


def write_json(folder: Path, *subsets: str) -> Path:
    database = {
        f"{subset[:2]}{number:09d}_{number}": {"subset": subset, "label": NAMES[number % 31]}
        for subset in subsets
        for number in range(62)
    }
    content = {"labels": NAMES, "database": database}
    (folder / "KS_train_val.json").write_text(json.dumps(content))
    return folder


def test_a_json_with_all_three_parts_is_taken_as_it_is(tmp_path):
    found = split_ids(read(write_json(tmp_path, "training", "validation", "testing")), "official")
    assert {split: len(ids) for split, ids in found.items()} == dict.fromkeys(found, 62)
    assert all(name.startswith("va") for name in found["val"])


@pytest.mark.parametrize(
    ("subsets", "protocol", "tested"),
    [(("training", "testing"), "ogm-ge", "te"),
     (("training", "validation"), "validation-as-test", "va")],
)  # fmt: skip
def test_a_json_that_lacks_a_part_says_so_in_the_name_of_the_protocol(
    tmp_path, subsets, protocol, tested
):
    found = split_ids(read(write_json(tmp_path, *subsets), val_share="0.5"), protocol)
    assert {name[:2] for name in found["test"]} == {tested}
    assert {name[:2] for name in found["val"] | found["train"]} == {"tr"}
    assert len(found["val"]) == len(found["train"]) == 31


def test_a_json_of_another_kind_is_refused(tmp_path):
    for content in ("{", "[]", '{"database": {"x": {"subset": "training"}}}'):
        (tmp_path / "KS_train_val.json").write_text(content)
        with pytest.raises(SourceError, match="not what the authors published"):
            read(tmp_path)


@pytest.mark.parametrize(
    ("splits", "protocol"),
    [(("train", "validate", "test"), "official"), (("train", "val"), "validation-as-test"),
     (("train", "test"), "val-from-train")],
)  # fmt: skip
def test_tables_of_kinetics_are_filtered_to_the_31_classes(tmp_path, splits, protocol):
    for split in splits:
        rows = [HEADER, f"abseiling,{split[:6]:_<10}1,3,13,{split},0"]
        rows += [
            f'"{NAMES[n % 31]}",{split[:6]:_<6}{n:05d},{n},{n + 10},{split},0' for n in range(62)
        ]
        (tmp_path / f"{split}.csv").write_text("\n".join(rows))
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    clips = read(tmp_path, val_share="0.5")
    assert len(clips) == 62 * len(splits)
    assert Counter(clip.label for clip in clips) == dict.fromkeys(range(31), 2 * len(splits))
    assert split_ids(clips, protocol)["val"]


def test_a_folder_without_lists_is_told_which_would_do(tmp_path):
    with pytest.raises(SourceError, match="no list of Kinetics-Sounds") as caught:
        read(tmp_path)
    assert "my_train.txt" in caught.value.why
    assert caught.value.fix == "-s lists=FOLDER"


@pytest.mark.parametrize("row", ["-0000000000_1,10,31", "short,10,3", "-0000000000_1,10,x"])
def test_a_row_that_is_none_is_refused_with_its_line(tmp_path, row):
    (tmp_path / "my_test.txt").write_text("-0000000001_1,10,0\n")
    (tmp_path / "my_train.txt").write_text(f"-0000000002_1,10,0\n{row}\n")
    with pytest.raises(SourceError) as caught:
        read(tmp_path)
    assert caught.value.where.endswith("my_train.txt:2")


@pytest.fixture(scope="module")
def release(tmp_path_factory) -> Truth:
    try:
        require_tools()
    except RuntimeError as error:
        pytest.skip(str(error))
    root = tmp_path_factory.mktemp("kinetics")
    traps = ("two-starts", "no-audio", "stub", "missing")
    return write_kinetics_sounds(root, 16, bad=traps, num_classes=2, seconds=1.0)


def test_every_clip_of_a_small_release_is_found_in_whatever_folder_it_lies(release):
    lost = release.bad("missing")
    clips = read(release.root)
    assert {clip.id for clip in clips} == set(release.label)
    for clip in clips:
        assert NAMES[clip.label] == release.label[clip.id]
        assert clip.sources["video"].path.exists() == (clip.id not in lost)
    first = next(c for c in clips if c.id == release.defect("two-starts").id)
    assert first.sources["video"].path.stem == first.id


def test_a_small_release_becomes_a_store_that_counts_what_it_left_out(release, tmp_path):
    options = {"frames": "1", "val_share": "0.4"}
    request = PrepareRequest("kinetics_sounds", release.root, tmp_path / "out", workers=1,
                             options=options, max_skipped=0.2)  # fmt: skip
    report = prepare(request, lambda _: None).report

    assert {"missing", "no-audio"} <= set(report["skipped"])
    with open_store(tmp_path / "out") as store:
        assert store.index.num_rows == len(set(release.label) - release.spoilt())
        assert store.columns["audio.fbank"].shape == (1, 128, 1024)
        assert store.columns["video"].shape == (3, 256, 341)


def test_more_than_three_in_ten_missing_is_refused(release, tmp_path):
    for path in release.root.glob("my_*.txt"):
        shutil.copy(path, tmp_path)
    request = PrepareRequest("kinetics_sounds", tmp_path, tmp_path / "out", workers=1)
    with pytest.raises(SourceError, match="more than the 30% allowed"):
        prepare(request, lambda _: None)
