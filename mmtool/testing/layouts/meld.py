"""MELD: dialogues of a television series in seven emotions.

train_sent_emo.csv  dev_sent_emo.csv  test_sent_emo.csv      cp1252 quotes
train/train_splits/dia0_utt0.mp4
dev/dev_splits_complete/dia0_utt0.mp4
test/output_repeated_splits_test/dia0_utt0.mp4
"""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from mmtool.testing.layouts import damage
from mmtool.testing.layouts.crawled import Cues, Style, Wanted, defects_of, write_clips
from mmtool.testing.layouts.encode import require_tools
from mmtool.testing.layouts.truth import Defect, Truth, chosen_traps

CLASSES = ("neutral", "surprise", "fear", "sadness", "joy", "disgust", "anger")
FOLDERS = {
    "train": "train/train_splits",
    "dev": "dev/dev_splits_complete",
    "test": "test/output_repeated_splits_test",
}
TRAPS = (
    "truncated", "missing", "unlisted", "final-videos", "apple-double", "outlier-duration",
    "no-audio", "cp1252",
)  # fmt: skip
"""The places are those of the real release: train dia125_utt3 is corrupt, dev dia110_utt7 missing,
dev dia49_utt4 and test final_videos_testdia101_utt0 unlisted, test dia38_utt4 too long."""
_COLUMNS = (
    "Sr No.", "Utterance", "Speaker", "Emotion", "Sentiment", "Dialogue_ID", "Utterance_ID",
    "Season", "Episode", "StartTime", "EndTime",
)  # fmt: skip
_SENTIMENTS = {"neutral": "neutral", "joy": "positive", "surprise": "positive"}
_SPLITS = ("train", "dev", "train", "test")
_SPEAKERS = ("Rachel", "Ross", "Monica", "Joey")
_PLACED = {
    "truncated": ("train", 125, 3),
    "missing": ("dev", 110, 7),
    "outlier-duration": ("test", 38, 4),
    "no-audio": ("train", 793, 0),
}


@dataclass(frozen=True, slots=True)
class _Utterance:
    split: str
    dialogue: int
    number: int
    index: int
    defect: str = ""

    @property
    def name(self) -> str:
        return f"dia{self.dialogue}_utt{self.number}"

    @property
    def key(self) -> str:
        return f"{self.split}/{self.name}"


def write_meld(
    root: Path,
    clips: int = 24,
    *,
    seed: int = 0,
    bad: bool | Iterable[str] = True,
    seconds: float = 1.5,
    cues: Cues = Cues(),  # noqa: B008 -- frozen
) -> Truth:
    """Write `root` as MELD.Raw with `clips` sound clips, and one more per trap that needs one.

    Ids are `split/dia0_utt0`, since numbers begin anew in each split; the middle split is called
    `val` in `Truth.ids` and `dev` in ids. Sound is 5.1 AAC.
    """
    require_tools()
    traps = chosen_traps(bad, TRAPS)
    turns: dict[str, int] = dict.fromkeys(FOLDERS, 0)
    rows = []
    for place in range(clips):
        split = _SPLITS[place % len(_SPLITS)]
        dialogue, number = divmod(turns[split], 4)
        turns[split] += 1
        rows.append(_Utterance(split, dialogue, number, place % len(CLASSES)))
    for kind, (split, dialogue, number) in _PLACED.items():
        if kind in traps:
            rows.append(_Utterance(split, dialogue, number, dialogue % len(CLASSES), kind))
    wanted = [
        Wanted(row.key, root / FOLDERS[row.split] / f"{row.name}.mp4", row.index, row.defect)
        for row in rows
    ]
    style = Style(len(CLASSES), seconds, seed, cues, num_channels=6)
    short = [one for one in wanted if one.defect != "outlier-duration"]
    fps = write_clips(short, style)
    _write_long([one for one in wanted if one.defect == "outlier-duration"], seed, cues, fps)
    defects = [*defects_of(wanted), *_plant(root, traps, wanted[0])]
    for split in FOLDERS:
        _write_table(root, split, [row for row in rows if row.split == split], traps)
    lengths = {one.id: 61.0 if one.defect == "outlier-duration" else seconds for one in wanted}
    named = {"train": "train", "val": "dev", "test": "test"}
    return Truth(
        root,
        CLASSES,
        {
            ("official", split): tuple(row.key for row in rows if row.split == written)
            for split, written in named.items()
        },
        {row.key: CLASSES[row.index] for row in rows},
        tuple(defects),
        fps,
        lengths,
        {row.key: f"{row.split}/dia{row.dialogue}" for row in rows},
    )


def _write_long(wanted: Sequence[Wanted], seed: int, cues: Cues, fps: dict[str, Fraction]) -> None:
    style = Style(
        len(CLASSES),
        61.0,
        seed,
        cues,
        1,
        rates=(Fraction(1),),
        sizes=((64, 48),),
        sound_rate_hz=16_000,
    )
    fps.update(write_clips(wanted, style))


def _plant(root: Path, traps: frozenset[str], good: Wanted) -> list[Defect]:
    dev, test = root / FOLDERS["dev"], root / FOLDERS["test"]
    copies = {
        "unlisted": dev / "dia49_utt4.mp4",
        "final-videos": test / "final_videos_testdia101_utt0.mp4",
    }
    defects = []
    for kind in sorted(traps & set(copies)):
        copies[kind].parent.mkdir(parents=True, exist_ok=True)
        copies[kind].write_bytes(good.path.read_bytes())
        defects.append(Defect(kind, "", copies[kind]))
    if "apple-double" in traps:
        defects.append(Defect("apple-double", "", damage.apple_double(test / "dia0_utt0.mp4")))
    if "cp1252" in traps:
        defects.append(Defect("cp1252", "", root / "train_sent_emo.csv"))
    return defects


def _write_table(root: Path, split: str, rows: Sequence[_Utterance], traps: frozenset[str]) -> None:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\r\n")
    table.writerow(_COLUMNS)
    for number, row in enumerate(rows, start=1):
        emotion = CLASSES[row.index]
        apostrophe = "’" if "cp1252" in traps else "'"
        said = f'It{apostrophe}s {emotion}, I said "no" in line {number}'
        times = (f"00:{row.dialogue % 60:02d}:16,059", f"00:{row.dialogue % 60:02d}:17,559")
        speaker = _SPEAKERS[row.number % len(_SPEAKERS)]
        sentiment = _SENTIMENTS.get(emotion, "negative")
        where = (row.dialogue, row.number, 8, 21)
        table.writerow((number, said, speaker, emotion, sentiment, *where, *times))
    content = text.getvalue().encode("cp1252")
    root.mkdir(parents=True, exist_ok=True)
    (root / f"{split}_sent_emo.csv").write_bytes(content)
