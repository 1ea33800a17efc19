"""AVE: 28 classes of audio-visual events in clips of ten seconds.

AVE_Dataset/<id>.mp4  -- or AVE/<id>.mp4, see `folder`
Annotations.txt  trainSet.txt  valSet.txt  testSet.txt     Category&VideoID&Quality&Start&End
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
    "Church bell", "Male speech, man speaking", "Bark", "Fixed-wing aircraft, airplane",
    "Race car, auto racing", "Female speech, woman speaking", "Helicopter", "Violin, fiddle",
    "Flute", "Ukulele", "Frying (food)", "Truck", "Shofar", "Motorcycle", "Acoustic guitar",
    "Train horn", "Clock", "Banjo", "Goat", "Baby cry, infant cry", "Bus", "Chainsaw", "Cat",
    "Horse", "Toilet flush", "Rodents, rats, mice", "Accordion", "Mandolin",
)  # fmt: skip
LIST_TRAPS = ("zero-length", "duplicate-in-split", "duplicate-across-splits", "crlf")
"""Kinds of defects of the lists; the duplicates have another class in their second row,
which `Defect.detail` names."""
TRAPS = (*FILE_TRAPS, *LIST_TRAPS)
_SPLITS = ("train", "train", "test", "train", "val", "train")
_Row = tuple[str, str, int, int]


def write_ave(
    root: Path,
    clips: int = 24,
    *,
    seed: int = 0,
    bad: bool | Iterable[str] = True,
    num_classes: int = 4,
    seconds: float = 10.0,
    header: bool = True,
    folder: str = "AVE",
    cues: Cues = Cues(),  # noqa: B008 -- frozen
) -> Truth:
    """Write an AVE release of `clips` sound clips and one clip more per trap asked for.

    Classes are the first `num_classes` of the true ones. A third of the events fill only part of
    the clip. `header` writes the header row that the Annotations.txt of the zip has.
    """
    require_tools()
    traps = chosen_traps(bad, TRAPS)
    file_traps = [kind for kind in FILE_TRAPS if kind in traps]
    generator = np.random.default_rng([seed, 28])
    ids = youtube_ids(clips + len(file_traps) + 3, generator)
    wanted: list[Wanted] = []
    rows: dict[str, list[_Row]] = {"train": [], "val": [], "test": []}
    for place, name in enumerate(ids[: clips + len(file_traps)]):
        index = place % num_classes
        defect = file_traps[place - clips] if place >= clips else ""
        start, end = (2, 7) if place % 3 == 2 and not defect else (0, 10)
        wanted.append(
            Wanted(name, root / folder / f"{name}.mp4", index, defect, (start / 10, end / 10))
        )
        split = _SPLITS[(place // num_classes) % len(_SPLITS)] if not defect else "train"
        rows[split].append((CLASSES[index], name, start, end))
    defects = list(defects_of(wanted))
    for place, kind in enumerate(kind for kind in LIST_TRAPS[:3] if kind in traps):
        name = ids[clips + len(file_traps) + place]
        wanted.append(Wanted(name, root / folder / f"{name}.mp4", place % num_classes))
        _add_rows(rows, kind, name, place, num_classes)
        second = CLASSES[(place + 1) % num_classes] if kind != "zero-length" else ""
        defects.append(Defect(kind, name, root / "Annotations.txt", second))
    style = Style(num_classes, seconds, seed, cues)
    fps = write_clips(wanted, style)
    ending = "\r\n" if "crlf" in traps else "\n"
    _write_lists(root, rows, header=header, ending=ending)
    if "crlf" in traps:
        defects.append(Defect("crlf", "", root / "trainSet.txt"))
    label: dict[str, str] = {}
    for category, name, *_ in (row for split in rows.values() for row in split):
        label.setdefault(name, category)
    return Truth(
        root,
        CLASSES[:num_classes],
        {("official", split): tuple(row[1] for row in found) for split, found in rows.items()},
        label,
        tuple(defects),
        fps,
        dict.fromkeys(fps, seconds),
    )


def _add_rows(
    rows: dict[str, list[_Row]], kind: str, name: str, place: int, num_classes: int
) -> None:
    label = CLASSES[place % num_classes]
    other = CLASSES[(place + 1) % num_classes]
    if kind == "zero-length":
        rows["train"].append((label, name, 0, 0))
    else:
        rows["train"].append((label, name, 0, 10))
        second = "train" if kind == "duplicate-in-split" else "test"
        rows[second].append((other, name, 0, 10))


def _write_lists(root: Path, rows: dict[str, list[_Row]], *, header: bool, ending: str) -> None:
    root.mkdir(parents=True, exist_ok=True)
    lines = {
        split: [f"{label}&{name}&good&{start}&{end}" for label, name, start, end in found]
        for split, found in rows.items()
    }
    everything = lines["train"] + lines["val"] + lines["test"]
    if header:
        everything.insert(0, "Category&VideoID&Quality&StartTime&EndTime")
    contents = {f"{split}Set.txt": found for split, found in lines.items()}
    for name, found in {**contents, "Annotations.txt": everything}.items():
        (root / name).write_bytes("".join(line + ending for line in found).encode())
