"""MELD: 13,708 utterances of the series Friends, seen, heard and read, with seven emotions.

    mmtool prepare meld --source MELD.Raw

    MELD.Raw/
        train_sent_emo.csv  dev_sent_emo.csv  test_sent_emo.csv      here or in train/ dev/ test/
        train/train_splits/dia0_utt0.mp4                             or right below MELD.Raw
        dev/dev_splits_complete/dia0_utt0.mp4
        test/output_repeated_splits_test/dia0_utt0.mp4

The label is the emotion, or the sentiment with `-s label=sentiment`; classes are sorted by name.
Numbers of dialogues begin anew in each list, so a clip is named by list, dialogue and utterance.

Splits  official  the authors' train, dev (as val) and test. Dialogues are in one of them; the six
                  friends speak in all three, as the set was made: the group is the dialogue.

Columns  audio  audio.logmel (64 x 400, the first eight seconds)  video  text

Traps  Tables are cp1252 in some copies, with typographic quotes. One train video is corrupt and one
       dev video was never published; three more are cut wrongly, two of them minutes long. They are
       skipped as `known-bad` (`-s keep_known_bad=true` keeps those that exist), and nothing is read
       beyond `max_seconds`. About 200 large train videos have disturbed sound, and text and video
       drift apart in dia241, dia485 and dia757: kept, because nobody listed them all. Videos in no
       table, such as final_videos_testdia101_utt0, are ignored and counted as unlisted.
       Neutral is nearly half of it: read the balanced accuracy too. Many clips have six channels of
       sound, which are mixed down.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import Field

from mmtool.prepare import api

NAME = "meld"
TITLE = "MELD: emotions in multi-party conversations of a television series"
LICENCE = "annotations: GPL-3.0; clips are copyrighted television"
SOURCE = "MELD.Raw.tar.gz, linked from github.com/declare-lab/MELD"
CITATION = (
    "S. Poria, D. Hazarika, N. Majumder, G. Naik, E. Cambria, R. Mihalcea, MELD: A multimodal "
    "multi-party dataset for emotion recognition in conversations, ACL 2019"
)
TABLES = {name: f"{name}_sent_emo.csv" for name in ("train", "dev", "test")}
EDITIONS = {
    "MELD.Raw": list(TABLES.values()),
    "MELD.Raw, train unpacked": [
        "train/train_sent_emo.csv",
        "dev_sent_emo.csv",
        "test_sent_emo.csv",
    ],
    "MELD.Raw by list": [f"{name}/{table}" for name, table in TABLES.items()],
}
MEDIA = ["**/*.mp4"]
MAX_MISSING = 0.0

SPLITS = {"train": "train", "dev": "val", "test": "test"}
FOLDERS = {
    "train": "train_splits",
    "dev": "dev_splits_complete",
    "test": "output_repeated_splits_test",
}
CLASSES = {
    "emotion": ("anger", "disgust", "fear", "joy", "neutral", "sadness", "surprise"),
    "sentiment": ("negative", "neutral", "positive"),
}
# Issues 9, 20, 22, 27 and 39 of the repository: corrupt, never published, and cut wrongly.
KNOWN_BAD = frozenset(
    {"train_dia125_utt3", "dev_dia110_utt7"}
    | {"train_dia309_utt0", "test_dia220_utt0", "test_dia38_utt4"}
)


class Options(api.SpeechOptions):
    """What the label is, and what is stored."""

    label: Literal["emotion", "sentiment"] = "emotion"
    keep_known_bad: bool = False
    """Keep the clips that are known to be damaged or cut wrongly."""
    max_seconds: float = Field(30.0, gt=0.0)
    """Sound and pictures after so many seconds are not read."""


class Row(NamedTuple):
    """An utterance of a table."""

    part: str
    name: str
    dialogue: str
    label: str
    text: str
    table: Path
    line: int


def columns(root: Path, options: Options) -> Mapping[str, api.Column]:
    """Wave and spectrogram, pictures, and what is said."""
    del root
    specs = api.speech_specs(options, seconds=8)
    return {name: api.Column(name.partition(".")[0], spec) for name, spec in specs.items()}


def classes(root: Path, options: Options) -> Sequence[str]:
    """The emotions or the sentiments, sorted by name."""
    del root
    return CLASSES[options.label]


def clips(root: Path, options: Options) -> Iterable[api.Clip]:
    """Every row of the three tables."""
    names = CLASSES[options.label]
    folders = {part: _folder(root, part) for part in TABLES}
    for row in _rows(root, options.label):
        name = f"{row.part}_{row.name}"
        path = folders[row.part] / f"{row.name}.mp4"
        source = api.Source(path, end_s=options.max_seconds)
        is_bad = name in KNOWN_BAD and not (options.keep_known_bad and path.exists())
        yield api.Clip(
            id=name,
            label=api.label_of(row.label, names, f"{row.table}:{row.line}"),
            sources={
                "audio": source,
                "video": source,
                "text": api.Source(row.table, text=row.text),
            },
            split={"official": SPLITS[row.part]},
            group=f"{row.part}_{row.dialogue}",
            skip="known-bad" if is_bad else "",
        )


def _rows(root: Path, label: str) -> Iterator[Row]:
    wanted = label.capitalize()
    for part, name in TABLES.items():
        path = next((p for p in (root / name, root / part / name) if p.is_file()), root / name)
        for line, cells in api.read_records(
            path, ("Utterance", wanted, "Dialogue_ID", "Utterance_ID")
        ):
            dialogue, utterance = cells["Dialogue_ID"], cells["Utterance_ID"]
            if not (dialogue.isdecimal() and utterance.isdecimal()):
                raise api.SourceError(
                    f"{dialogue!r}, {utterance!r} do not number a dialogue and an utterance",
                    where=f"{path}:{line}",
                    fix="take this file from the release again",
                )
            clip = f"dia{int(dialogue)}_utt{int(utterance)}"
            yield Row(
                part,
                clip,
                f"dia{int(dialogue)}",
                cells[wanted].lower(),
                cells["Utterance"],
                path,
                line,
            )


def _folder(root: Path, part: str) -> Path:
    name = FOLDERS[part]
    return next((f for f in (root / part / name, root / name) if f.is_dir()), root / part / name)
