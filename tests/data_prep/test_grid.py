from collections import Counter, defaultdict
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest

from mmtool.errors import SourceError
from mmtool.prepare.api import Clip, read_table
from mmtool.prepare.loader import load_preparer, parse_options, resolve_source
from mmtool.prepare.pipeline import prepare
from mmtool.prepare.request import PrepareRequest
from mmtool.store.reader import open_store

PREPARER = load_preparer("grid")


def read(root: Path, **options: str) -> list[Clip]:
    return list(PREPARER.clips(root, parse_options(PREPARER, options)))


def classes(**options: str) -> list[str]:
    return list(PREPARER.classes(Path(), parse_options(PREPARER, options)))


@pytest.fixture(scope="module")
def lips(kit) -> Path:
    return kit / "grid_s1"


@pytest.fixture(scope="module")
def clips(lips) -> list[Clip]:
    return read(lips)


def test_a_thousand_sentences_keep_the_splits_of_the_table(clips, lips):
    assert resolve_source(PREPARER, lips).edition == "lips96"
    table = {row.cells["id"]: row.cells for row in read_table(lips / "labels_and_splits.csv").rows}
    assert {clip.id for clip in clips} == {f"s1_{name}" for name in table}
    for clip in clips:
        assert clip.split == {"sentence": table[clip.id[3:]]["split"]}
        assert classes()[clip.label] == table[clip.id[3:]]["digit"]
    counts = Counter(clip.split["sentence"] for clip in clips)
    assert counts == {"train": 720, "val": 98, "test": 182}


def test_sentences_with_the_same_four_words_do_not_part(clips):
    splits = defaultdict(set)
    for clip in clips:
        assert clip.group == clip.id[3:7]
        splits[clip.group].add(clip.split["sentence"])
    assert all(len(found) == 1 for found in splits.values())


@pytest.mark.parametrize(
    ("label", "expected", "count"),
    [("command", "bin", 4), ("colour", "blue", 4), ("preposition", "at", 4), ("letter", "f", 25),
     ("digit", "2", 10), ("adverb", "now", 4)],
)  # fmt: skip
def test_any_word_of_the_sentence_can_be_the_label(lips, label, expected, count):
    names = classes(label=label)
    clips = read(lips, label=label)
    assert len(set(names)) == len(names) == count
    assert {names[clip.label] for clip in clips} == set(names)
    assert next(names[clip.label] for clip in clips if clip.id == "s1_bbaf2n") == expected


def test_of_the_sentence_what_lies_around_the_digit_is_kept_unless_all_is_asked_for(lips, clips):
    def span(one: list[Clip]) -> set[tuple[float, float | None]]:
        return {(s.start_s, s.end_s) for clip in one for s in clip.sources.values()}

    assert span(clips) == {(1.2, 2.6)}
    assert span(read(lips, whole="true")) == span(read(lips, label="letter")) == {(0.0, 3.0)}
    for options, num_frames in (({}, 70), ({"whole": "true"}, 150)):
        columns = PREPARER.columns(lips, parse_options(PREPARER, options))
        assert columns["audio.logmel"].spec.feature.num_frames == num_frames


def names(count: int) -> list[str]:
    letters = "abcdefghij"
    return [f"bb{'abiw'[n % 4]}{letters[n // 4 % 10]}{'z123456789'[n % 10]}a"
            for n in range(count)]  # fmt: skip


def corpus(root: Path, num_talkers: int, folder: str = "") -> Path:
    for talker in range(1, num_talkers + 1):
        for name in names(40):
            path = root / f"s{talker}" / folder / f"{name}.mpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    (root / "s1" / folder / "._bbaf2n.mpg").touch()
    (root / "s1" / folder / "notes.mpg").touch()
    (root / "s1" / "align").mkdir()
    (root / "s1" / "align" / "bbaf2n.align").touch()
    return root


@pytest.mark.parametrize("folder", ["", "video", "video/mpg_6000"])
def test_the_corpus_is_found_as_its_archives_unpack(tmp_path, folder):
    root = corpus(tmp_path / "GRID", 2, folder)
    found = resolve_source(PREPARER, tmp_path)
    assert found.root == root
    assert found.edition == f"corpus {folder}".strip()
    clips = read(root)
    assert {c.id for c in clips} == {f"s{t}_{n}" for t in (1, 2) for n in names(40)}
    assert {tuple(clip.split) for clip in clips} == {("sentence",)}


def test_with_three_talkers_the_default_protocol_shares_none(tmp_path):
    clips = read(corpus(tmp_path, 10))
    assert {tuple(clip.split) for clip in clips} == {("speaker", "sentence")}
    talkers, starts = defaultdict(set), defaultdict(set)
    for clip in clips:
        talkers[clip.group].add(clip.split["speaker"])
        starts[clip.id.partition("_")[2][:4]].add(clip.split["sentence"])
    assert set(talkers) == {f"s{number}" for number in range(1, 11)}
    for groups in (talkers, starts):
        assert all(len(found) == 1 for found in groups.values())
        assert set.union(*groups.values()) == {"train", "val", "test"}
    counts = Counter(next(iter(found)) for found in talkers.values())
    assert counts == {"train": 7, "val": 1, "test": 2}


@pytest.mark.parametrize("row", ["bbaf2x,train,2", "bbaf2n,train,3"])
def test_a_table_that_contradicts_the_names_is_refused(tmp_path, row):
    with ZipFile(tmp_path / "GRID_s1_lips96.zip", "w"):
        pass
    (tmp_path / "labels_and_splits.csv").write_text(f"id,split,digit\n{row}\n")
    with pytest.raises(SourceError, match="is not the name of a sentence"):
        read(tmp_path)


def test_half_an_archive_is_refused(tmp_path):
    (tmp_path / "GRID_s1_lips96.zip").write_bytes(b"PK\x03\x04")
    (tmp_path / "labels_and_splits.csv").write_text("id,split,digit\nbbaf2n,train,2\n")
    with pytest.raises(SourceError, match="not a whole zip"):
        read(tmp_path)


def test_motion_is_what_differs_from_the_mean_of_the_pictures(clips):
    frames = np.full((4, 1, 2, 2), 100, np.uint8)
    frames[0, 0, 0, 0], frames[1, 0, 1, 1] = 180, 0
    given = {"video": frames.copy(), "video.motion": frames.copy()}
    found = PREPARER.finish(clips[0], given, parse_options(PREPARER, {}))
    np.testing.assert_array_equal(found["video"], frames)
    assert found["video.motion"].dtype == np.uint8
    assert found["video.motion"][:, 0, 0, 0].tolist() == [248, 88, 88, 88]
    assert found["video.motion"][:, 0, 1, 1].tolist() == [178, 0, 178, 178]
    assert (found["video.motion"][:, 0, 0, 1] == 128).all()


def test_the_lips_become_a_store(lips, tmp_path):
    request = PrepareRequest("grid", lips, tmp_path / "out", workers=1, limit=20)
    result = prepare(request, lambda _: None)
    with open_store(result.path) as store:
        assert store.index.num_rows == 20
        assert store.columns["audio.logmel"].shape == (1, 40, 70)
        assert store.columns["video"].shape == store.columns["video.motion"].shape
        assert store.columns["video"].shape == (14, 1, 32, 32)
        assert store.default_columns == {"audio": "audio", "video": "video"}


def test_the_original_films_become_a_store_damaged_and_short_ones_included(lips, tmp_path):
    with ZipFile(lips / "GRID_s1_originals.zip") as archive:
        archive.extractall(tmp_path)
    request = PrepareRequest("grid", tmp_path, tmp_path / "out", workers=1,
                             options={"frames": "1"})  # fmt: skip
    result = prepare(request, lambda _: None)
    assert result.report["rows"] == 9
    assert result.report["edition"] == "corpus"
    with open_store(result.path) as store:
        assert store.columns["video"].shape == (1, 32, 32)
        assert "video.motion" not in store.columns
