import json
import shutil
from collections import Counter
from pathlib import Path

import pytest

from mmtool.errors import SourceError
from mmtool.prepare.api import Clip, read_table
from mmtool.prepare.loader import load_preparer, parse_options, resolve_source
from mmtool.prepare.pipeline import prepare
from mmtool.prepare.request import PrepareRequest, PrepareResult
from mmtool.store.reader import open_store
from mmtool.testing.layouts import Truth, require_tools, write_cremad

PREPARER = load_preparer("cremad")
KNOWN_BAD = {"1076_MTI_NEU_XX", "1076_MTI_SAD_XX", "1064_TIE_SAD_XX", "1064_IEO_DIS_MD"}


def read(root: Path, **options: str) -> list[Clip]:
    return list(PREPARER.clips(root, parse_options(PREPARER, options)))


def run(root: Path, out: Path, **more) -> PrepareResult:
    return prepare(PrepareRequest("cremad", root, out, workers=1, **more), lambda _: None)


def by_split(clips: list[Clip], protocol: str) -> Counter[str]:
    return Counter(clip.split[protocol] for clip in clips if not clip.skip)


@pytest.fixture(scope="module")
def listing(kit) -> Path:
    return kit / "crema_d_listing"


@pytest.fixture(scope="module")
def table(listing) -> dict[str, dict[str, str]]:
    return {r.cells["id"]: dict(r.cells) for r in read_table(listing / "crema_d_files.csv").rows}


@pytest.fixture(scope="module")
def clips(listing) -> list[Clip]:
    return read(listing)


def test_the_true_list_gives_every_clip_once_with_its_emotion(clips, table):
    assert len(clips) == len({clip.id for clip in clips}) == 7_442
    assert {clip.id for clip in clips} == set(table)
    names = PREPARER.classes(Path(), parse_options(PREPARER, {}))
    assert list(names) == ["NEU", "HAP", "SAD", "FEA", "DIS", "ANG"]
    assert all(names[clip.label] == table[clip.id]["emotion"] for clip in clips)
    assert all(clip.group == table[clip.id]["actor"] for clip in clips)
    counts = Counter(clip.label for clip in clips)
    assert [counts[label] for label in range(6)] == [1_087, 1_271, 1_271, 1_271, 1_271, 1_271]


def test_the_default_protocol_is_the_published_split_of_actors(clips, table, listing):
    published = json.loads((listing / "speaker_disjoint_split_audeering.json").read_text())
    split_of = {str(n): "val" if s == "dev" else s for s, actors in published.items()
                for n in actors}  # fmt: skip
    assert next(iter(clips[0].split)) == "speaker"
    assert all(clip.split["speaker"] == split_of[clip.group] for clip in clips)
    assert Counter(split_of.values()) == {"train": 56, "val": 18, "test": 17}
    everything = Counter(clip.split["speaker"] for clip in clips)
    assert everything == {"train": 4_573, "val": 1_476, "test": 1_393}


def test_the_test_of_ogm_ge_is_theirs_and_val_comes_evenly_from_their_train(clips, table):
    assert all((clip.split["ogm-ge"] == "test") == (table[clip.id]["ogm_split"] == "test")
               for clip in clips)  # fmt: skip
    splits = Counter(clip.split["ogm-ge"] for clip in clips)
    assert splits["test"] == 744
    assert splits["val"] == pytest.approx(670, abs=3)
    val = Counter(clip.label for clip in clips if clip.split["ogm-ge"] == "val")
    assert max(val.values()) - min(val.values()) <= 20


def test_without_val_the_train_of_ogm_ge_is_as_they_published_it(listing, table):
    clips = read(listing, ogm_ge_val="0.0")
    assert all(clip.split["ogm-ge"] == table[clip.id]["ogm_split"] for clip in clips)


def test_the_list_that_ships_is_the_published_one_and_says_where_it_is_from(listing):
    lists = PREPARER.file.parent / "lists"
    published = (listing / "ogm_ge_split" / "test.csv").read_text().split()
    ours = (lists / "cremad_ogm_ge_test.txt").read_text().split()
    assert ours == sorted(row.partition(",")[0] for row in published)
    notice = (lists / "NOTICE_cremad.txt").read_text()
    assert all(word in notice for word in ("MIT", "OGM-GE_CVPR2022", "ODbL", "Cao", "audeering"))


def test_the_known_bad_clips_are_left_out_unless_asked_for(clips, listing, table):
    assert {clip.id for clip in clips if clip.skip == "known-bad"} == KNOWN_BAD
    assert {name for name, row in table.items() if row["known_bad"]} == KNOWN_BAD
    assert not any(clip.skip for clip in read(listing, keep_known_bad="true"))
    assert by_split(clips, "ogm-ge").total() == 7_438


def test_sound_comes_from_the_wav_and_the_picture_from_the_flv(clips):
    for clip in clips[:50]:
        assert clip.sources["audio"].path.parts[-2:] == ("AudioWAV", f"{clip.id}.wav")
        assert clip.sources["video"].path.parts[-2:] == ("VideoFlash", f"{clip.id}.flv")


def test_a_name_that_is_none_is_refused_with_its_line(tmp_path):
    table = tmp_path / "SentenceFilenames.csv"
    table.write_text('"Stimulus_Number","Filename"\n1,"1001_IEO_NEU_XX"\n2,"1001_IEO_JOY_XX"\n')
    with pytest.raises(SourceError, match="1001_IEO_JOY_XX") as caught:
        read(tmp_path)
    assert f"{table}:3" in caught.value.where


def test_a_copy_without_pictures_is_told_what_it_lacks(tmp_path):
    (tmp_path / "AudioWAV").mkdir()
    (tmp_path / "AudioWAV" / "1001_IEO_NEU_XX.wav").touch()
    with pytest.raises(SourceError, match=r"VideoFlash/\*\.flv missing"):
        resolve_source(PREPARER, tmp_path)


def test_a_clone_without_git_lfs_is_told_to_pull(listing, tmp_path):
    with pytest.raises(SourceError, match="lfs-pointer: ") as caught:
        run(listing, tmp_path / "out")
    assert caught.value.fix.endswith(f"git -C {listing / 'lfs_pointers'} lfs pull")
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def release(tmp_path_factory) -> Truth:
    try:
        require_tools()
    except RuntimeError as error:
        pytest.skip(str(error))
    return write_cremad(tmp_path_factory.mktemp("cremad"), 12, bad=())


def test_a_small_release_becomes_a_store_with_all_columns(release, tmp_path):
    result = run(release.root, tmp_path / "out", options={"frames": "2"})

    with open_store(result.path) as store:
        assert store.default_columns == {"audio": "audio", "video": "video"}
        assert store.columns["audio.ogm_ge"].shape == (1, 257, 188)
        assert store.columns["audio.logmel"].shape == (1, 64, 400)
        assert store.columns["video"].shape == (2, 3, 256, 341)
        assert len(store.index.label) == 12
    assert result.report["skipped"] == {}
    assert result.report["shared_groups"]["speaker"]["shared"] == 0


def test_without_the_table_the_folders_are_the_list(release, tmp_path):
    listed = read(release.root)
    for folder in ("AudioWAV", "VideoFlash"):
        shutil.copytree(release.root / folder, tmp_path / folder)
    lost, alone = listed[0].id, "1091_WSI_ANG_XX"
    (tmp_path / "AudioWAV" / f"{lost}.wav").unlink()
    (tmp_path / "VideoFlash" / f"{alone}.flv").touch()
    (tmp_path / "VideoFlash" / "notes.flv").touch()
    assert {clip.id for clip in read(tmp_path)} == {clip.id for clip in listed} | {alone}


def test_missing_clips_of_the_true_list_are_counted_by_split(release, clips, listing, tmp_path):
    for folder in ("AudioWAV", "VideoFlash"):
        shutil.copytree(release.root / folder, tmp_path / folder)
    shutil.copy(listing / "SentenceFilenames.csv", tmp_path)
    with pytest.raises(SourceError, match="of 7,438 have no file"):
        run(tmp_path, tmp_path / "out")

    report = run(tmp_path, tmp_path / "out", dry_run=True, max_missing=1.0).report

    present = {path.stem for path in (tmp_path / "AudioWAV").iterdir()} - KNOWN_BAD
    expected = Counter(clip.split["speaker"] for clip in clips if clip.id in present)
    found = {split: one["clips"] for split, one in report["splits"]["speaker"].items()}
    assert {split: count for split, count in found.items() if count} == expected
    skipped = {reason: one["count"] for reason, one in report["skipped"].items()}
    assert skipped == {"known-bad": 4, "missing": 7_438 - len(present)}


def sizes(release: Truth, wrong: int) -> str:
    rows = ["id,wav_bytes,flv_bytes"]
    for number, name in enumerate(sorted(release.label)):
        wav = (release.root / "AudioWAV" / f"{name}.wav").stat().st_size
        flv = (release.root / "VideoFlash" / f"{name}.flv").stat().st_size
        rows.append(f"{name},{wav + (number < wrong)},{flv}")
    return "\n".join(rows)


def test_verify_skips_a_file_of_another_size_and_refuses_many(release, tmp_path):
    table = tmp_path / "sizes.csv"
    for wrong in (0, 1):
        table.write_text(sizes(release, wrong))
        clips = read(release.root, verify=str(table))
        assert sum(clip.skip == "wrong-size" for clip in clips) == wrong
    table.write_text(sizes(release, 10))
    with pytest.raises(SourceError, match="10 of 24 files differ in size"):
        read(release.root, verify=str(table))
