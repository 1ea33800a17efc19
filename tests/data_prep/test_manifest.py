import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmtool.errors import SourceError
from mmtool.prepare.api import AudioSpec, Clip, Column, FramesSpec, SeriesSpec, TextSpec
from mmtool.prepare.loader import load_preparer, parse_options
from mmtool.prepare.pipeline import prepare
from mmtool.prepare.request import PrepareRequest
from mmtool.prepare.summary import summary_lines
from mmtool.prepare.verify import verify_store
from mmtool.store.reader import open_store

PREPARER = load_preparer("manifest")


def table(folder: Path, text: str, *, make_files: bool = True) -> Path:
    path = folder / "manifest.csv"
    path.write_text(textwrap.dedent(text).lstrip(), encoding="utf-8")
    if make_files:
        for cell in text.replace("\n", ",").split(","):
            name = cell.strip()
            if "." in name and " " not in name:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).touch()
    return path


def read(path: Path, **options: str) -> tuple[dict[str, Column], list[str], dict[str, Clip]]:
    parsed = parse_options(PREPARER, options)
    columns = dict(PREPARER.columns(path, parsed))
    clips = {clip.id: clip for clip in PREPARER.clips(path, parsed)}
    return columns, list(PREPARER.classes(path, parsed)), clips


def refusal(path: Path, **options: str) -> str:
    with pytest.raises(SourceError) as caught:
        read(path, **options)
    return str(caught.value)


def test_every_column_becomes_a_modality_of_the_kind_its_files_have(tmp_path: Path) -> None:
    path = table(
        tmp_path,
        """
        id,label,split,audio,video,face,imu,text
        a,cat,train,x/a.wav,x/a.mp4,a.png,a.npy,hello there
        b,dog,test,x/b.wav,x/b.avi,b.JPG,b.csv,b.txt
        """,
    )
    columns, classes, clips = read(path, num_frames="3", height="8", width="9", channels="1")
    assert columns["audio"].spec == AudioSpec(16_000)
    assert columns["video"].spec == FramesSpec(3, 8, 9, 1)
    assert columns["face"].spec == FramesSpec(1, 8, 9, 1)
    assert columns["imu"].spec == SeriesSpec()
    assert columns["text"].spec == TextSpec()
    assert classes == ["cat", "dog"]
    assert clips["a"].sources["audio"].path == tmp_path / "x/a.wav"
    assert clips["a"].sources["text"].text == "hello there"
    assert clips["b"].sources["text"].path == tmp_path / "b.txt"
    assert clips["b"].sources["text"].text is None
    assert (clips["b"].label, clips["b"].split) == (1, {"manifest": "test"})


def test_an_empty_cell_leaves_the_modality_out(tmp_path: Path) -> None:
    path = table(tmp_path, "id,label,audio,video\na,0,a.wav,\nb,1,b.wav,b.mp4\n")
    assert set(read(path)[2]["a"].sources) == {"audio"}


def test_a_header_may_say_path_and_the_source_may_be_the_folder(tmp_path: Path) -> None:
    table(tmp_path, "id,label,audio=path\na,0,a.wav\n")
    assert set(read(tmp_path)[0]) == {"audio"}


def test_whole_numbers_sort_by_value_and_other_labels_by_name(tmp_path: Path) -> None:
    numbers = table(tmp_path, "id,label,audio\na,10,a.wav\nb,9,b.wav\nc,-1,c.wav\n")
    assert read(numbers)[1] == ["-1", "9", "10"]
    words = table(tmp_path, "id,label,audio\na,10,a.wav\nb,9,b.wav\nc,x,c.wav\n")
    assert read(words)[1] == ["10", "9", "x"]


def test_sound_becomes_a_spectrogram_as_long_as_the_longest_sound(tmp_path: Path) -> None:
    path = table(tmp_path, "id,label,audio\na,0,a.wav\n")
    spec: Any = read(path, num_mels="32", max_seconds="2.0", rate_hz="8000")[0]["audio"].spec
    assert (spec.feature.num_mels, spec.feature.num_frames) == (32, 100)


def test_the_sound_of_a_video_can_be_a_modality(tmp_path: Path) -> None:
    path = table(tmp_path, "id,label,video\na,0,a.mp4\nb,1,b.mp4\n")
    columns, _, clips = read(path, audio_from="video")
    assert isinstance(columns["audio"].spec, AudioSpec)
    assert clips["b"].sources["audio"] == clips["b"].sources["video"]
    said = refusal(path, audio_from="vidoe")
    assert "audio_from = 'vidoe'" in said
    assert "did you mean 'video'?" in said


def many(folder: Path, header: str, num_clips: int = 60) -> Path:
    lines = [header]
    for i in range(num_clips):
        cells = {"id": f"c{i}", "label": str(i % 3), "group": f"g{i % 12}", "audio": "same.wav"}
        cells["split"] = "test" if i % 6 == 0 else "train"
        lines.append(",".join(cells[name] for name in header.split(",")))
    (folder / "same.wav").touch()
    return table(folder, "\n".join(lines) + "\n", make_files=False)


def counts(clips: dict[str, Clip]) -> dict[str, int]:
    splits = [clip.split["manifest"] for clip in clips.values()]
    return {split: splits.count(split) for split in ("train", "val", "test")}


def test_splits_are_drawn_evenly_over_labels_and_always_the_same(tmp_path: Path) -> None:
    path = many(tmp_path, "id,label,audio")
    clips = read(path)[2]
    assert counts(clips) == {"train": 43, "val": 5, "test": 12}
    by_label = [c.label for c in clips.values() if c.split["manifest"] == "test"]
    assert [by_label.count(label) for label in range(3)] == [4, 4, 4]
    assert read(path)[2] == clips
    assert read(path, seed="1")[2] != clips


def test_drawn_splits_share_no_group(tmp_path: Path) -> None:
    clips = read(many(tmp_path, "id,label,group,audio"))[2]
    assert min(counts(clips).values()) >= 5
    groups: dict[str, set[str]] = {}
    for clip in clips.values():
        groups.setdefault(clip.group, set()).add(clip.split["manifest"])
    assert all(len(splits) == 1 for splits in groups.values())


def test_a_missing_val_split_comes_out_of_train_and_leaves_test_alone(tmp_path: Path) -> None:
    clips = read(many(tmp_path, "id,label,split,audio"))[2]
    assert counts(clips) == {"train": 45, "val": 5, "test": 10}
    assert counts(read(tmp_path, val_fraction="0")[2])["val"] == 0


@pytest.mark.parametrize(
    ("text", "line", "expected"),
    [
        ("", 1, ["the CSV is empty", "id,label"]),
        ("id,label,audio\n", 1, ["lists no clips"]),
        ("id,audio\na,a.wav\n", 1, ["no column 'label'", "header"]),
        ("id,labels,audio\na,0,a.wav\n", 1, ["rename the column 'labels' to 'label'"]),
        ("id,label\na,0\n", 1, ["no modality"]),
        ("id,label,audio,audio\na,0,a.wav,a.wav\n", 1, ["'audio' is named twice"]),
        ("id,label,audio\na,0,a.wav\na,0,b.wav\n", 3, ["'a' is on line 2 and on line 3"]),
        (
            "id,label,split,audio\na,0,train,a.wav\n\na,0,test,b.wav\n",
            4,
            ["line 2 and on line 4", "two splits: train and test", "tested on what it was"],
        ),
        ("id,label,split,audio\na,0,tset,a.wav\n", 2, ["split 'tset'", "did you mean 'test'?"]),
        ("id,label,split,audio\na,0,validation,a.wav\n", 2, ["did you mean 'val'?"]),
        ("id,label,audio\na,,a.wav\n", 2, ["line 2 has no label"]),
        ("id,label,audio\na,0,\n", 2, ["'a' has no file at all"]),
        ("id,label,audio\na,0,a.wav,b.wav\n", 2, ["4 cells, the header 3", "quotes"]),
        ('id,label,audio\na,0,"a.wav\n', 3, ["the CSV is broken"]),
        ("id,label,x\na,0,a.wav\nb,0,b.mp4\n", 3, ["'x' mixes audio on line 2 (a.wav), video"]),
        ("id,label,x\na,0,a.xyz\n", 2, ["'a.xyz'", "no kind of file", "wav"]),
        ("id,value,audio\na,1.5,a.wav\nb,much,b.wav\n", 3, ["value 'much' is not a number"]),
        ("id,value,audio\na,nan,a.wav\n", 2, ["value 'nan' is not a number"]),
        ("id,label,value,audio\na,,1.0,a.wav\n", 2, ["line 2 has no label"]),
    ],
)
def test_a_faulty_csv_is_refused_with_its_line(
    tmp_path: Path, text: str, line: int, expected: list[str]
) -> None:
    path = table(tmp_path, text)
    said = refusal(path)
    for part in (*expected, f"manifest.csv:{line}"):
        assert part in said


def test_missing_files_are_counted_and_the_first_ones_named(tmp_path: Path) -> None:
    rows = "".join(f"c{i},0,c{i}.wav,word\n" for i in range(9))
    path = table(tmp_path, f"id,label,audio,text\n{rows}x,0,,notes/x.txt\n", make_files=False)
    (tmp_path / "c0.wav").touch()
    said = refusal(path)
    assert "9 of the 10 files listed do not exist" in said
    assert "line 3: c1.wav" in said
    assert "and 4 more" in said
    assert str(tmp_path) in said
    assert len(read(path, allow_missing="true")[2]) == 10


def test_another_encoding_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_bytes("id,label,audio\na,0,a.wav\nb,Café,b.wav\n".encode("latin-1"))
    said = refusal(path)
    assert "not UTF-8" in said
    assert "mine.csv:3" in said


def test_a_folder_without_the_csv_is_refused(tmp_path: Path) -> None:
    assert "no manifest.csv" in refusal(tmp_path)


def test_a_byte_order_mark_and_windows_line_ends_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "manifest.csv"
    path.write_bytes(b"\xef\xbb\xbfid,label,imu\r\na,0,a.npy\r\n")
    np.save(tmp_path / "a.npy", np.zeros((2, 3)))
    assert read(path)[1] == ["0"]


def test_a_value_column_holds_numbers_and_may_have_gaps(tmp_path: Path) -> None:
    path = table(
        tmp_path, "id,label,value,audio\na,low,-1.5,a.wav\nb,high,2e0,b.wav\nc,low,,c.wav\n"
    )
    columns, classes, clips = read(path)
    assert set(columns) == {"audio"}
    assert classes == ["high", "low"]
    assert [clips[name].value for name in "abc"] == [-1.5, 2.0, None]


def test_values_need_no_labels(tmp_path: Path) -> None:
    path = table(tmp_path, "id,value,audio\na,0.25,a.wav\nb,-3,b.wav\n")
    _, classes, clips = read(path)
    assert classes == ["unlabelled"]
    assert [(clip.label, clip.value) for clip in clips.values()] == [(0, 0.25), (0, -3.0)]


def test_a_label_cell_is_one_class_unless_a_separator_is_named(tmp_path: Path) -> None:
    path = table(tmp_path, "id,label,audio\na,dog|bark,a.wav\nb,dog,b.wav\nc,,c.wav\n")
    assert "line 4 has no label" in refusal(path)
    _, classes, clips = read(path, label_separator="|")
    assert classes == ["bark", "dog"]
    assert [clips[name].labels for name in "abc"] == [(0, 1), (1,), ()]
    assert {clip.label for clip in clips.values()} == {-1}
    plain = table(tmp_path, "id,label,audio\na,dog|bark,a.wav\nb,dog,b.wav\n")
    assert read(plain)[1] == ["dog", "dog|bark"]
    assert read(plain)[2]["a"].labels is None


@pytest.mark.parametrize("cell", ["dog|", "dog||bark", "dog|dog", "|"])
def test_an_empty_or_repeated_class_is_refused_with_its_line(tmp_path: Path, cell: str) -> None:
    path = table(tmp_path, f"id,label,audio\na,cat,a.wav\nb,{cell},b.wav\n")
    said = refusal(path, label_separator="|")
    assert "an empty or a repeated class" in said
    assert "manifest.csv:3" in said


def test_a_separator_needs_labels(tmp_path: Path) -> None:
    path = table(tmp_path, "id,value,audio\na,1,a.wav\n")
    assert "no column 'label'" in refusal(path, label_separator="|")


def prepared(tmp_path: Path, text: str, **options: str) -> tuple[Any, list[str]]:
    path = table(tmp_path, text, make_files=False)
    for number, name in enumerate("abcdef"):
        np.save(tmp_path / f"{name}.npy", np.full((4, 2), number, np.float32))
    request = PrepareRequest("manifest", path, tmp_path / "store", options=options, workers=1)
    made = prepare(request, lambda _: None)
    assert verify_store(made.path)["rows"] == 6
    return open_store(made.path), summary_lines(made.report)


def test_several_classes_are_prepared_verified_and_summarised(tmp_path: Path) -> None:
    rows = zip("abcdef", ("dog|bark", "dog", "", "cat", "cat|dog", "bark"), strict=True)
    splits = ("train", "train", "train", "val", "test", "train")
    lines = [f"{n},{label},{s},{n}.npy" for (n, label), s in zip(rows, splits, strict=True)]
    text = "\n".join(["id,label,split,imu", *lines]) + "\n"
    store, said = prepared(tmp_path, text, label_separator="|")
    with store:
        assert store.index.label_sets(np.arange(6)) == [[0, 2], [2], [], [1], [1, 2], [0]]
    assert "3 classes, any number for a clip" in said[0]
    assert any("train 4, val 1, test 1" in line for line in said)
    assert any("val has classes that train lacks: cat" in line for line in said)


def test_values_are_prepared_and_summarised_by_their_spread(tmp_path: Path) -> None:
    values = ("-1.5", "2", "", "0.5", "1", "0")
    splits = ("train", "train", "train", "val", "test", "train")
    lines = [f"{n},{v},{s},{n}.npy" for n, v, s in zip("abcdef", values, splits, strict=True)]
    text = "\n".join(["id,value,split,imu", *lines]) + "\n"
    store, said = prepared(tmp_path, text)
    with store:
        np.testing.assert_allclose(store.index.value, [-1.5, 2, np.nan, 0.5, 1, 0])
    assert any("values: train -1.5 to 2 (mean 0.167, 3 clips), val 0.5" in line for line in said)
