import errno
import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmtool.errors import (
    EnvironmentLacks,
    RequestError,
    SourceError,
    StoppedResumable,
    WorkFailed,
)
from mmtool.media.spec import Decoded, MediaFacts
from mmtool.prepare.pipeline import explained_disk_errors, prepare
from mmtool.prepare.request import MediaRoom, Progress
from mmtool.prepare.summary import summary_lines
from mmtool.prepare.verify import verify_store
from mmtool.store.reader import open_store


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.name != "report.json"}


def interrupt() -> None:
    raise KeyboardInterrupt


def test_the_store_holds_every_clip_in_id_order(release: Any) -> None:
    result = release.prepare()
    with open_store(result.path) as store:
        assert store.hash == result.hash
        assert store.index.ids() == [f"c{i:03d}" for i in range(23)]
        assert store.index.label.tolist() == [i % 2 for i in range(23)]
        assert [len(store.index.rows(s)) for s in ("train", "val", "test")] == [15, 4, 4]
        assert store.index.protocols == ("main", "group")
        assert store.modalities == ("audio", "imu", "text", "video")
        assert dict(store.default_columns)["audio"] == "audio"
        rows = np.array([22, 3])
        waves, lengths = store.gather("audio", rows)
        assert lengths is not None
        assert lengths.tolist() == [42, 23]
        np.testing.assert_array_equal(waves[1, :23], np.load(release.root / "audio_c003.npy"))
        np.testing.assert_array_equal(
            store.gather("video", rows)[0][0], np.load(release.root / "video_c022.npy")
        )
        tokens = store.gather("text", rows)[0][0] - 1
        assert bytes(tokens.astype(np.uint8)) == b"c022"
        assert store.columns["audio.logmel"].shape == (1, 2, 3)
        assert store.columns["imu"].shape == (3,)
        assert store.columns["imu"].max_length == 8
    assert verify_store(result.path)["rows"] == 23
    assert [path.name for path in release.out.parent.iterdir()] == ["arrays"]


def test_statistics_are_those_of_the_train_split_of_each_protocol(release: Any) -> None:
    result = release.prepare()
    with open_store(result.path) as store:
        for protocol in ("main", "group"):
            train = store.index.ids(store.index.rows("train", protocol))
            loaded = {
                m: [np.load(release.root / f"{m}_{name}.npy").astype(float) for name in train]
                for m in ("audio", "imu", "video")
            }
            wave = np.concatenate(loaded["audio"]) / 32768
            series = np.concatenate(loaded["imu"])
            frames = np.stack(loaded["video"]) / 255
            for name, values, axes in (
                ("audio", wave, 0),
                ("imu", series, 0),
                ("video", frames, (0, 2, 3)),
            ):
                stats = store.columns[name].stats[protocol]
                np.testing.assert_allclose(
                    stats["mean"], np.atleast_1d(values.mean(axis=axes)), atol=1e-12
                )
                np.testing.assert_allclose(
                    stats["std"], np.atleast_1d(values.std(axis=axes)), atol=1e-12
                )
        assert store.columns["text"].stats == {}


def test_the_same_inputs_give_the_same_bytes_whatever_the_threads(
    release: Any, tmp_path: Path
) -> None:
    one = release.prepare(workers=1)
    two = release.prepare(workers=3, out=tmp_path / "elsewhere" / "arrays")
    assert one.hash == two.hash
    assert contents(one.path) == contents(two.path)


def test_other_options_or_data_give_another_hash(release: Any) -> None:
    first = release.prepare()
    other = release.prepare(options={"scale": "2"}, overwrite=True)
    np.save(release.root / "video_c000.npy", np.zeros((3, 4, 6), np.uint8))
    changed = release.prepare(overwrite=True)
    assert len({first.hash, other.hash, changed.hash}) == 3


@pytest.mark.parametrize(
    ("moment", "at_most"), [("c000", 23), ("c013", 15), ("c022", 7), ("publish", 0)]
)
def test_killed_at_any_moment_a_rerun_gives_the_same_bytes(
    release: Any, tmp_path: Path, moment: str, at_most: int
) -> None:
    program = """
        import importlib.util, os, signal, sys
        from dataclasses import replace
        from pathlib import Path
        spec = importlib.util.spec_from_file_location("kit", sys.argv[1])
        kit = importlib.util.module_from_spec(spec)
        sys.modules["kit"] = kit
        spec.loader.exec_module(kit)
        release = kit.Release(*map(Path, sys.argv[2:5]))
        moment = sys.argv[5]
        kill = lambda: os.kill(os.getpid(), signal.SIGKILL)
        seen = []
        def decode(source, spec):
            if source.path.name == f"audio_{moment}.npy":
                seen.append(1)
                if len(seen) == 2:  # the first time is the probe's
                    kill()
            return kit.decode(source, spec)
        move = Path.replace
        def replacing(self, target):
            if moment == "publish" and Path(target) == release.out:
                kill()
            return move(self, target)
        Path.replace = replacing
        release.prepare(replace(kit.MEDIA, decode=decode), clips_per_shard=4, workers=1)
    """
    kit = Path(__file__).with_name("conftest.py")
    arguments = [str(kit), str(release.root), str(release.preparer), str(release.out), moment]
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), *arguments], capture_output=True
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert not release.out.exists()
    resumed = release.prepare(clips_per_shard=4)
    assert resumed.report["decoded"] <= at_most
    whole = release.prepare(out=tmp_path / "whole" / "arrays", clips_per_shard=4)
    assert contents(resumed.path) == contents(whole.path)
    assert [path.name for path in release.out.parent.iterdir()] == ["arrays"]


def after_probe(media: MediaRoom, clip: str, action: Callable[[], Any]) -> MediaRoom:
    """Act on the second decoding of a clip's audio: the first one may be the probe's."""
    seen = []

    def decode(source: Any, spec: Any) -> Any:
        if source.path.name == f"audio_{clip}.npy":
            seen.append(1)
            if len(seen) == 2:
                action()
        return media.decode(source, spec)

    return replace(media, decode=decode)


def test_an_interrupt_keeps_finished_shards_and_a_rerun_does_only_the_rest(
    release: Any, media: MediaRoom, tmp_path: Path
) -> None:
    with pytest.raises(StoppedResumable) as caught:
        release.prepare(after_probe(media, "c022", interrupt), workers=1)
    assert "4 of 5 shards finished and kept" in str(caught.value)
    assert "run the same command again" in caught.value.fix
    resumed = release.prepare()
    assert resumed.report["decoded"] == 3
    whole = release.prepare(out=tmp_path / "whole" / "arrays")
    assert contents(resumed.path) == contents(whole.path)


def test_a_changed_file_redoes_only_its_shard(release: Any, media: MediaRoom) -> None:
    with pytest.raises(StoppedResumable):
        release.prepare(after_probe(media, "c022", interrupt), workers=1)
    np.save(release.root / "imu_c007.npy", np.zeros((50, 3), np.float32))
    assert release.prepare().report["decoded"] == 5 + 3


def test_unreadable_clips_are_left_out_with_their_reason(release: Any) -> None:
    (release.root / "video_c004.npy").write_bytes(b"version https://git-lfs")
    (release.root / "audio_c011.npy").unlink()
    result = release.prepare()
    assert result.report["rows"] == 21
    skipped = result.report["skipped"]
    assert {reason: found["ids"] for reason, found in skipped.items()} == {
        "missing": ["c011"],
        "not-media": ["c004"],
    }
    with open_store(result.path) as store:
        assert "c004" not in store.index.ids()
    said = "\n".join(summary_lines(result.report))
    assert "21 of 23 clips stored" in said
    assert "skipped 1 (missing): c011" in said
    assert len(summary_lines(result.report)) < 25


def test_a_clip_may_be_kept_without_the_modality_that_does_not_decode(release: Any) -> None:
    (release.root / "video_c004.npy").write_bytes(b"broken")
    result = release.prepare(missing_modality="keep")
    assert result.report["present"]["video"] == 22
    with open_store(result.path) as store:
        assert store.index.present[4].tolist() == [True, True, True, False]
        assert not store.gather("video", np.array([4]))[0].any()


def test_an_absent_modality_is_marked_and_stored_as_zeros(release: Any) -> None:
    (release.root / "imu_c002.npy").unlink()
    result = release.prepare()
    with open_store(result.path) as store:
        assert store.index.num_rows == 23
        assert store.index.present[2].tolist() == [True, False, True, True]
        _, lengths = store.gather("imu", np.array([2, 1]))
        assert lengths is not None
        assert lengths.tolist() == [0, 6]
    assert "imu is absent from 1 clip" in "\n".join(summary_lines(result.report))


@pytest.mark.parametrize(
    ("modality", "array", "reason"),
    [
        ("imu", np.full((4, 3), np.nan, np.float32), "not-finite"),
        ("imu", np.zeros((4, 2), np.float32), "wrong-shape"),
        ("audio", np.zeros(0, np.int16), "empty"),
        ("video", np.zeros((3, 5, 6), np.uint8), "wrong-shape"),
    ],
)
def test_arrays_that_do_not_fit_are_left_out(
    release: Any, modality: str, array: np.ndarray, reason: str
) -> None:
    np.save(release.root / f"{modality}_c009.npy", array)
    skipped = release.prepare().report["skipped"]
    assert skipped[reason]["ids"] == ["c009"]
    assert modality in skipped[reason]["example"]


def test_what_decoding_finds_odd_is_kept_and_flagged(release: Any, media: MediaRoom) -> None:
    def decode(source: Any, spec: Any) -> Decoded:
        flags = ("silent",) if source.path.stem == "audio_c009" else ()
        return Decoded(media.decode(source, spec).array, MediaFacts(flags=flags))

    report = release.prepare(replace(media, decode=decode)).report
    assert report["flags"]["silent"] == {"count": 1, "ids": ["c009"]}
    assert report["rows"] == 23


def test_too_many_unreadable_clips_fail_and_publish_nothing(release: Any) -> None:
    for i in range(0, 23, 3):
        (release.root / f"audio_c{i:03d}.npy").write_bytes(b"broken")
    with pytest.raises(WorkFailed, match="more than the 10% allowed") as caught:
        release.prepare()
    assert "--max-skipped" in caught.value.fix
    assert not release.out.exists()
    assert release.prepare(max_skipped=0.5).report["rows"] == 15


def test_missing_files_have_a_share_of_their_own(release: Any) -> None:
    for i in range(0, 23, 3):
        (release.root / f"audio_c{i:03d}.npy").unlink()
    with pytest.raises(SourceError, match="have no file, more than the 10% allowed") as caught:
        release.prepare()
    assert "--max-missing 0.35" in caught.value.fix
    assert not release.out.exists()
    report = release.prepare(max_missing=0.35).report
    assert (report["rows"], report["skipped"]["missing"]["count"]) == (15, 8)
    splits = report["skipped"]["missing"]["splits"]["main"]
    assert {name: found["clips"] for name, found in splits.items()} == {
        "train": 5, "val": 2, "test": 1,
    }  # fmt: skip


def test_a_preparer_says_how_much_may_be_missing(release: Any) -> None:
    (release.root / "audio_c011.npy").unlink()
    with release.preparer.open("a") as file:
        file.write("\nMAX_MISSING = 0.0\n")
    with pytest.raises(SourceError, match="more than the 0% allowed"):
        release.prepare()


def test_repeated_ids_follow_the_policy_and_are_reported(release: Any) -> None:
    release.edit_list(lambda text: f"{text}\nc003,0,val,s")
    report = release.prepare().report
    assert (report["clips"], report["rows"]) == (24, 23)
    assert report["skipped"]["duplicate-id"]["ids"] == ["c003"]
    assert release.prepare(duplicates="multi", overwrite=True).report["rows"] == 24


def test_an_official_list_that_leaks_gives_up_the_training_side(release: Any) -> None:
    release.edit_list(lambda text: f"{text}\nc004,0,train,s\nc003,0,train,s")
    with release.preparer.open("a") as file:
        file.write('\nLEAKS = "drop-train"\n')
    report = release.prepare().report
    assert report["rows"] == 23
    with open_store(release.out) as store:
        assert len(store.index.rows("train")) == 15
        assert len(store.index.rows("test")) == 4
    assert "main: also in test" in "\n".join(summary_lines(report))


def test_the_same_sample_in_two_splits_is_a_leak_whatever_its_name(
    release: Any, media: MediaRoom
) -> None:
    def fingerprint(source: Any) -> str:
        return str(source.path.read_bytes())

    for modality in ("audio", "imu", "video"):
        copy = (release.root / f"{modality}_c000.npy").read_bytes()
        (release.root / f"{modality}_c004.npy").write_bytes(copy)
    room = replace(media, fingerprint=fingerprint)
    with pytest.raises(SourceError, match=r"'c004' \(test\) and 'c000' \(train\) hold the same"):
        release.prepare(room)
    assert not release.out.exists()
    assert release.prepare(room, allow_leak=True).report["rows"] == 23
    official = release.preparer.with_name("official.py")
    official.write_text(release.preparer.read_text() + '\nLEAKS = "drop-train"\n')
    report = release.prepare(room, overwrite=True, preparer=str(official)).report
    assert report["removed"]["cross-split-content"]["count"] == 1
    with open_store(release.out) as store:
        assert store.index.ids(store.index.rows("train"))[0] == "c001"


def test_a_wrong_folder_says_what_was_looked_for_and_what_is_there(release: Any) -> None:
    with release.preparer.open("a") as file:
        file.write('\nEDITIONS = {"clips": ("list.txt", "wavs/*.wav")}\n')
    with pytest.raises(SourceError, match="this is not the arrays release") as caught:
        release.prepare()
    assert "looked for clips: list.txt, wavs/*.wav" in caught.value.why
    assert "incomplete arrays: wavs/*.wav missing" in caught.value.why


def test_the_release_may_lie_deeper_and_extra_media_are_counted(release: Any) -> None:
    with release.preparer.open("a") as file:
        file.write('\nEDITIONS = {"clips": ("list.txt",)}\nMEDIA = ("audio_*.npy",)\n')
    (release.root / "audio_extra.npy").touch()
    (release.root / "._audio_c000.npy").touch()
    report = release.prepare(source=release.root.parent).report
    assert (report["rows"], report["unlisted"], report["edition"]) == (23, 1, "clips")


def test_odd_durations_are_flagged(release: Any, media: MediaRoom) -> None:
    def decode(source: Any, spec: Any) -> Decoded:
        seconds = {"audio_c001": 40.0, "video_c002": 3.0}.get(source.path.stem, 2.0)
        timed = source.path.stem.startswith(("audio", "video"))
        facts = MediaFacts(codec="made-up", duration_s=seconds if timed else None)
        return Decoded(media.decode(source, spec).array, facts)

    report = release.prepare(replace(media, decode=decode)).report
    assert report["flags"]["outlier-duration"]["ids"] == ["c001"]
    assert report["flags"]["av-length"]["ids"] == ["c001", "c002"]
    assert report["media"]["audio"] == {"made-up": 23}


def test_a_cap_in_seconds_reaches_sound_but_no_picture(release: Any, media: MediaRoom) -> None:
    ends: dict[str, float | None] = {}

    def decode(source: Any, spec: Any) -> Decoded:
        ends[type(spec).__name__] = source.end_s
        return media.decode(source, spec)

    release.prepare(replace(media, decode=decode), max_seconds=1.5)
    assert ends == {"AudioSpec": 1.5, "FramesSpec": None, "SeriesSpec": None, "TextSpec": None}


def test_when_no_probed_clip_decodes_nothing_is_written(release: Any) -> None:
    for file in release.root.glob("audio_*"):
        file.write_bytes(b"version https://git-lfs")
    with pytest.raises(WorkFailed) as caught:
        release.prepare()
    said = str(caught.value)
    assert "can be decoded" in said
    assert "not-media" in said
    assert list(release.out.parent.iterdir()) == []


def test_a_dry_run_counts_and_writes_nothing(release: Any) -> None:
    (release.root / "audio_c011.npy").unlink()
    result = release.prepare(dry_run=True)
    assert result.hash == ""
    assert result.report["clips"] == 23
    assert result.report["splits"]["main"]["val"] == {"clips": 4, "classes": {"no": 2, "yes": 2}}
    assert result.report["skipped"]["missing"]["count"] == 1
    assert result.report["shared_groups"]["main"] == {"groups": 3, "shared": 3}
    said = "\n".join(summary_lines(result.report))
    assert "22 of 23 clips usable" in said
    assert "skipped 1 (missing): c011" in said
    assert "audio_c011.npy" in said
    assert "3 of 3 groups in train are also in val or test" in said
    assert list(release.out.parent.iterdir()) == []


def test_a_limit_keeps_the_proportions_of_splits(release: Any) -> None:
    result = release.prepare(limit=10)
    assert result.report["rows"] == 10
    splits = result.report["splits"]["main"]
    assert {name: found["clips"] for name, found in splits.items()} == {
        "train": 6,
        "val": 2,
        "test": 2,
    }
    assert release.prepare(limit=10, overwrite=True).hash == result.hash


def test_a_finished_store_is_refused_unless_overwriting(release: Any) -> None:
    first = release.prepare()
    with pytest.raises(RequestError, match="already prepared"):
        release.prepare()
    assert release.prepare(overwrite=True).hash == first.hash


def test_a_failed_replacement_leaves_the_old_store_alone(release: Any) -> None:
    first = release.prepare()
    for file in release.root.glob("audio_*"):
        file.write_bytes(b"broken")
    with pytest.raises(WorkFailed):
        release.prepare(overwrite=True)
    assert verify_store(release.out)["hash"] == first.hash
    assert [path.name for path in release.out.parent.iterdir()] == ["arrays"]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("c003,1,test,s", ["'c003' is in two splits of protocol 'main'", "train", "test"]),
        ("new,2,train,s", ["label 2", "0..1"]),
        ("new,1,tset,s", ["split 'tset'", "did you mean 'test'?"]),
    ],
)
def test_a_faulty_list_is_refused_before_anything_is_decoded(
    release: Any, media: MediaRoom, line: str, expected: list[str]
) -> None:
    def never(*_: Any) -> Any:
        raise AssertionError("decoded")

    release.edit_list(lambda text: f"{text}\n{line}")
    with pytest.raises(SourceError) as caught:
        release.prepare(replace(media, decode=never))
    for part in (*expected, "arrays.py"):
        assert part in str(caught.value)
    assert list(release.out.parent.iterdir()) == []


def test_clips_of_two_splits_may_not_share_a_file(release: Any) -> None:
    text = release.preparer.read_text()
    edited = text.replace(
        'sources["text"]', 'sources["video"] = api.Source(root / "video_c000.npy"); sources["text"]'
    )
    release.preparer.write_text(edited)
    with pytest.raises(SourceError) as caught:
        release.prepare()
    said = str(caught.value)
    assert said.startswith("leak: clips 'c0")
    assert "video_c000.npy" in said
    assert "protocol 'main'" in said
    assert release.prepare(allow_leak=True).report["rows"] == 23


def test_a_broken_finish_names_the_clip_and_keeps_nothing(release: Any) -> None:
    with release.preparer.open("a") as file:
        file.write("\ndef finish(clip, arrays, options):\n    return arrays[clip.id]\n")
    with pytest.raises(WorkFailed, match="KeyError") as caught:
        release.prepare()
    assert "arrays.py" in caught.value.where
    assert list(release.out.parent.iterdir()) == []


def test_finish_changes_arrays_before_features_are_derived(release: Any) -> None:
    with release.preparer.open("a") as file:
        file.write(
            "\ndef finish(clip, arrays, options):\n"
            "    arrays['audio.logmel'][:] = 7\n"
            "    return arrays\n"
        )
    result = release.prepare()
    with open_store(result.path) as store:
        assert (store.gather("audio.logmel", np.arange(23))[0] == 7).all()
        assert store.gather("audio", np.arange(23))[0].std() > 100


def test_progress_ends_complete_and_in_order(release: Any, media: MediaRoom) -> None:
    seen: list[Progress] = []
    prepare(release.request(), seen.append, media=media)
    stages = [progress.stage for progress in seen]
    assert sorted(set(stages), key=stages.index) == [
        "inventory", "probe", "decode", "publish", "verify",
    ]  # fmt: skip
    assert (seen[-1].done, seen[-1].total, seen[-1].skipped) == (23, 23, 0)
    assert seen[-1].clips_per_s > 0


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "may not be written"),
    ],
)
def test_a_disk_that_refuses_is_explained(tmp_path: Path, number: int, expected: str) -> None:
    with pytest.raises(EnvironmentLacks, match=expected) as caught, explained_disk_errors(tmp_path):
        raise OSError(number, os.strerror(number))
    assert "--out" in caught.value.fix


def test_a_destination_below_a_file_is_explained(release: Any, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EnvironmentLacks, match="cannot be written"):
        release.prepare(out=tmp_path / "file" / "store")


def test_a_disk_that_fills_up_keeps_finished_shards(
    release: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mmtool.store.files import HashedFile

    write = HashedFile.write

    def filling(self: HashedFile, data: bytes) -> None:
        if self.path.name == "shard-00003.video.bin":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(self, data)

    monkeypatch.setattr(HashedFile, "write", filling)
    with pytest.raises(EnvironmentLacks, match="the disk is full"):
        release.prepare()
    assert not release.out.exists()
    monkeypatch.undo()
    assert release.prepare().report["decoded"] == 8


def test_a_report_lies_in_the_store(release: Any) -> None:
    result = release.prepare()
    assert json.loads((result.path / "report.json").read_text()) == result.report


def test_identical_content_across_splits_or_labels_is_reported(
    release: Any, media: MediaRoom
) -> None:
    def fingerprint(source: Any) -> str:
        return str(source.text or source.path.read_bytes())

    for other in ("c003", "c005"):
        (release.root / f"video_{other}.npy").write_bytes(
            (release.root / "video_c000.npy").read_bytes()
        )
    result = release.prepare(replace(media, fingerprint=fingerprint))
    assert result.report["identical_content"] == {
        "across_splits": [["c000", "c003", "video"]],
        "across_labels": [["c000", "c003", "video"], ["c000", "c005", "video"]],
    }
    assert "c000 = c003 (video)" in "\n".join(summary_lines(result.report))
