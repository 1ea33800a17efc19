"""IEMOCAP: dialogues of two actors in five sessions, rated by utterance.

Session1/dialog/EmoEvaluation/Ses01F_impro01.txt            times, names, labels
Session1/dialog/EmoEvaluation/Categorical/..._e2_cat.txt    single raters
Session1/dialog/transcriptions/Ses01F_impro01.txt
Session1/dialog/avi/DivX/Ses01F_impro01.avi                 both actors, 30000/1001 fps
Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_F000.wav
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mmtool.testing.layouts import damage, drawing, sound
from mmtool.testing.layouts.encode import Movie, require_tools, write_movies
from mmtool.testing.layouts.truth import Defect, Truth, chosen_traps

CLASSES = ("ang", "hap", "sad", "neu", "exc", "fru", "xxx")
DIALOGUES = ("Ses{session:02d}F_impro01", "Ses{session:02d}M_script01_1")
LETTERED = {(3, 1): "Ses03M_impro05a", (5, 1): "Ses05M_script01_1b"}
"""Dialogues whose name ends in a letter, by session and place."""
TRAPS = ("apple-double", "single-rater", "overlap-line", "overlap", "dc-offset")
"""None makes a clip unusable: `overlap` lets two turns share time, `overlap-line` is a line of the
transcript that nobody rated, `single-rater` a table whose lines must not be read as labels."""
HARMFUL_TRAPS = ("missing", "lfs-pointer")
"""Not planted by default: the release is a fixed archive."""
FPS = Fraction(30_000, 1001)
RATE_HZ = 16_000
_SENTENCES = ("Who told you that?", "I was told to come here.", "You know it already.")
# Emotion of the drawn face, words a minute, pitch above the speaker's own, amplitude.
_ACTED = {
    "ang": ("ANG", 210, 10, 180),
    "hap": ("HAP", 180, 20, 120),
    "sad": ("SAD", 120, -8, 50),
    "neu": ("NEU", 165, 0, 100),
    "exc": ("HAP", 215, 30, 160),
    "fru": ("DIS", 175, -12, 150),
    "xxx": ("NEU", 165, 5, 100),
}


@dataclass(frozen=True, slots=True)
class _Turn:
    id: str
    label: str
    text: str
    start_s: float
    samples: NDArray[np.int16]

    @property
    def end_s(self) -> float:
        return self.start_s + len(self.samples) / RATE_HZ


def write_iemocap(
    root: Path,
    utterances_per_dialogue: int = 7,
    *,
    seed: int = 0,
    bad: bool | Iterable[str] = True,
    sound_strength: float = 1.0,
    picture_strength: float = 1.0,
) -> Truth:
    """Write five sessions of two dialogues; ids are the names of the utterances.

    Speakers take turns: F on the left of the picture, M on the right. Labels go round, so that
    seven utterances have all labels. `group` is the dialogue. Protocols are `session-1` to
    `session-5`, whose test is that session.
    """
    require_tools()
    traps = chosen_traps(bad, (*TRAPS, *HARMFUL_TRAPS))
    traps -= set(HARMFUL_TRAPS) if bad is True else set()
    movies: list[Movie] = []
    turns: dict[str, list[_Turn]] = {}
    for session in range(1, 6):
        for place, pattern in enumerate(DIALOGUES):
            name = LETTERED.get((session, place), pattern.format(session=session))
            turns[name] = _turns(name, utterances_per_dialogue, seed, traps, sound_strength)
            _write_dialogue(_session(root, name), name, turns[name], traps)
            movies.append(_movie(root, name, turns[name], seed, picture_strength))
    write_movies(movies)
    ids: dict[tuple[str, str], tuple[str, ...]] = {}
    for session in range(1, 6):
        names = [turn.id for found in turns.values() for turn in found]
        is_test = {name: int(name[3:5]) == session for name in names}
        ids[f"session-{session}", "train"] = tuple(n for n in names if not is_test[n])
        ids[f"session-{session}", "test"] = tuple(n for n in names if is_test[n])
    everything = {turn.id: (name, turn) for name, found in turns.items() for turn in found}
    return Truth(
        root,
        CLASSES,
        ids,
        {key: turn.label for key, (_, turn) in everything.items()},
        _plant(root, turns, traps),
        dict.fromkeys(everything, FPS),
        {key: turn.end_s - turn.start_s for key, (_, turn) in everything.items()},
        {key: name for key, (name, _) in everything.items()},
    )


def _session(root: Path, dialogue: str) -> Path:
    return root / f"Session{int(dialogue[3:5])}"


def _turns(
    dialogue: str, number: int, seed: int, traps: frozenset[str], strength: float
) -> list[_Turn]:
    generator = np.random.default_rng([seed, *dialogue.encode()])
    found = []
    now_s = 0.5
    for place in range(number):
        speaker = "FM"[place % 2]
        label = CLASSES[(place + int(dialogue[3:5])) % len(CLASSES)]
        usual = _ACTED["neu"][1:]
        speed, pitch, amplitude = (
            round(a + strength * (b - a)) for a, b in zip(usual, _ACTED[label][1:], strict=True)
        )
        text = _SENTENCES[place % len(_SENTENCES)]
        voice = f"en+{speaker.lower()}{1 + int(dialogue[4]) % 4}"
        spoken = sound.speech(text, voice, speed, min(99, 45 + pitch), amplitude)
        mixed = 0.8 * spoken + generator.normal(0, 0.002, len(spoken))
        if "dc-offset" in traps:
            mixed = mixed + 0.01
        name = f"{dialogue}_{speaker}{place // 2:03d}"
        found.append(_Turn(name, label, text, round(now_s, 4), sound.as_int16(mixed)))
        gap_s = -0.2 if "overlap" in traps and place == 1 else 0.15
        now_s = found[-1].end_s + gap_s
    return found


def _write_dialogue(
    session: Path, name: str, turns: Sequence[_Turn], traps: frozenset[str]
) -> None:
    rated = ["% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]", ""]
    spoken = []
    single = []
    for turn in turns:
        times = f"[{turn.start_s:.4f} - {turn.end_s:.4f}]"
        rated += [f"{times}\t{turn.id}\t{turn.label}\t[2.5000, 2.5000, 2.5000]"]
        rated += ["C-E2:\tNeutral;\t()", "A-E3:\tval 3; act 2; dom  2;\t()", ""]
        spoken.append(f"{turn.id} [{turn.start_s:08.4f}-{turn.end_s:08.4f}]: {turn.text}")
        single.append(f"{times}\t{turn.id}\tsur\t[1.0000, 1.0000, 1.0000]")
        wav = session / "sentences" / "wav" / name / f"{turn.id}.wav"
        sound.write_wav(wav, turn.samples, RATE_HZ)
    if "overlap-line" in traps:
        last = turns[-1]
        spoken.append(f"{name}_FXX0 [{last.start_s:08.4f}-{last.end_s:08.4f}]: Mm-hm.")
    contents = {f"EmoEvaluation/{name}.txt": rated, f"transcriptions/{name}.txt": spoken}
    if "single-rater" in traps:
        contents[f"EmoEvaluation/Categorical/{name}_e2_cat.txt"] = single
    for path, lines in contents.items():
        target = session / "dialog" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text("".join(line + "\n" for line in lines), encoding="utf-8")


def _movie(root: Path, dialogue: str, turns: Sequence[_Turn], seed: int, strength: float) -> Movie:
    generator = np.random.default_rng([seed, 5, *dialogue.encode()])
    num_frames = int((turns[-1].end_s + 0.5) * FPS) + 1
    time_s = (np.arange(num_frames) + 0.5) / float(FPS)
    halves = []
    for side, speaker in enumerate("FM"):
        look = int(dialogue[4]) * 2 + side
        still = _face("NEU", look, generator, strength)
        half = still[np.zeros(num_frames, int)]
        for turn in turns:
            if turn.id.split("_")[-1][0] == speaker:
                during = np.flatnonzero((time_s >= turn.start_s) & (time_s < turn.end_s))
                acted = _face(_ACTED[turn.label][0], look, generator, strength)
                half[during] = acted[np.arange(len(during)) // 3 % drawing.NUM_OPENINGS]
        halves.append(half)
    samples = np.zeros(round(num_frames / FPS * RATE_HZ), np.int16)
    for turn in turns:
        start = round(turn.start_s * RATE_HZ)
        samples[start : start + len(turn.samples)] = turn.samples
    path = _session(root, dialogue) / "dialog" / "avi" / "DivX" / f"{dialogue}.avi"
    frames = np.concatenate(halves, axis=2)
    return Movie(path, frames, FPS, samples, RATE_HZ, size=(240, 160), fourcc="DIVX")


def _face(
    emotion: str, look: int, generator: np.random.Generator, strength: float
) -> NDArray[np.uint8]:
    return drawing.faces(emotion, look, generator, width=60, height=80, strength=strength)


def _plant(
    root: Path, turns: Mapping[str, Sequence[_Turn]], traps: frozenset[str]
) -> tuple[Defect, ...]:
    dialogue, found = next(iter(turns.items()))
    session = _session(root, dialogue)
    wav = session / "sentences" / "wav" / dialogue / f"{found[0].id}.wav"
    avi = session / "dialog" / "avi" / "DivX" / f"{dialogue}.avi"
    defects = []
    for kind in sorted(traps & {"apple-double", "missing", "lfs-pointer"}):
        path = wav
        if kind == "apple-double":
            evaluation = session / "dialog" / "EmoEvaluation" / f"{dialogue}.txt"
            damage.apple_double(wav)
            damage.apple_double(avi)
            path = damage.apple_double(evaluation)
        elif kind == "missing":
            path = wav.with_name(f"{found[-1].id}.wav")
            path.unlink()
        else:
            damage.lfs_pointer(wav)
        name = found[-1].id if kind == "missing" else found[0].id
        defects.append(Defect(kind, name, path))
    if "overlap" in traps and len(found) > 2:
        defects.append(Defect("overlap", found[2].id))
    if "overlap-line" in traps:
        transcript = session / "dialog" / "transcriptions" / f"{dialogue}.txt"
        defects.append(Defect("overlap-line", f"{dialogue}_FXX0", transcript))
    if "single-rater" in traps:
        rater = session / "dialog" / "EmoEvaluation" / "Categorical" / f"{dialogue}_e2_cat.txt"
        defects.append(Defect("single-rater", found[0].id, rater))
    return tuple(defects)
