"""VGGSound: ten-second clips of YouTube videos.

vggsound.csv                 ytid,start,label,train|test; no header
video/<ytid>_000034.mp4      or <ytid>_34.mp4
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
    "train horning",
    "playing violin, fiddle",
    "people marching",
    "male speech, man speaking",
    "dog barking",
    "train whistling",
    "mosquito buzzing",
    "female speech, woman speaking",
)
LIST_TRAPS = ("two-starts", "cross-split-video")
"""A second clip of the same video: in train again, or in train while the first is in test."""
TRAPS = (*FILE_TRAPS, *LIST_TRAPS)


def write_vggsound(
    root: Path,
    clips: int = 24,
    *,
    seed: int = 0,
    bad: bool | Iterable[str] = True,
    num_classes: int = 4,
    seconds: float = 4.0,
    cues: Cues = Cues(),  # noqa: B008 -- frozen
) -> Truth:
    """Write `clips` sound clips and one more per trap; ids are `<ytid>_<start:06d>`.

    A quarter is for test. Labels hold commas and the words train and test; half of the files write
    the start without leading zeros.
    """
    require_tools()
    traps = chosen_traps(bad, TRAPS)
    file_traps = [kind for kind in FILE_TRAPS if kind in traps]
    videos = youtube_ids(clips + len(file_traps), np.random.default_rng([seed, 309]))
    rows: list[tuple[str, int, int, str, str]] = []
    for place, video in enumerate(videos):
        defect = file_traps[place - clips] if place >= clips else ""
        split = "test" if (place // num_classes) % 4 == 1 and not defect else "train"
        rows.append((video, (place * 37) % 300, place % num_classes, split, defect))
    defects = []
    first_of = {"two-starts": rows[0], "cross-split-video": next(r for r in rows if r[3] == "test")}
    for kind in LIST_TRAPS:
        if kind in traps:
            video, start, index, _, _ = first_of[kind]
            rows.append((video, start + 182, index, "train", ""))
            defects.append(Defect(kind, f"{video}_{start + 182:06d}", root / "vggsound.csv"))
    wanted = []
    for place, (video, start, index, _, defect) in enumerate(rows):
        second = f"{start:06d}" if place % 2 == 0 else str(start)
        path = root / "video" / f"{video}_{second}.mp4"
        wanted.append(Wanted(f"{video}_{start:06d}", path, index, defect))
    fps = write_clips(wanted, Style(num_classes, seconds, seed, cues))
    ids: dict[tuple[str, str], tuple[str, ...]] = {}
    for one, row in zip(wanted, rows, strict=True):
        key = ("official", row[3])
        ids[key] = (*ids.get(key, ()), one.id)
    lines = [_line(*row[:4]) for row in rows]
    (root / "vggsound.csv").write_text("".join(lines), encoding="utf-8")
    return Truth(
        root,
        tuple(sorted(CLASSES[:num_classes])),
        ids,
        {one.id: CLASSES[one.index] for one in wanted},
        (*defects_of(wanted), *defects),
        fps,
        dict.fromkeys(fps, seconds),
        {one.id: one.id[:11] for one in wanted},
    )


def _line(video: str, start: int, index: int, split: str) -> str:
    label = CLASSES[index]
    # Editions differ in whether labels without a comma are quoted.
    quote = '"' if "," in label or start % 2 else ""
    return f"{video},{start},{quote}{label}{quote},{split}\n"
