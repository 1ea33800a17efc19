"""NVGesture: 25 hand gestures at the wheel of a car, in colour and depth.

    mmtool prepare nvgesture --source DIR

    DIR/nvgesture_{train,test}_correct_cvpr2016_v2.lst      or without _v2, the earlier edition
    DIR/Video_data/class_NN/subjectS_rR/{sk_color,sk_depth}.avi

A line of a list names a folder, and for each stream the frames of the gesture inside of a longer
video; they differ between streams. Frames become seconds at the 30 per second of the release,
because files of one recording differ by a frame. Labels count from 1 there and from 0 here. The
infrared streams show another view, so papers use colour and depth, as does this preparer.

Splits  official   test as listed; val is drawn from train by whole subjects. No subject is in two
                   splits.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pydantic import Field

from mmtool.prepare import api

NAME = "nvgesture"
TITLE = "NVGesture: dynamic hand gestures in colour and depth"
LICENCE = "CC BY-NC-SA 4.0, as its page says"
SOURCE = "research.nvidia.com, Online detection and classification of dynamic hand gestures"
CITATION = (
    "P. Molchanov et al., Online detection and classification of dynamic hand gestures, CVPR 2016"
)

_LISTS = "nvgesture_{part}_correct_cvpr2016{version}.lst"
_VERSIONS = {"v2": "_v2", "v1": ""}
EDITIONS = {
    name: ("Video_data", *(_LISTS.format(part=part, version=v) for part in ("train", "test")))
    for name, v in _VERSIONS.items()
}
MEDIA = ("Video_data/*/*/sk_color.avi", "Video_data/*/*/sk_depth.avi")
MAX_MISSING = 0.0

NUM_CLASSES = 25
FPS = 30.0
VAL_SHARE = 0.15
STREAMS = {"rgb": "sk_color", "depth": "sk_depth"}
_FOLDER = re.compile(r"class_(?P<label>\d+)/(?P<subject>subject\d+)_r\d+")


class Options(api.Options):
    """Frames taken of each gesture."""

    num_frames: int = Field(8, ge=1)
    """Frames at the centres of equal segments of the gesture."""
    height: int = Field(240, ge=1)
    width: int = Field(320, ge=1)


@dataclass(frozen=True, slots=True)
class Gesture:
    """A line of a list."""

    folder: str
    """Below the root, such as Video_data/class_01/subject13_r0."""
    label: int
    subject: str
    frames: Mapping[str, tuple[int, int]]
    """Stream -> first frame and the one after the last."""

    @property
    def id(self) -> str:
        """Name of the clip: its folder, and where in the recording the gesture begins."""
        start = self.frames[STREAMS["rgb"]][0]
        return f"{'_'.join(PurePosixPath(self.folder).parts[-2:])}_{start:04d}"


def columns(root: Path, options: Options) -> Mapping[str, api.Column]:
    """Colour frames and depth frames."""
    del root
    size = (options.num_frames, options.height, options.width)
    return {
        "rgb": api.Column("rgb", api.FramesSpec(*size)),
        "depth": api.Column("depth", api.FramesSpec(*size, channels=1)),
    }


def classes(root: Path, options: Options) -> Sequence[str]:
    """The folders of the classes; the release gives them no names."""
    del root, options
    return [f"class_{number:02d}" for number in range(1, NUM_CLASSES + 1)]


def clips(root: Path, options: Options) -> Iterable[api.Clip]:
    """Every line of the two lists."""
    del options
    version = _VERSIONS[api.edition_of(root, EDITIONS)]
    listed = [
        (part, gesture)
        for part in ("train", "test")
        for gesture in _read(root / _LISTS.format(part=part, version=version))
    ]
    subjects = {gesture.id: gesture.subject for _, gesture in listed}
    train = {gesture.id: "train" for part, gesture in listed if part == "train"}
    drawn = api.carve(train, VAL_SHARE, "nvgesture", groups=subjects)
    for part, gesture in listed:
        yield api.Clip(
            id=gesture.id,
            label=gesture.label,
            sources={
                modality: api.Source(
                    root / gesture.folder / f"{stream}.avi",
                    start_s=gesture.frames[stream][0] / FPS,
                    end_s=gesture.frames[stream][1] / FPS,
                )
                for modality, stream in STREAMS.items()
            },
            split={"official": "test" if part == "test" else drawn[gesture.id]},
            group=gesture.subject,
        )


def _read(path: Path) -> Iterator[Gesture]:
    for line, text in api.read_lines(path):
        try:
            yield _parsed(text)
        except (ValueError, KeyError) as error:
            raise api.SourceError(
                f"line {line} of {path.name} is not a gesture: {error}",
                where=f"{path}:{line}",
                why="expected path:./Video_data/class_NN/subjectS_rR sk_color:sk_color:start:end "
                "sk_depth:sk_depth:start:end label:N",
                fix="take the list from the release again",
            ) from error


def _parsed(text: str) -> Gesture:
    cells = {name: values for name, *values in (cell.split(":") for cell in text.split())}
    folder = PurePosixPath(cells["path"][0].replace("\\", "/")).as_posix()
    match = _FOLDER.search(folder)
    if match is None:
        raise ValueError(f"{folder!r} names no class and subject")
    frames = {}
    for stream in STREAMS.values():
        start, end = map(int, cells[stream][-2:])
        if not 0 <= start < end:
            raise ValueError(f"{stream} ends at frame {end}, before it starts at {start}")
        frames[stream] = (start, end)
    label = int(cells["label"][0])
    if label != int(match["label"]) or not 1 <= label <= NUM_CLASSES:
        raise ValueError(f"label {label} does not fit {folder}")
    return Gesture(folder, label - 1, match["subject"], frames)
