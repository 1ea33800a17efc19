"""CREMA-D: 91 actors say twelve sentences in six emotions; 7,442 clips with sound and picture.

    git lfs clone https://github.com/CheyneyComputerScience/CREMA-D
    mmtool prepare cremad --source CREMA-D

    CREMA-D/
        AudioWAV/1001_IEO_NEU_XX.wav        actor, sentence, emotion, level
        VideoFlash/1001_IEO_NEU_XX.flv
        SentenceFilenames.csv               Stimulus_Number,Filename

The label is the emotion that the actor intended, the third part of the name, not what raters voted
for. Clips are those of SentenceFilenames.csv; without it, those found in either folder.

Splits  speaker  56 actors train, 18 val, 17 test, the list of audEERING; nobody is in two
        ogm-ge   the 744 test clips of OGM-GE and most later work. All 91 actors are in train and in
                 test. The authors have no val; here it is drawn evenly over emotions from their
                 train. `-s ogm_ge_val=0` leaves their train as it was, 6,698 clips.

Columns  audio         wave, 16 kHz
         audio.logmel  64 x 400, hop 10 ms: the first four seconds (recipes name it in data.columns)
         audio.ogm_ge  257 x 188, the log-spectrogram of OGM-GE
         video         `frames` pictures at the centres of equal segments, 256 high and 341 wide

Traps  Without git-lfs a clone holds 7,442 files of each kind, of 130 bytes; prepare says so. Sound
       comes from AudioWAV alone: the FLV of 28 clips had none before December 2020. Four clips are
       known to be damaged and skipped (`-s keep_known_bad=true` keeps them). Three pairs of WAV
       files are identical under different labels; prepare flags them. Copies that hold AudioWAV
       only are refused, because there is nothing to balance with one modality.
       `-s verify=crema_d_files.csv` compares all sizes with those of a table that has the columns
       id, wav_bytes and flv_bytes: up to one in a hundred is skipped, more are refused.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from pydantic import Field

from mmtool.prepare import api

NAME = "cremad"
TITLE = "CREMA-D: acted emotions, sound and picture"
LICENCE = "Open Database License 1.0; contents: Database Contents License 1.0"
SOURCE = "git lfs clone https://github.com/CheyneyComputerScience/CREMA-D"
CITATION = (
    "H. Cao, D. G. Cooper, M. K. Keutmann, R. C. Gur, A. Nenkova, R. Verma, CREMA-D: "
    "Crowd-sourced Emotional Multimodal Actors Dataset, IEEE Trans. Affective Computing 5(4), 2014"
)
EDITIONS = {"CREMA-D": ["AudioWAV/*.wav", "VideoFlash/*.flv"]}
MEDIA = ["AudioWAV/*.wav", "VideoFlash/*.flv"]
MAX_MISSING = 0.0
LEAKS = "refuse"

# Neutral, happy, sad, fear, disgust, anger: the index of OGM-GE, PMR, DI-MML and BalanceBenchmark.
EMOTIONS = ("NEU", "HAP", "SAD", "FEA", "DIS", "ANG")
ACTORS = range(1001, 1092)
# audEERING's speaker_splits.json 1.1.0; its "dev" is val, all others are train.
VAL_ACTORS = frozenset(
    {1049, 1053, 1054, 1055, 1058, 1059, 1061, 1062, 1063}
    | {1064, 1065, 1066, 1067, 1068, 1070, 1075, 1080, 1085}
)
TEST_ACTORS = frozenset(
    {1048, 1069, 1071, 1074, 1076, 1077, 1078, 1079, 1082}
    | {1083, 1084, 1086, 1087, 1088, 1089, 1090, 1091}
)
OGM_GE_TEST = Path(__file__).parent / "lists" / "cremad_ogm_ge_test.txt"
# The README of the release: very short without sound; an error picture over silence; no duration;
# a minute of all emotions.
KNOWN_BAD = frozenset({"1076_MTI_NEU_XX", "1076_MTI_SAD_XX", "1064_TIE_SAD_XX", "1064_IEO_DIS_MD"})
FOLDERS = {"audio": ("AudioWAV", ".wav"), "video": ("VideoFlash", ".flv")}

_NAME = re.compile(r"(?P<actor>1\d{3})_[A-Z]{3}_(?P<emotion>[A-Z]{3})_[A-Z]{2}")
_WRONG_SHARE, _WRONG_FEW = 0.01, 4


class Options(api.Options):
    """What is stored, and of which clips."""

    frames: int = Field(3, ge=1)
    """Pictures per clip; OGM-GE takes one, many later papers three."""
    keep_known_bad: bool = False
    """Keep the four clips that the release itself calls damaged."""
    ogm_ge_val: float = Field(0.1, ge=0.0, lt=1.0)
    """Share of the ogm-ge train clips that becomes its val; 0 reproduces the authors' lists."""
    verify: Path | None = None
    """CSV with the true sizes of the files: columns id, wav_bytes, flv_bytes."""


def columns(root: Path, options: Options) -> Mapping[str, api.Column]:
    """Wave, two spectrograms, and pictures."""
    del root
    logmel = api.LogMel(num_mels=64, num_frames=400, window=400, hop=160)
    frames = api.FramesSpec(num_frames=options.frames, height=256, width=341)
    return {
        "audio": api.Column("audio", api.AudioSpec()),
        "audio.logmel": api.Column("audio", api.AudioSpec(feature=logmel)),
        "audio.ogm_ge": api.Column("audio", api.AudioSpec(feature=api.LogSpectrogram())),
        "video": api.Column("video", frames),
    }


def classes(root: Path, options: Options) -> Sequence[str]:
    """The six emotions in the order of the balance literature."""
    del root, options
    return EMOTIONS


def clips(root: Path, options: Options) -> Iterable[api.Clip]:
    """Every clip of the list, or of the folders."""
    names = _listed(root)
    emotions = {name: parts["emotion"] for name, parts in names.items()}
    test = {name for _, name in api.read_lines(OGM_GE_TEST)}
    ogm_ge = api.carve(
        {name: "test" if name in test else "train" for name in names},
        options.ogm_ge_val,
        "cremad ogm-ge val",
        labels=emotions,
    )
    sources = {name: _sources(root, name) for name in names}
    wrong = _wrong_sizes(options.verify, sources, root) if options.verify else set()
    for name, parts in names.items():
        skip = "wrong-size" if name in wrong else ""
        if name in KNOWN_BAD and not options.keep_known_bad:
            skip = "known-bad"
        yield api.Clip(
            id=name,
            label=EMOTIONS.index(parts["emotion"]),
            sources=sources[name],
            split={"speaker": _by_actor(int(parts["actor"])), "ogm-ge": ogm_ge[name]},
            group=parts["actor"],
            skip=skip,
        )


def _listed(root: Path) -> dict[str, re.Match[str]]:
    """Give the clips by name, sorted; what is in the folders beside them counts as unlisted."""
    table = root / "SentenceFilenames.csv"
    if not table.is_file():
        trees = [api.FileTree(root / folder, suffix) for folder, suffix in FOLDERS.values()]
        stems = {path.stem for tree in trees for path in tree.paths}
        return {stem: parts for stem in sorted(stems) if (parts := _parts(stem))}
    found = {}
    for line, (_, name) in api.read_rows(table, num_cells=2)[1:]:
        parts = _parts(name)
        if parts is None:
            raise api.SourceError(
                f"{name!r} is not the name of a clip",
                where=f"{table}:{line}",
                why=f"a name is actor 1001-1091, sentence, one of {', '.join(EMOTIONS)}, level",
                fix="take this file from the release again",
            )
        found[name] = parts
    return dict(sorted(found.items()))


def _parts(name: str) -> re.Match[str] | None:
    parts = _NAME.fullmatch(name)
    known = parts and parts["emotion"] in EMOTIONS and int(parts["actor"]) in ACTORS
    return parts if known else None


def _by_actor(actor: int) -> str:
    return "test" if actor in TEST_ACTORS else "val" if actor in VAL_ACTORS else "train"


def _sources(root: Path, name: str) -> dict[str, api.Source]:
    return {
        modality: api.Source(root / folder / f"{name}{suffix}")
        for modality, (folder, suffix) in FOLDERS.items()
    }


def _wrong_sizes(
    table: Path, sources: Mapping[str, Mapping[str, api.Source]], root: Path
) -> set[str]:
    """Give the clips with a file that has not the size of the table; refuse many of them."""
    wanted = {row.cells["id"]: row.cells for row in api.read_table(table).rows}
    present = [
        (name, one[modality].path, int(wanted[name][column]))
        for name, one in sources.items()
        for modality, column in (("audio", "wav_bytes"), ("video", "flv_bytes"))
        if name in wanted and one[modality].path.is_file()
    ]
    differing = [(name, path) for name, path, size in present if path.stat().st_size != size]
    if len(differing) > max(_WRONG_FEW, _WRONG_SHARE * len(present)):
        raise api.SourceError(
            f"{len(differing):,} of {len(present):,} files differ in size from {table.name}",
            where="\n    ".join(str(path) for _, path in differing[:3]),
            why="files this wrong are git-lfs pointers, or copies that were encoded again",
            fix=f"git -C {root} lfs pull, or leave out -s verify",
        )
    return {name for name, _ in differing}
