"""IEMOCAP: ten actors in pairs, improvised and scripted; 10,039 utterances seen, heard and read.

    mmtool prepare iemocap --source IEMOCAP_full_release

    IEMOCAP_full_release/
        Session1/ ... Session5/
            dialog/EmoEvaluation/Ses01F_impro01.txt        times, name and label of each utterance
            dialog/transcriptions/Ses01F_impro01.txt       Ses01F_impro01_F000 [6.2-8.2]: text
            dialog/avi/DivX/Ses01F_impro01.avi             both actors in one picture
            sentences/wav/Ses01F_impro01/Ses01F_impro01_F000.wav

The label is what the raters agreed on; `-s label_set=` chooses which utterances take part:

    4         ang, hap and exc as one, sad, neu: 5,531 utterances, the usual set (default)
    4-no-exc  ang, hap, sad, neu: 4,490
    5         ang, exc, fru, neu, sad: 6,785
    6         hap, sad, neu, ang, exc, fru: 7,380

`-s improvised_only=true` leaves out the scripted dialogues (4 classes: 2,943, without exc 2,280).

Splits  session-5 .. session-1  one session is test, the next one val; no speaker is shared
        speaker-1F .. speaker-5M  one speaker is test, the other of the session val
        random-leaky  80/10/10 as in AMST and MLA: speakers and dialogues are in all three splits,
                      for comparison with such numbers alone

Columns  audio  audio.logmel (64 x 400, the first eight seconds)  video  text

Traps  The letter after SesNN is the actor with the markers, the one before the number of the
       utterance is the speaker: ten speakers are session and that letter. Names such as
       Ses03M_impro05a and Ses05M_script01_1b are dialogues of their own. Labels are the lines that
       begin with `[`, in the files right below EmoEvaluation; folders below it hold single raters.
       Transcripts hold overlaps such as _FXX0 that nobody rated. There is no video per utterance:
       pictures are taken from the dialogue between the times of the utterance, and show both
       actors, the speaker being on one side. Sound has an offset and cross-talk of the other actor.
       Of a complete release the number of utterances by session and emotion is compared with the
       known one.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from mmtool.prepare import api

NAME = "iemocap"
TITLE = "IEMOCAP: emotions in conversations of two actors"
LICENCE = "signed licence of USC SAIL; not redistributable"
SOURCE = "sail.usc.edu/iemocap, after signing the licence"
CITATION = (
    "C. Busso et al., IEMOCAP: Interactive emotional dyadic motion capture database, "
    "Language Resources and Evaluation 42(4), 2008"
)
SESSIONS = ("1", "2", "3", "4", "5")
EDITIONS = {"IEMOCAP_full_release": [f"Session{s}/dialog/EmoEvaluation/Ses*.txt" for s in SESSIONS]}
MEDIA = ["Session*/sentences/wav/*/*.wav", "Session*/dialog/avi/DivX/*.avi"]
MAX_MISSING = 0.0

LABEL_SETS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "4": {"ang": ("ang",), "hap+exc": ("hap", "exc"), "sad": ("sad",), "neu": ("neu",)},
    "4-no-exc": {name: (name,) for name in ("ang", "hap", "sad", "neu")},
    "5": {name: (name,) for name in ("ang", "exc", "fru", "neu", "sad")},
    "6": {name: (name,) for name in ("hap", "sad", "neu", "ang", "exc", "fru")},
}
NUM_UTTERANCES = 10_039
COUNTS = {
    "xxx": 2507, "fru": 1849, "neu": 1708, "ang": 1103, "sad": 1084, "exc": 1041, "hap": 595,
    "sur": 107, "fea": 40, "oth": 3, "dis": 2,
}  # fmt: skip
# Rows are sessions; hap and exc are counted as one.
SESSION_COUNTS = {
    "1": {"ang": 229, "hap+exc": 278, "sad": 194, "neu": 384},
    "2": {"ang": 137, "hap+exc": 327, "sad": 197, "neu": 362},
    "3": {"ang": 240, "hap+exc": 286, "sad": 305, "neu": 320},
    "4": {"ang": 327, "hap+exc": 303, "sad": 143, "neu": 258},
    "5": {"ang": 170, "hap+exc": 442, "sad": 245, "neu": 384},
}
_DIALOG = r"Ses0(?P<session>[1-5])[FM]_(?P<kind>impro|script)\d+(?:_\d+)?[a-z]?"
_UTTERANCE = re.compile(rf"(?P<dialog>{_DIALOG})_(?P<actor>[FM])\d+")
_RATED = re.compile(
    r"\[\s*(?P<start>[\d.]+)\s*-\s*(?P<end>[\d.]+)\s*\]\s+(?P<name>\S+)\s+(?P<emotion>\w+)\s"
)
_SPOKEN = re.compile(r"(?P<name>\S+)\s+\[[^\]]*\]\s*:?\s*(?P<text>.*)")


class Options(api.SpeechOptions):
    """Which utterances take part, and what is stored of each."""

    label_set: Literal["4", "4-no-exc", "5", "6"] = "4"
    """Emotions that become classes; utterances of others do not take part."""
    improvised_only: bool = False
    """Leave out the scripted dialogues."""


class Utterance(NamedTuple):
    """A rated utterance."""

    name: str
    dialog: str
    session: str
    speaker: str
    is_improvised: bool
    emotion: str
    start_s: float
    end_s: float


def columns(root: Path, options: Options) -> Mapping[str, api.Column]:
    """Wave and spectrogram of the utterance, pictures of the dialogue meanwhile, transcript."""
    del root
    specs = api.speech_specs(options, seconds=8)
    return {name: api.Column(name.partition(".")[0], spec) for name, spec in specs.items()}


def classes(root: Path, options: Options) -> Sequence[str]:
    """The emotions of the label set, in the order of the literature."""
    del root
    return list(LABEL_SETS[options.label_set])


def clips(root: Path, options: Options) -> Iterable[api.Clip]:
    """Every utterance of the label set."""
    rated = [utterance for session in SESSIONS for utterance in _rated(root, session)]
    _check_counts(rated, root)
    label_of = {
        emotion: label
        for label, emotions in enumerate(LABEL_SETS[options.label_set].values())
        for emotion in emotions
    }
    chosen = [
        utterance
        for utterance in rated
        if utterance.emotion in label_of
        and (utterance.is_improvised or not options.improvised_only)
    ]
    labels = {utterance.name: label_of[utterance.emotion] for utterance in chosen}
    drawn = dict.fromkeys(labels, "train")
    for share, into in ((0.1, "test"), (1 / 9, "val")):
        drawn = api.carve(drawn, share, f"iemocap random-leaky {into}", labels=labels, into=into)
    folds = {speaker: _by_speaker(speaker) for speaker in sorted({u.speaker for u in chosen})}
    spoken = {name: text for session in SESSIONS for name, text in _spoken(root, session)}
    for utterance in chosen:
        folder = root / f"Session{utterance.session}"
        transcript = folder / "dialog" / "transcriptions" / f"{utterance.dialog}.txt"
        sound = folder / "sentences" / "wav" / utterance.dialog / f"{utterance.name}.wav"
        picture = folder / "dialog" / "avi" / "DivX" / f"{utterance.dialog}.avi"
        text = spoken.get(utterance.name, "")
        yield api.Clip(
            id=utterance.name,
            label=labels[utterance.name],
            sources={
                "audio": api.Source(sound),
                "video": api.Source(picture, start_s=utterance.start_s, end_s=utterance.end_s),
                "text": api.Source(transcript, text=text),
            },
            split={**folds[utterance.speaker], "random-leaky": drawn[utterance.name]},
            group=utterance.speaker,
            skip="" if text else "no-transcript",
        )


def _by_speaker(speaker: str) -> dict[str, str]:
    """Give the split of a speaker in the folds over sessions and over speakers."""
    folds = api.leave_one_out(SESSIONS, prefix="session")
    split = {f"session-{s}": folds[f"session-{s}"][speaker[0]] for s in reversed(SESSIONS)}
    for session in SESSIONS:
        for actor, other in ("FM", "MF"):
            held_out = {session + actor: "test", session + other: "val"}
            split[f"speaker-{session}{actor}"] = held_out.get(speaker, "train")
    return split


def _rated(root: Path, session: str) -> Iterator[Utterance]:
    for path in _texts(root / f"Session{session}" / "dialog" / "EmoEvaluation"):
        for line, text in api.read_lines(path):
            if not text.startswith("["):
                continue
            found = _RATED.match(text + "\n")
            name = _UTTERANCE.fullmatch(found["name"]) if found else None
            if found is None or name is None or name["session"] != session:
                raise api.SourceError(
                    f"line {line} is not a rated utterance of session {session}: {text.strip()!r}",
                    where=f"{path}:{line}",
                    why="expected such as `[6.2901 - 8.2357]  Ses01F_impro01_F000  neu  [...]`",
                    fix="take this file from the release again",
                )
            yield Utterance(
                found["name"],
                name["dialog"],
                session,
                session + name["actor"],
                name["kind"] == "impro",
                found["emotion"],
                float(found["start"]),
                float(found["end"]),
            )


def _spoken(root: Path, session: str) -> Iterator[tuple[str, str]]:
    for path in _texts(root / f"Session{session}" / "dialog" / "transcriptions"):
        for _, text in api.read_lines(path):
            if (found := _SPOKEN.fullmatch(text.strip())) is not None:
                yield found["name"], found["text"]


def _texts(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("Ses*.txt") if path.is_file())


def _check_counts(rated: Sequence[Utterance], root: Path) -> None:
    """Compare a release, which a part of less than half is not, with the known counts."""
    if 2 * len(rated) < NUM_UTTERANCES:
        return
    joined = {emotion: name for name, kinds in LABEL_SETS["4"].items() for emotion in kinds}
    found = Counter((u.session, joined.get(u.emotion, "")) for u in rated)
    emotions = Counter(u.emotion for u in rated)
    wrong = [
        f"session {session} {name}: {found[session, name]} instead of {count}"
        for session, counts in SESSION_COUNTS.items()
        for name, count in counts.items()
        if found[session, name] != count
    ]
    wrong += [
        f"{emotion}: {emotions[emotion]} instead of {COUNTS.get(emotion, 0)}"
        for emotion in sorted({*COUNTS, *emotions})
        if emotions[emotion] != COUNTS.get(emotion, 0)
    ]
    if wrong or len(rated) != NUM_UTTERANCES:
        raise api.SourceError(
            f"EmoEvaluation lists {len(rated):,} utterances, IEMOCAP has {NUM_UTTERANCES:,}"
            if len(rated) != NUM_UTTERANCES
            else "EmoEvaluation holds other labels than IEMOCAP",
            where=str(root),
            why="; ".join(wrong),
            fix="take dialog/EmoEvaluation of all sessions from the release again",
        )
