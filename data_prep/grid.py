"""GRID: talkers say sentences of six words, such as "bin blue at f two now"; face and voice.

    mmtool prepare grid --source DIR
    mmtool prepare grid --source DIR -s label=letter

The six letters of a name are the six words: command, colour, preposition, letter, digit (z is zero)
and adverb, as in bbaf2n. Two layouts are read:

    corpus   s1/bbaf2n.mpg, s1/video/bbaf2n.mpg or s1/video/mpg_6000/bbaf2n.mpg, any talkers;
             align/ and sound files beside them are not needed
    lips96   GRID_s1_lips96.zip      mouths of one talker, 96 x 96 pixels, mp4 with sound
             labels_and_splits.csv   id,split,digit

Splits  speaker   whole talkers: a fifth test, a tenth val; the default if there are three or more
        sentence  sentences that begin with the same four words stay together; the splits of the
                  table (lips96), else a fifth test, a tenth val. Talkers are shared.

Columns  audio         wave, 16 kHz
         audio.logmel  40 x 70 (150 of a whole sentence), hop 20 ms; recipes name it in data.columns
         video         `frames` grey pictures, `size` x `size`, at the centres of equal segments
         video.motion  the same minus their mean, doubled, 128 being no change

With the digit as label the voice tells most and the mouth little: the imbalance that balancing
methods are made for, on a thousand clips. Of a sentence the seconds 1.2 to 2.6 are kept, where the
digit is said; `-s whole=true` keeps all three seconds, as do the other labels.

Traps  Some clips have 74 pictures instead of 75, a few have damaged blocks; all decode. Talker 21
       has no pictures in the corpus. The faces are those of real people.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal
from zipfile import BadZipFile, ZipFile

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from mmtool.prepare import api

NAME = "grid"
TITLE = "GRID: six-word sentences, face and voice"
LICENCE = "CC BY 4.0 as stated for Zenodo record 3625687"
SOURCE = "zenodo.org/records/3625687, the archives of the talkers"
CITATION = (
    "M. Cooke, J. Barker, S. Cunningham, X. Shao, An audio-visual corpus for speech perception and "
    "automatic speech recognition, J. Acoust. Soc. Am. 120(5), 2006"
)
ARCHIVE, TABLE = "GRID_s1_lips96.zip", "labels_and_splits.csv"
FOLDERS = ("", "video/", "video/mpg_6000/")
EDITIONS = {
    "lips96": [ARCHIVE, TABLE],
    **{f"corpus {folder}".strip(" /"): [f"s[0-9]*/{folder}*.mpg"] for folder in FOLDERS},
}
MEDIA = [f"s[0-9]*/{folder}*.mpg" for folder in FOLDERS]
MAX_MISSING = 0.0
LEAKS = "refuse"

WORDS = {
    "command": {"b": "bin", "l": "lay", "p": "place", "s": "set"},
    "colour": {"b": "blue", "g": "green", "r": "red", "w": "white"},
    "preposition": {"a": "at", "b": "by", "i": "in", "w": "with"},
    # W is left out: in English its name alone has several syllables.
    "letter": {letter: letter for letter in "abcdefghijklmnopqrstuvxyz"},
    "digit": {"z": "0", **{digit: digit for digit in "123456789"}},
    "adverb": {"a": "again", "n": "now", "p": "please", "s": "soon"},
}
# The digit of nearly every sentence of talker s1 lies in here.
SENTENCE_S, DIGIT_S = (0.0, 3.0), (1.2, 2.6)
HOP_S = 0.02
MOTION, MOTION_GAIN = "video.motion", 2.0
TEST_SHARE, VAL_SHARE = 0.2, 0.1
_NAME = re.compile("".join(f"[{''.join(words)}]" for words in WORDS.values()))


class Options(api.Options):
    """Which word is the label, and what is stored of the sentence."""

    label: Literal["command", "colour", "preposition", "letter", "digit", "adverb"] = "digit"
    """The word to be told."""
    frames: int = Field(14, ge=1)
    """Pictures per clip; the corpus has 25 a second."""
    size: int = Field(32, ge=8)
    """Height and width of the stored pictures."""
    whole: bool = False
    """Keep the whole sentence where the label is the digit."""


def columns(root: Path, options: Options) -> Mapping[str, api.Column]:
    """Wave, log-mel spectrogram, and pictures."""
    del root
    start_s, end_s = _span(options)
    num_frames = round((end_s - start_s) / HOP_S)
    logmel = api.LogMel(num_mels=40, num_frames=num_frames, window=400, hop=round(16_000 * HOP_S))
    size = options.size
    frames = api.FramesSpec(num_frames=options.frames, height=size, width=size, channels=1)
    found = {
        "audio": api.Column("audio", api.AudioSpec()),
        "audio.logmel": api.Column("audio", api.AudioSpec(feature=logmel)),
        "video": api.Column("video", frames),
    }
    return found | {MOTION: api.Column("video", frames)} if options.frames > 1 else found


def classes(root: Path, options: Options) -> Sequence[str]:
    """The words that the label can be."""
    del root
    return list(WORDS[options.label].values())


def clips(root: Path, options: Options) -> Iterable[api.Clip]:
    """Every sentence of every talker."""
    is_lips = api.edition_of(root, EDITIONS) == "lips96"
    found = dict(_lips(root) if is_lips else _corpus(root))
    talkers = {clip_id: clip_id.partition("_")[0] for clip_id in found}
    prefixes = {clip_id: clip_id.partition("_")[2][:4] for clip_id in found}
    protocols = {}
    if len(set(talkers.values())) >= 3:
        protocols["speaker"] = _drawn(talkers, "grid speaker")
    protocols["sentence"] = _official(root) if is_lips else _drawn(prefixes, "grid sentence")
    by_talker = "speaker" in protocols
    position = list(WORDS).index(options.label)
    letters = list(WORDS[options.label])
    start_s, end_s = _span(options)
    for clip_id, place in sorted(found.items()):
        source = api.Source(*place, start_s=start_s, end_s=end_s)
        yield api.Clip(
            id=clip_id,
            label=letters.index(clip_id.partition("_")[2][position]),
            sources={"audio": source, "video": source},
            split={name: splits[clip_id] for name, splits in protocols.items()},
            group=talkers[clip_id] if by_talker else prefixes[clip_id],
        )


def finish(
    clip: api.Clip, arrays: dict[str, NDArray[np.generic]], options: Options
) -> dict[str, NDArray[np.generic]]:
    """Take the mean of a clip's pictures out of each: what stays the same tells the talker."""
    del clip, options
    if MOTION in arrays:
        frames = arrays[MOTION].astype(np.float32)
        change = MOTION_GAIN * (frames - frames.mean(axis=0)) + 128
        arrays[MOTION] = np.clip(np.rint(change), 0, 255).astype(np.uint8)
    return arrays


def _span(options: Options) -> tuple[float, float]:
    return DIGIT_S if options.label == "digit" and not options.whole else SENTENCE_S


def _lips(root: Path) -> Iterator[tuple[str, tuple[Path, str]]]:
    """Give id and place of every clip of the table; the archive may lack some."""
    archive = root / ARCHIVE
    try:
        with ZipFile(archive) as content:
            members = {Path(name).stem: name for name in content.namelist() if _is_clip(name)}
    except BadZipFile as error:
        raise api.SourceError(
            f"{ARCHIVE} is not a whole zip archive",
            where=str(archive),
            why=str(error),
            fix="fetch it again",
        ) from error
    for name in _table(root):
        yield f"s1_{name}", (archive, members.get(name, f"{name}.mp4"))


def _corpus(root: Path) -> Iterator[tuple[str, tuple[Path, None]]]:
    """Give id and place of every video; where a talker's are there twice, the first by name."""
    seen = set()
    for path in sorted(path for pattern in MEDIA for path in root.glob(pattern)):
        clip_id = f"{path.relative_to(root).parts[0]}_{path.stem.lower()}"
        if _NAME.fullmatch(path.stem.lower()) and clip_id not in seen and _is_clip(path.name):
            seen.add(clip_id)
            yield clip_id, (path, None)


def _is_clip(name: str) -> bool:
    return name.endswith((".mp4", ".mpg")) and not Path(name).name.startswith("._")


def _drawn(groups: Mapping[str, str], salt: str) -> dict[str, str]:
    everything = dict.fromkeys(groups, "train")
    tested = api.carve(everything, TEST_SHARE, f"{salt} test", groups=groups, into="test")
    return api.carve(tested, VAL_SHARE / (1 - TEST_SHARE), f"{salt} val", groups=groups)


def _official(root: Path) -> dict[str, str]:
    return {f"s1_{name}": split for name, split in _table(root).items()}


def _table(root: Path) -> dict[str, str]:
    """Give the split of every name, which must say the digit that the table says."""
    splits = {}
    table = api.read_table(root / TABLE)
    for row in table.rows:
        name, digit = row.cells.get("id", ""), row.cells.get("digit")
        if not _NAME.fullmatch(name) or digit not in (None, WORDS["digit"][name[4]]):
            what = f"{name!r} is not the name of a sentence with the digit {digit}"
            raise table.error(row.line, what, "take this file from its source again")
        splits[name] = row.cells.get("split", "")
    return splits
