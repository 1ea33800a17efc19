"""CREMA-D: acted sentences, six emotions, 91 actors.

AudioWAV/1001_DFA_ANG_XX.wav        16 kHz mono, a whole number of 29.97-fps frames long
VideoFlash/1001_DFA_ANG_XX.flv      flv1 and mp3, 480x360
SentenceFilenames.csv  VideoDemographics.csv  processedResults/summaryTable.csv
ogm_ge_split/{train,test}.csv       the split of the literature: CR LF, no header
speaker_disjoint_split_audeering.json
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mmtool.testing.layouts import cremad_release, damage, drawing, sound
from mmtool.testing.layouts.cremad_release import (
    CLASSES,
    DEV_ACTORS,
    FPS,
    IDENTICAL_TWIN,
    RATE_HZ,
    TEST_ACTORS,
    TRAPS,
    num_samples,
)
from mmtool.testing.layouts.encode import Movie, require_tools, write_movies
from mmtool.testing.layouts.truth import Truth, chosen_traps

SENTENCES = {
    "IEO": "It's eleven o'clock.",
    "TIE": "That is exactly what happened.",
    "IOM": "I'm on my way to the meeting.",
    "IWW": "I wonder what this is about.",
    "TAI": "The airplane is almost full.",
    "MTI": "Maybe tomorrow it will be cold.",
    "IWL": "I would like a new alarm clock.",
    "ITH": "I think I have a doctor's appointment.",
    "DFA": "Don't forget a jacket.",
    "ITS": "I think I've seen this before.",
    "TSI": "The surface is slick.",
    "WSI": "We'll stop in a couple of minutes.",
}
# Words a minute, pitch above the actor's own, amplitude.
_PROSODY = {
    "ANG": (210, 10, 180),
    "DIS": (130, -15, 90),
    "FEA": (215, 38, 100),
    "HAP": (180, 22, 130),
    "NEU": (165, 0, 100),
    "SAD": (115, -6, 45),
}
_VOICES = ("f1", "m1", "f2", "m2", "f3", "m3", "f4", "m4", "f1", "m5", "f2", "m6", "f3", "m7")
_NUM_DRAWN_ALONE = 60


@dataclass(frozen=True, slots=True)
class _Look:
    """How clearly sound and picture show the emotion."""

    sound_strength: float
    sound_snr_db: float
    picture_strength: float
    picture_jitter: float


def names(num_clips: int) -> tuple[str, ...]:
    """Give true names: emotions in turn, actors of train, test and dev in turn, all different."""
    actors = _actor_order()
    chosen = []
    for number in range(num_clips):
        block, emotion = divmod(number, len(CLASSES))
        turn, place = divmod(block, len(actors))
        sentence = list(SENTENCES)[(place + turn) % len(SENTENCES)]
        chosen.append(_name(actors[place], sentence, CLASSES[emotion]))
    if len(set(chosen)) < num_clips:
        raise ValueError(f"{num_clips} clips are more than the release has with one level of IEO")
    return tuple(chosen)


def write_cremad(
    root: Path,
    clips: Sequence[str] | int = 24,
    *,
    seed: int = 0,
    bad: bool | Iterable[str] = True,
    lists: bool = True,
    sound_strength: float = 1.0,
    sound_snr_db: float = 30.0,
    picture_strength: float = 1.0,
    picture_jitter: float = 0.08,
) -> Truth:
    """Write a CREMA-D of these clips (names, or how many) and say what is in it.

    `bad` adds the clips of TRAPS, one per kind, to the sound `clips`; True plants all, a set of
    kinds only those. `lists=False` leaves out the two split lists, which the real release lacks.
    Every wav is different (but for "identical-content"). With more than 60 clips, clips of the
    same emotion and length share the picture of one of four faces; their flv differ in one tag.
    """
    require_tools()
    traps = chosen_traps(bad, TRAPS)
    chosen = list(names(clips) if isinstance(clips, int) else clips)
    extra = [TRAPS[kind] for kind in sorted(traps)]
    extra += [IDENTICAL_TWIN] if "identical-content" in traps else []
    chosen = list(dict.fromkeys([*chosen, *extra]))
    look = _Look(sound_strength, sound_snr_db, picture_strength, picture_jitter)
    voices = {name: _voice(name, seed, look) for name in chosen}
    for name, samples in voices.items():
        sound.write_wav(root / "AudioWAV" / f"{name}.wav", samples, RATE_HZ)
    muted = {TRAPS["flv-no-audio"]} if "flv-no-audio" in traps else set()
    _write_videos(root, voices, seed, look, muted)
    defects = cremad_release.plant(root, traps)
    cremad_release.write_tables(root, chosen)
    splits = cremad_release.splits(chosen)
    if lists:
        cremad_release.write_lists(root, splits)
    return Truth(
        root,
        CLASSES,
        splits,
        {name: name.split("_")[2] for name in chosen},
        defects,
        dict.fromkeys(chosen, FPS),
        {name: len(samples) / RATE_HZ for name, samples in voices.items()},
        {name: name[:4] for name in chosen},
    )


def _actor_order() -> list[int]:
    others = [a for a in range(1001, 1092) if a not in DEV_ACTORS + TEST_ACTORS]
    queues = [others, list(TEST_ACTORS), list(DEV_ACTORS), others, others]
    order: list[int] = []
    while any(queues):
        order += [queue.pop(0) for queue in queues if queue]
    return order


def _name(actor: int, sentence: str, emotion: str) -> str:
    level = "LO" if sentence == "IEO" and emotion != "NEU" else "XX"
    return f"{actor}_{sentence}_{emotion}_{level}"


def _voice(name: str, seed: int, look: _Look) -> NDArray[np.int16]:
    actor, sentence, emotion, _ = name.split("_")
    neutral = _PROSODY["NEU"]
    speed, pitch, amplitude = (
        round(usual + look.sound_strength * (own - usual))
        for own, usual in zip(_PROSODY[emotion], neutral, strict=True)
    )
    base = 30 + int(actor) * 7 % 20
    variant = _VOICES[int(actor) % len(_VOICES)]
    pitch = min(99, max(0, base + pitch))
    spoken = sound.speech(SENTENCES[sentence], f"en+{variant}", speed, pitch, amplitude)
    generator = _generator(seed, "voice", name)
    lead = int(generator.integers(800, 1600))
    num_frames = -(-int((len(spoken) + lead) / RATE_HZ * FPS + 1) // 10) * 10
    samples = np.zeros(num_samples(num_frames))
    samples[lead : lead + len(spoken)] = spoken
    power = float(np.mean(spoken**2))
    noise = np.sqrt(power / 10 ** (look.sound_snr_db / 10))
    return sound.as_int16(0.8 * (samples + generator.normal(0, noise, len(samples))))


def _generator(seed: int, *salt: object) -> np.random.Generator:
    text = ":".join(map(str, salt)).encode()
    return np.random.default_rng([seed, *text])


def _write_videos(
    root: Path,
    voices: Mapping[str, NDArray[np.int16]],
    seed: int,
    look: _Look,
    muted: Collection[str],
) -> None:
    movies: dict[tuple[object, ...], Movie] = {}
    shared: list[tuple[Path, Path]] = []
    for name, samples in voices.items():
        actor, _, emotion, _ = name.split("_")
        path = root / "VideoFlash" / f"{name}.flv"
        key: tuple[object, ...] = (name,)
        face = int(actor)
        if len(voices) > _NUM_DRAWN_ALONE and name not in muted:
            face = int(actor) % 4
            key = (emotion, face, len(samples))
        if key in movies:
            shared.append((movies[key].path, path))
        else:
            movies[key] = _movie(path, emotion, face, samples, _generator(seed, *key), look)
    for key, movie in movies.items():
        if movie.path.stem in muted:
            movies[key] = replace(movie, sound=None)
    write_movies(list(movies.values()))
    for made, path in shared:
        path.write_bytes(made.read_bytes())
        damage.stamp(path, path.stem)


def _movie(
    path: Path,
    emotion: str,
    face: int,
    samples: NDArray[np.int16],
    generator: np.random.Generator,
    look: _Look,
) -> Movie:
    drawn = drawing.faces(
        emotion,
        face,
        generator,
        width=240,
        height=180,
        strength=look.picture_strength,
        jitter=look.picture_jitter,
    )
    num_frames = round(len(samples) / RATE_HZ * FPS)
    loudness = np.array(
        [np.abs(part.astype(float)).mean() for part in np.array_split(samples, num_frames)]
    )
    levels = loudness / max(1e-9, loudness.max()) * (drawing.NUM_OPENINGS - 1)
    return Movie(path, drawn[np.round(levels).astype(int)], FPS, samples, RATE_HZ, size=(480, 360))
