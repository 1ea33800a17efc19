from pathlib import Path

import pytest

from mmtool.errors import SourceError
from mmtool.prepare.api import Clip
from mmtool.prepare.editions import locate
from mmtool.prepare.loader import load_preparer, parse_options
from mmtool.prepare.pipeline import prepare
from mmtool.prepare.request import PrepareRequest
from mmtool.store.reader import open_store
from mmtool.testing import layouts

PREPARER = load_preparer("meld")
HEADER = (
    "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,"
    "StartTime,EndTime"
)
ROWS = {
    "train": [
        ("also I was the point person", "neutral", "neutral", 0, 0),
        ("No, don’t I beg of you!", "fear", "negative", 0, 1),
        ("corrupt", "anger", "negative", 125, 3),
    ],
    "dev": [
        ("Oh my God, he’s lost it.", "sadness", "negative", 0, 0),
        ("x", "joy", "positive", 110, 7),
    ],
    "test": [
        ("Why do all you’re coffee mugs?", "surprise", "positive", 0, 0),
        ("y", "disgust", "negative", 220, 0),
    ],
}


def table(part: str) -> str:
    lines = [HEADER]
    for number, (text, emotion, sentiment, dialogue, utterance) in enumerate(ROWS[part], start=1):
        lines.append(
            f'{number},"{text}",Ross,{emotion},{sentiment},{dialogue},{utterance},8,21,'
            '"00:16:16,059","00:16:21,731"'
        )
    return "\r\n".join(lines) + "\r\n"


def write(root: Path, *, encoding: str = "utf-8", by_list: bool = False) -> Path:
    for part in ROWS:
        folder = root / part if by_list else root
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{part}_sent_emo.csv").write_bytes(table(part).encode(encoding))
    return root


def read(root: Path, **options: str) -> dict[str, Clip]:
    return {clip.id: clip for clip in PREPARER.clips(root, parse_options(PREPARER, options))}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252"])
def test_tables_are_read_in_any_encoding_of_the_release(tmp_path, encoding):
    clips = read(write(tmp_path, encoding=encoding))

    assert len(clips) == 7
    assert clips["train_dia0_utt1"].sources["text"].text == "No, don’t I beg of you!"
    names = PREPARER.classes(tmp_path, parse_options(PREPARER, {}))
    assert names == tuple(sorted(names))
    assert len(names) == 7
    assert names[clips["train_dia0_utt1"].label] == "fear"


def test_equal_numbers_in_different_lists_are_different_clips(tmp_path):
    clips = read(write(tmp_path))

    found = {name: clip.split["official"] for name, clip in clips.items() if "dia0_utt0" in name}
    assert found == {"train_dia0_utt0": "train", "dev_dia0_utt0": "val", "test_dia0_utt0": "test"}
    assert len({clips[name].group for name in found}) == 3
    assert clips["train_dia0_utt0"].group == clips["train_dia0_utt1"].group


def test_the_sentiment_can_be_the_label(tmp_path):
    clips = read(write(tmp_path), label="sentiment")

    options = parse_options(PREPARER, {"label": "sentiment"})
    assert PREPARER.classes(tmp_path, options) == ("negative", "neutral", "positive")
    assert clips["train_dia0_utt0"].label == 1
    assert clips["dev_dia110_utt7"].label == 2


@pytest.mark.parametrize("nested", [True, False])
def test_videos_are_found_beside_the_tables_or_in_the_folder_of_their_list(tmp_path, nested):
    write(tmp_path, by_list=nested)
    folders = {
        "train": "train_splits",
        "dev": "dev_splits_complete",
        "test": "output_repeated_splits_test",
    }
    for part, name in folders.items():
        place = tmp_path / part / name if nested else tmp_path / name
        place.mkdir(parents=True)
        (place / "dia0_utt0.mp4").touch()

    clips = read(tmp_path)
    assert locate(tmp_path, PREPARER.editions) is not None
    for part in folders:
        source = clips[f"{part}_dia0_utt0"].sources["video"]
        assert source.path.is_file()
        assert source == clips[f"{part}_dia0_utt0"].sources["audio"]
        assert source.end_s == 30.0


def test_clips_that_are_known_to_be_bad_are_named_and_kept_on_demand(tmp_path):
    folder = write(tmp_path) / "train/train_splits"
    folder.mkdir(parents=True)
    (folder / "dia125_utt3.mp4").touch()

    skipped = {name for name, clip in read(tmp_path).items() if clip.skip == "known-bad"}
    assert skipped == {"train_dia125_utt3", "dev_dia110_utt7", "test_dia220_utt0"}
    kept = read(tmp_path, keep_known_bad="true")
    assert {name for name, clip in kept.items() if clip.skip} == {
        "dev_dia110_utt7",
        "test_dia220_utt0",
    }


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("Emotion,", "Emotions,", ["no column Emotion", "train_sent_emo.csv:1"]),
        ("fear", "feer", ["no class 'feer'", "did you mean 'fear'?", "train_sent_emo.csv:3"]),
        (",125,3,", ",125,x,", ["'125', 'x' do not number", "train_sent_emo.csv:4"]),
        (",Ross,fear", ",Ross,,fear", ["12 cells, the header 11", "train_sent_emo.csv:3"]),
    ],
)
def test_a_faulty_table_is_refused_with_its_line(tmp_path, old, new, expected):
    path = write(tmp_path) / "train_sent_emo.csv"
    path.write_text(path.read_text(encoding="utf-8").replace(old, new, 1), encoding="utf-8")

    with pytest.raises(SourceError) as caught:
        read(tmp_path)
    for part in expected:
        assert part in str(caught.value)


def test_a_table_without_lines_is_refused(tmp_path):
    (write(tmp_path) / "dev_sent_emo.csv").write_bytes(b"\r\n")

    with pytest.raises(SourceError, match=r"dev_sent_emo.csv is empty"):
        read(tmp_path)


def test_a_release_of_real_media_becomes_a_store(tmp_path):
    try:
        truth = layouts.write_meld(
            tmp_path / "MELD.Raw",
            15,
            seconds=0.7,
            bad=("truncated", "missing", "unlisted", "cp1252"),
        )
    except RuntimeError as error:
        pytest.skip(str(error))

    made = prepare(
        PrepareRequest("meld", tmp_path / "MELD.Raw", tmp_path / "store", options={"frames": "1"}),
        lambda _: None,
    )

    good = {name.replace("/", "_") for name in truth.label} - {
        "train_dia125_utt3",
        "dev_dia110_utt7",
    }
    with open_store(made.path) as store:
        assert set(store.index.ids()) == good
        assert store.columns["audio"].rate_hz == 16_000
        assert store.columns["text"].kind == "tokens"
