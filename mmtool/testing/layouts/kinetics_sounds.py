"""Kinetics-Sounds: 31 classes of Kinetics-400, in the lists of the balance literature.

my_train.txt       ytid_000132_000142,10,index      CR LF
my_test.txt        ytid_2,10,index
<ytid>_000132_000142.mp4  playing guitar/<ytid>.mp4  playing_guitar/<ytid>_000132_000142.mp4
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from mmtool.testing.layouts.crawled import (
    FILE_TRAPS,
    Cues,
    Style,
    Wanted,
    defects_of,
    write_clips,
    youtube_ids,
)
from mmtool.testing.layouts.encode import require_tools
from mmtool.testing.layouts.truth import Defect, Truth, chosen_traps

CLASSES = (
    "blowing nose", "blowing out candles", "bowling", "chopping wood", "dribbling basketball",
    "laughing", "mowing lawn", "playing accordion", "playing bagpipes", "playing bass guitar",
    "playing clarinet", "playing drums", "playing guitar", "playing harmonica", "playing keyboard",
    "playing organ", "playing piano", "playing saxophone", "playing trombone", "playing trumpet",
    "playing violin", "playing xylophone", "ripping paper", "shoveling snow", "shuffling cards",
    "singing", "stomping grapes", "tap dancing", "tapping guitar", "tapping pen", "tickling",
)  # fmt: skip
TRAPS = (*FILE_TRAPS, "two-starts")
"""`two-starts` adds a second file of the same video that begins at another second, unlisted."""


def write_kinetics_sounds(
    root: Path,
    clips: int = 24,
    *,
    seed: int = 0,
    bad: bool | Iterable[str] = True,
    num_classes: int = 4,
    seconds: float = 4.0,
    cues: Cues = Cues(),  # noqa: B008 -- frozen
) -> Truth:
    """Write `clips` sound clips and one more per trap; ids are those of the lists.

    A quarter of the clips is for test. Files are named in four ways in turn: flat, in a folder of
    the label with blanks, with underscores, and by the id of the video alone.
    """
    require_tools()
    traps = chosen_traps(bad, TRAPS)
    file_traps = [kind for kind in FILE_TRAPS if kind in traps]
    videos = youtube_ids(clips + len(file_traps), np.random.default_rng([seed, 31]))
    wanted: list[Wanted] = []
    ids: dict[str, list[str]] = {"train": [], "test": []}
    for place, video in enumerate(videos):
        index = place % num_classes
        start = (place * 37) % 300
        defect = file_traps[place - clips] if place >= clips else ""
        split = "test" if (place // num_classes) % 4 == 1 and not defect else "train"
        name = f"{video}_{start:06d}_{start + 10:06d}" if split == "train" else f"{video}_{start}"
        ids[split].append(name)
        path = _path(root, place // num_classes, video, start, CLASSES[index])
        wanted.append(Wanted(name, path, index, defect))
    defects = list(defects_of(wanted))
    label = {one.id: CLASSES[one.index] for one in wanted}
    second = Wanted("", root / f"{videos[0]}_000777_000787.mp4", num_classes - 1)
    if "two-starts" in traps:
        defects.append(Defect("two-starts", wanted[0].id, second.path))
    extra = [second] if "two-starts" in traps else []
    fps = write_clips([*wanted, *extra], Style(num_classes, seconds, seed, cues))
    fps.pop("", None)
    for split, names in ids.items():
        rows = [f"{name},10,{CLASSES.index(label[name])}\r\n" for name in names]
        (root / f"my_{split}.txt").write_bytes("".join(rows).encode())
    return Truth(
        root,
        CLASSES,
        {("ogm-ge", split): tuple(names) for split, names in ids.items()},
        label,
        tuple(defects),
        fps,
        dict.fromkeys(fps, seconds),
        {one.id: one.id[:11] for one in wanted},
    )


def _path(root: Path, way: int, video: str, start: int, label: str) -> Path:
    full = f"{video}_{start:06d}_{start + 10:06d}.mp4"
    ways = (
        root / full,
        root / label / full,
        root / label.replace(" ", "_") / full,
        root / f"{video}.mp4",
    )
    return ways[way % len(ways)]
