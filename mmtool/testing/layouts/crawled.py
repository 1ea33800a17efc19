"""Clips as they come from YouTube: any frame rate and size, some silent, mute, cut or missing."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import numpy as np

from mmtool.testing.layouts import damage, drawing, sound
from mmtool.testing.layouts.encode import Movie, write_movies
from mmtool.testing.layouts.truth import Defect

RATES = tuple(Fraction(text) for text in ("15", "25", "30000/1001", "24", "10", "30", "12"))
SIZES = ((128, 96), (96, 72), (72, 96), (160, 90), (96, 96))
FILE_TRAPS = (
    "silent",
    "no-audio",
    "no-picture",
    "too-short",
    "av-length",
    "rotated",
    "variable-rate",
    "empty",
    "stub",
    "truncated",
    "lfs-pointer",
    "not-media",
    "missing",
    "apple-double",
)
"""Kinds of defects of one media file that `write_clips` plants."""
_NEVER_ENCODED = {"empty", "stub", "lfs-pointer", "not-media", "missing"}
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
_DRAWN_PER_CLASS = 6


@dataclass(frozen=True, slots=True)
class Cues:
    """How clearly sound and picture tell the class."""

    snr_db: float = 10.0
    """Power of the sound cue over the noise, within the event."""
    contrast: float = 0.8
    """0 leaves the picture cue out, 1 shows it without background."""
    jitter: float = 0.01
    """Deviation of the hue, as a share of the circle."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """One clip to write: where, of which class, and with which event (shares) or defect."""

    id: str
    path: Path
    index: int
    defect: str = ""
    event: tuple[float, float] = (0.0, 1.0)


@dataclass(frozen=True, slots=True)
class Style:
    """What all clips of a release have in common."""

    num_classes: int
    seconds: float
    seed: int
    cues: Cues
    num_channels: int = 2
    rates: tuple[Fraction, ...] = RATES
    sizes: tuple[tuple[int, int], ...] = SIZES
    sound_rate_hz: int = 44_100


def youtube_ids(number: int, generator: np.random.Generator) -> tuple[str, ...]:
    """Give ids of 11 characters, all different; every fourth begins with a hyphen."""
    found: dict[str, None] = {}
    while len(found) < number:
        body = "".join(_LETTERS[i] for i in generator.integers(0, len(_LETTERS), 11))
        first = "-" if len(found) % 4 == 1 else _LETTERS[int(generator.integers(0, 62))]
        found[first + body[1:]] = None
    return tuple(found)


def write_clips(wanted: Sequence[Wanted], style: Style) -> dict[str, Fraction]:
    """Write all clips, each with its defect; gives the frame rate of each.

    At most six sound clips of a class and event are drawn; further ones take over the content of
    these and differ from them in bytes that players skip.
    """
    counts: Counter[tuple[object, ...]] = Counter()
    drawn: dict[tuple[object, ...], Movie] = {}
    shared: list[tuple[Path, Path]] = []
    rates: dict[str, Fraction] = {}
    for one in wanted:
        kind = (one.index, one.event, one.defect)
        variant = counts[kind] % _DRAWN_PER_CLASS
        counts[kind] += 1
        key = (*kind, variant)
        if key in drawn:
            shared.append((drawn[key].path, one.path))
        else:
            drawn[key] = _draw(one, variant, style)
        rates[one.id] = drawn[key].fps
    write_movies([m for key, m in drawn.items() if key[2] not in _NEVER_ENCODED])
    for source, path in shared:
        if source.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(source.read_bytes())
            damage.stamp(path, path.stem)
    for one in wanted:
        _damage(one.path, one.defect)
    return rates


def defects_of(wanted: Sequence[Wanted]) -> tuple[Defect, ...]:
    """Give what was planted in the files of these clips."""
    return tuple(Defect(one.defect, one.id, one.path) for one in wanted if one.defect)


def _draw(one: Wanted, variant: int, style: Style) -> Movie:
    generator = np.random.default_rng([style.seed, one.index, variant, *one.defect.encode()])
    place = one.index * _DRAWN_PER_CLASS + variant
    fps = style.rates[place % len(style.rates)]
    width, height = style.sizes[place % len(style.sizes)]
    seconds = 0.15 if one.defect == "too-short" else style.seconds
    num_samples = round(seconds * style.sound_rate_hz)
    samples = sound.class_sound(
        one.index,
        num_samples,
        style.sound_rate_hz,
        generator,
        snr_db=style.cues.snr_db,
        during=(one.event[0] * seconds, one.event[1] * seconds),
    )
    frames = drawing.class_frames(
        one.index,
        style.num_classes,
        max(1, round(seconds * fps)),
        generator,
        width=width,
        height=height,
        contrast=style.cues.contrast,
        jitter=style.cues.jitter,
        during=one.event,
    )
    if one.defect == "silent":
        samples = np.zeros_like(samples)
    if one.defect == "av-length":
        samples = np.concatenate([samples, samples[: 3 * style.sound_rate_hz]])
    if style.num_channels > 1:
        samples = np.repeat(samples[:, None], style.num_channels, axis=1)
    movie = Movie(one.path, frames, fps, samples, style.sound_rate_hz)
    return _changed(movie, one.defect)


def _changed(movie: Movie, defect: str) -> Movie:
    if defect == "no-audio":
        return replace(movie, sound=None)
    if defect == "no-picture":
        return replace(movie, frames=None)
    if defect == "rotated":
        return replace(movie, rotation_degrees=90)
    if defect == "variable-rate":
        return replace(movie, variable_rate=True)
    return movie


def _damage(path: Path, defect: str) -> None:
    if defect == "empty":
        damage.empty(path)
    elif defect == "stub":
        damage.stub(path)
    elif defect == "truncated":
        damage.truncate(path)
    elif defect == "lfs-pointer":
        damage.lfs_pointer(path)
    elif defect == "not-media":
        damage.web_page(path)
    elif defect == "apple-double":
        damage.apple_double(path)
