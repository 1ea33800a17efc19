"""UCF-101: the videos, or the pictures and the optical flow.

ucfTrainTestlist/{classInd,trainlist01..03,testlist01..03}.txt
UCF-101/<Class>/v_<Class>_gGG_cCC.avi                    avi: XviD, half of the classes mute
jpegs_256/v_<Class>_gGG_cCC/frame000001.jpg              frames
tvl1_flow/{u,v}/v_<Class>_gGG_cCC/frame000001.jpg        one fewer than pictures
"""

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mmtool.testing.layouts import damage, drawing, sound
from mmtool.testing.layouts.crawled import Cues
from mmtool.testing.layouts.encode import Movie, require_tools, write_movies
from mmtool.testing.layouts.truth import Defect, Truth, chosen_traps

CLASSES = (
    "ApplyEyeMakeup",
    "Archery",
    "Hammering",
    "HammerThrow",
    "HandstandPushups",
    "JumpingJack",
    "JumpRope",
    "YoYo",
)
"""In the order of classInd.txt, which is not the sorted order."""
TRAPS = ("mixed-case", "crlf", "apple-double", "bin-in-flow")
"""`mixed-case` names files v_HandStandPushups in the folder HandstandPushups, like the release."""
HARMFUL_TRAPS = ("no-v-folder", "missing", "cut-short")
"""Not planted by default, since the release is a fixed archive and must be refused with them."""
_SOUND_RATE_HZ = 44_100
_NUM_PICTURES = 6
_Kind = Literal["avi", "frames"]


@dataclass(frozen=True, slots=True)
class _Video:
    name: str
    category: str
    index: int
    group: int


def write_ucf101(
    root: Path,
    groups: Iterable[int] = (1, 8, 15, 22, 23),
    *,
    kind: Literal["avi", "frames", "both"] = "both",
    seed: int = 0,
    bad: bool | Iterable[str] = True,
    num_classes: int = 8,
    clips_per_group: int = 1,
    seconds: float = 0.8,
    cues: Cues = Cues(),  # noqa: B008 -- frozen
) -> Truth:
    """Write the clips of these groups (1-7, 8-14, 15-21 are the tests) in one or both editions.

    Pictures and flow have 6 and 5 frames of 85x64; the jpegs of the flow have three equal channels.
    The flow moves along a direction of the class.
    """
    require_tools()
    traps = chosen_traps(bad, (*TRAPS, *HARMFUL_TRAPS)) - (
        set(HARMFUL_TRAPS) if bad is True else set()
    )
    videos = [
        _video(index, group, clip, traps)
        for index in range(num_classes)
        for group in groups
        for clip in range(1, clips_per_group + 1)
    ]
    movies: list[Movie] = []
    fps: dict[str, Fraction] = {}
    for video in videos:
        fps[video.name] = Fraction(25) if video.group % 2 else Fraction(30_000, 1001)
        generator = np.random.default_rng([seed, *video.name.encode()])
        if kind != "frames":
            movies.append(_avi(root, video, fps[video.name], seconds, num_classes, cues, generator))
        if kind != "avi":
            movies += _pictures(root, video, num_classes, cues, generator)
    if "missing" in traps:
        movies = [movie for movie in movies if videos[-1].name not in str(movie.path)]
    write_movies([m for m in movies if not ("no-v-folder" in traps and m.path.parts[-3] == "v")])
    ids = _write_lists(root, videos, "\r\n" if "crlf" in traps else "\n", num_classes)
    return Truth(
        root,
        CLASSES[:num_classes],
        ids,
        {video.name: video.category for video in videos},
        _plant(root, kind, videos, traps),
        fps,
        dict.fromkeys(fps, seconds),
        {video.name: f"{video.category}-g{video.group:02d}" for video in videos},
    )


def _video(index: int, group: int, clip: int, traps: frozenset[str]) -> _Video:
    category = CLASSES[index]
    written = category.replace("Handstand", "HandStand") if "mixed-case" in traps else category
    return _Video(f"v_{written}_g{group:02d}_c{clip:02d}", category, index, group)


def _avi(
    root: Path,
    video: _Video,
    fps: Fraction,
    seconds: float,
    num_classes: int,
    cues: Cues,
    generator: np.random.Generator,
) -> Movie:
    frames = _drawn(video, round(seconds * fps), num_classes, cues, generator, (80, 60))
    samples = None
    if video.index % 2 == 0:
        num_samples = round(seconds * _SOUND_RATE_HZ)
        samples = sound.class_sound(
            video.index, num_samples, _SOUND_RATE_HZ, generator, snr_db=cues.snr_db
        )
    path = root / "UCF-101" / video.category / f"{video.name}.avi"
    return Movie(path, frames, fps, samples, _SOUND_RATE_HZ, size=(320, 240))


def _drawn(
    video: _Video,
    num_frames: int,
    num_classes: int,
    cues: Cues,
    generator: np.random.Generator,
    size: tuple[int, int],
) -> NDArray[np.uint8]:
    return drawing.class_frames(
        video.index,
        num_classes,
        num_frames,
        generator,
        width=size[0],
        height=size[1],
        contrast=cues.contrast,
        jitter=cues.jitter,
    )


def _pictures(
    root: Path, video: _Video, num_classes: int, cues: Cues, generator: np.random.Generator
) -> list[Movie]:
    fps = Fraction(25)
    frames = _drawn(video, _NUM_PICTURES, num_classes, cues, generator, (85, 64))
    found = [Movie(root / "jpegs_256" / video.name / "frame%06d.jpg", frames, fps, None)]
    turn = 2 * np.pi * video.index / num_classes
    for axis, part in (("u", np.cos(turn)), ("v", np.sin(turn))):
        noise = generator.normal(128, 8, (_NUM_PICTURES - 1, 64, 85, 1))
        noise[:, 16:48, 20:64] += 90 * cues.contrast * part
        flow = np.repeat(np.clip(noise, 0, 255).astype(np.uint8), 3, axis=3)
        path = root / "tvl1_flow" / axis / video.name / "frame%06d.jpg"
        found.append(Movie(path, flow, fps, None))
    for movie in found:
        movie.path.parent.mkdir(parents=True, exist_ok=True)
    return found


def _write_lists(
    root: Path, videos: list[_Video], ending: str, num_classes: int
) -> dict[tuple[str, str], tuple[str, ...]]:
    folder = root / "ucfTrainTestlist"
    folder.mkdir(parents=True, exist_ok=True)
    classes = [f"{number} {name}" for number, name in enumerate(CLASSES[:num_classes], start=1)]
    contents = {"classInd": classes}
    ids: dict[tuple[str, str], tuple[str, ...]] = {}
    for split in (1, 2, 3):
        tests = range(7 * split - 6, 7 * split + 1)
        train = [video for video in videos if video.group not in tests]
        test = [video for video in videos if video.group in tests]
        contents[f"trainlist{split:02d}"] = [f"{_listed(v)} {v.index + 1}" for v in train]
        contents[f"testlist{split:02d}"] = [_listed(v) for v in test]
        ids[f"split{split}", "train"] = tuple(video.name for video in train)
        ids[f"split{split}", "test"] = tuple(video.name for video in test)
    for name, lines in contents.items():
        text = "".join(line + ending for line in lines)
        (folder / f"{name}.txt").write_bytes(text.encode())
    return ids


def _listed(video: _Video) -> str:
    return f"{video.category}/{video.name}.avi"


def _plant(
    root: Path, kind: str, videos: list[_Video], traps: frozenset[str]
) -> tuple[Defect, ...]:
    first, last = videos[0], videos[-1]
    avi = root / "UCF-101" / first.category / f"{first.name}.avi"
    found = []
    if "mixed-case" in traps:
        found += [Defect("mixed-case", v.name) for v in videos if v.category not in v.name]
    if "apple-double" in traps and kind != "frames":
        found.append(Defect("apple-double", first.name, damage.apple_double(avi)))
    if "cut-short" in traps and kind != "frames":
        damage.truncate(avi)
        found.append(Defect("cut-short", first.name, avi))
    if "bin-in-flow" in traps and kind != "avi":
        path = root / "tvl1_flow" / "u" / f"{first.name}.bin"
        path.write_bytes(bytes(16))
        found.append(Defect("bin-in-flow", first.name, path))
    if "missing" in traps:
        found.append(Defect("missing", last.name))
    return tuple(found)
