"""UCF-101, human actions: pictures and optical flow, or the videos themselves.

    mmtool prepare ucf101 --source DIR

    DIR/ucfTrainTestlist/{classInd,trainlist01,testlist01,...}.txt      both editions
    DIR/jpegs_256/v_<Class>_gGG_cCC/frameNNNNNN.jpg                     frames: modality rgb
    DIR/tvl1_flow/{u,v}/v_<Class>_gGG_cCC/frameNNNNNN.jpg               modality flow
    DIR/UCF-101/<Class>/v_<Class>_gGG_cCC.avi                           avi: rgb, audio if wanted

The frames edition is the pair of archives of TU Graz, each in three parts to be joined before
unpacking: with part 1 alone the folder `v` is missing, and mmtool says so. Flow has one frame fewer
than rgb, so frames are taken at the centres of equal segments of each. The avi edition has no
flow; half of its classes have no sound, and their clips are skipped with `-s audio=true` unless
`--missing-modality keep` is given.

Labels follow classInd.txt, which is not the sorted order (HammerThrow and Hammering, JumpRope and
JumpingJack swap places). Test lists carry no labels: the class is the folder. Names are matched in
any case: the files of HandstandPushups are called v_HandStandPushups. The archive is fixed, 13,320
videos in 101 classes; nothing may be missing.

Splits  split1             the official list 1, which most papers report; default
        split2, split3     the other two, where their lists are there
        Val is drawn from train by whole groups (the number gNN, one set of people and places per
        class), about a tenth, so every class has some. No group is in two splits.
"""

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from mmtool.prepare import api

NAME = "ucf101"
TITLE = "UCF-101: actions in video, as pictures and optical flow"
LICENCE = "for research, as its page says; the videos belong to their makers"
SOURCE = "crcv.ucf.edu/data/UCF101.php; ucf101_jpegs_256 and ucf101_tvl1_flow of TU Graz"
CITATION = "K. Soomro, A. R. Zamir, M. Shah, UCF101: a dataset of 101 human actions classes, 2012"

_LISTS = "ucfTrainTestlist"
_BOTH = (f"{_LISTS}/classInd.txt", f"{_LISTS}/trainlist01.txt", f"{_LISTS}/testlist01.txt")
EDITIONS = {
    "frames": (*_BOTH, "jpegs_256/v_*", "tvl1_flow/u/v_*", "tvl1_flow/v/v_*"),
    "avi": (*_BOTH, "UCF-101/*/*.avi"),
}
MEDIA = ("UCF-101/*/*.avi",)
MAX_MISSING = 0.0

NUM_CLASSES, NUM_VIDEOS = 101, 13_320
VAL_SHARE = 0.1
_NAME = re.compile(r"v_\w+_(?P<group>g\d\d)_c\d\d", re.IGNORECASE)


class Options(api.Options):
    """Frames taken of each video, and whether its sound is."""

    num_frames: int = Field(3, ge=1)
    """Pictures, and pairs of flow fields, at the centres of equal segments."""
    height: int = Field(256, ge=1)
    width: int = Field(340, ge=1)
    audio: bool = False
    """Take the sound of the avi edition; clips without any are then skipped."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A video of the lists."""

    name: str
    label: int
    group: str


def columns(root: Path, options: Options) -> Mapping[str, api.Column]:
    """Colour frames, with flow in the frames edition or with sound in the avi edition."""
    size = (options.num_frames, options.height, options.width)
    found = {"rgb": api.Column("rgb", api.FramesSpec(*size))}
    if api.edition_of(root, EDITIONS) == "frames":
        if options.audio:
            raise api.SourceError(
                "pictures have no sound",
                where=str(root),
                fix="leave out -s audio=true, or name the folder that holds UCF-101/<Class>/*.avi",
            )
        found["flow"] = api.Column("flow", api.FramesSpec(*size, channels=2))
    elif options.audio:
        feature = api.LogMel(num_mels=64, num_frames=512)
        found["audio"] = api.Column("audio", api.AudioSpec(feature=feature))
    return found


def classes(root: Path, options: Options) -> Sequence[str]:
    """The names of classInd.txt in its order."""
    del options
    rows = [line.split() for _, line in api.read_lines(root / _LISTS / "classInd.txt")]
    found = {int(row[0]): row[1] for row in rows if len(row) == 2 and row[0].isdigit()}
    if sorted(found) != list(range(1, len(rows) + 1)):
        raise api.SourceError(
            "classInd.txt does not number its classes from 1 on",
            where=str(root / _LISTS / "classInd.txt"),
            fix="take the file from UCF101TrainTestSplits-RecognitionTask.zip",
        )
    return [found[number] for number in sorted(found)]


def clips(root: Path, options: Options) -> Iterable[api.Clip]:
    """Every video of the lists."""
    names = classes(root, options)
    videos, splits = _read_lists(root, names)
    _check_union(root, names, videos, splits)
    is_frames = api.edition_of(root, EDITIONS) == "frames"
    find = _find_frames(root) if is_frames else _find_avi(root, names)
    for key, video in sorted(videos.items()):
        sources = dict(find(video))
        if options.audio:
            sources["audio"] = sources["rgb"]
        yield api.Clip(
            id=video.name,
            label=video.label,
            sources=sources,
            split={protocol: found[key] for protocol, found in splits.items() if key in found},
            group=video.group,
        )


def _read_lists(
    root: Path, names: Sequence[str]
) -> tuple[dict[str, Listed], dict[str, dict[str, str]]]:
    """Give the videos by name in small letters, and per protocol the split of each."""
    videos: dict[str, Listed] = {}
    splits: dict[str, dict[str, str]] = {}
    for number in (1, 2, 3):
        lists = {part: root / _LISTS / f"{part}list0{number}.txt" for part in ("train", "test")}
        if number > 1 and not all(path.is_file() for path in lists.values()):
            continue
        found: dict[str, str] = {}
        for part, path in lists.items():
            for line, row in api.read_lines(path):
                video = _listed(row.split()[0], names, f"{path}:{line}")
                videos.setdefault(video.name.lower(), video)
                found[video.name.lower()] = part
        groups = {key: videos[key].group for key in found}
        splits[f"split{number}"] = api.carve(found, VAL_SHARE, f"ucf101:{number}", groups=groups)
    return videos, splits


def _listed(cell: str, names: Sequence[str], where: str) -> Listed:
    folder, _, file = cell.replace("\\", "/").rpartition("/")
    match = _NAME.fullmatch(file.removesuffix(".avi"))
    if match is None:
        raise api.SourceError(
            f"{cell!r} is not the name of a video of UCF-101",
            where=where,
            why="expected <Class>/v_<Class>_gGG_cCC.avi",
            fix="take the list from UCF101TrainTestSplits-RecognitionTask.zip",
        )
    folder = folder.rpartition("/")[2] or file.split("_")[1]
    same = next((name for name in names if name.lower() == folder.lower()), folder)
    return Listed(match[0], api.label_of(same, names, where), match["group"].lower())


def _check_union(
    root: Path,
    names: Sequence[str],
    videos: Mapping[str, Listed],
    splits: Mapping[str, Mapping[str, str]],
) -> None:
    """Each list sorts all videos into train and test, so that they must name the same ones."""
    for protocol, found in splits.items():
        wanted = NUM_VIDEOS if len(names) == NUM_CLASSES else len(videos)
        if len(found) != wanted:
            raise api.SourceError(
                f"the lists of {protocol} name {len(found):,} videos instead of {wanted:,}",
                where=str(root / _LISTS),
                why="train and test together are all videos, in each of the three splits",
                fix="take the lists from UCF101TrainTestSplits-RecognitionTask.zip",
            )


def _find_frames(root: Path) -> Callable[[Listed], Mapping[str, api.Source]]:
    places = {name: root / name for name in ("jpegs_256", "tvl1_flow/u", "tvl1_flow/v")}
    known = {
        name: {entry.name.lower(): Path(entry.path) for entry in os.scandir(path) if entry.is_dir()}
        for name, path in places.items()
    }

    def find(video: Listed) -> Mapping[str, api.Source]:
        rgb, u, v = (
            known[name].get(video.name.lower(), path / video.name) for name, path in places.items()
        )
        return {"rgb": api.Source(rgb), "flow": api.Source(u, parts=(v,))}

    return find


def _find_avi(root: Path, names: Sequence[str]) -> Callable[[Listed], Mapping[str, api.Source]]:
    tree = api.FileTree(root / "UCF-101", ".avi", ignore_case=True)

    def find(video: Listed) -> Mapping[str, api.Source]:
        expected = tree.folder / names[video.label] / f"{video.name}.avi"
        return {"rgb": api.Source(tree.find(video.name) or expected)}

    return find
