"""What surrounds the clips of CREMA-D: tables, split lists, and the planted defects."""

import json
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np

from mmtool.testing.layouts import damage, sound
from mmtool.testing.layouts.encode import Movie, write_movies
from mmtool.testing.layouts.truth import Defect

CLASSES = ("NEU", "HAP", "SAD", "FEA", "DIS", "ANG")
FPS = Fraction(30_000, 1001)
RATE_HZ = 16_000
SIZE = (480, 360)
DEV_ACTORS = (1061, 1063, 1049, 1053, 1054, 1055, 1058, 1075, 1059,
              1070, 1080, 1085, 1062, 1064, 1065, 1066, 1067, 1068)  # fmt: skip
TEST_ACTORS = (1074, 1091, 1079, 1076, 1078, 1082, 1084, 1089, 1083,
               1088, 1090, 1048, 1069, 1071, 1077, 1086, 1087)  # fmt: skip
# The file each trap concerns; the four known-bad clips are those of the real release.
TRAPS = {
    "no-duration": "1064_TIE_SAD_XX",
    "outlier-duration": "1064_IEO_DIS_MD",
    "too-short": "1076_MTI_NEU_XX",
    "silent": "1076_MTI_SAD_XX",
    "identical-content": "1006_TIE_HAP_XX",
    "lfs-pointer": "1091_WSI_SAD_XX",
    "empty": "1091_WSI_ANG_XX",
    "cut-short": "1091_WSI_FEA_XX",
    "flv-no-audio": "1091_WSI_HAP_XX",
    "apple-double": "1006_TIE_HAP_XX",
}
IDENTICAL_TWIN = "1006_TIE_NEU_XX"
_SUMMARY = (
    "", "FileName", "VoiceVote", "VoiceLevel", "FaceVote", "FaceLevel",
    "MultiModalVote", "MultiModalLevel",
)  # fmt: skip


def num_samples(num_frames: int) -> int:
    """Give the samples of sound that last as long as some frames."""
    return round(num_frames / FPS * RATE_HZ)


def splits(chosen: Sequence[str]) -> dict[tuple[str, str], tuple[str, ...]]:
    """Give the ids of both protocols; "ogm-ge" is made up: every ninth name is for test."""
    actors = {name: int(name[:4]) for name in chosen}
    is_test = {name: number % 9 == 4 for number, name in enumerate(sorted(chosen))}
    held_out = {*DEV_ACTORS, *TEST_ACTORS}
    return {
        ("ogm-ge", "train"): tuple(name for name in chosen if not is_test[name]),
        ("ogm-ge", "test"): tuple(name for name in chosen if is_test[name]),
        ("speaker", "train"): tuple(n for n in chosen if actors[n] not in held_out),
        ("speaker", "val"): tuple(n for n in chosen if actors[n] in DEV_ACTORS),
        ("speaker", "test"): tuple(n for n in chosen if actors[n] in TEST_ACTORS),
    }


def write_lists(root: Path, ids: Mapping[tuple[str, str], Sequence[str]]) -> None:
    """Write the split lists that circulate beside the release."""
    folder = root / "ogm_ge_split"
    folder.mkdir(parents=True, exist_ok=True)
    for split in ("train", "test"):
        rows = [f"{name},{name.split('_')[2]}\r\n" for name in ids["ogm-ge", split]]
        (folder / f"{split}.csv").write_bytes("".join(rows).encode())
    train = [a for a in range(1001, 1092) if a not in DEV_ACTORS + TEST_ACTORS]
    actors = {"train": train, "dev": list(DEV_ACTORS), "test": list(TEST_ACTORS)}
    path = root / "speaker_disjoint_split_audeering.json"
    path.write_text(json.dumps(actors), encoding="utf-8")


def write_tables(root: Path, chosen: Sequence[str]) -> None:
    """Write the three tables of the release in its column order and quoting."""
    stimuli = [f'{number},"{name}"' for number, name in enumerate(chosen, start=1)]
    _write_lines(root / "SentenceFilenames.csv", ['"Stimulus_Number","Filename"', *stimuli], "")
    people = ['"ActorID","Age","Sex","Race","Ethnicity"']
    for actor in range(1001, 1092):
        sex = "Male" if actor % 2 else "Female"
        people.append(f'{actor},{20 + actor * 7 % 55},"{sex}","Caucasian","Not Hispanic"')
    _write_lines(root / "VideoDemographics.csv", people)
    votes = [",".join(f'"{column}"' for column in _SUMMARY)]
    for number, name in enumerate(chosen, start=1):
        letter = name.split("_")[2][0]
        # Every seventh vote is a tie, written with a colon in the vote and in its level.
        voice = f'"{min("N", letter)}:{max("N", letter)}","40:55.5"' if number % 7 == 0 else None
        agreed = f'"{letter}","{50 + number % 40}.5"'
        votes.append(f'"{number}","{name}",{voice or agreed},{agreed},{agreed}')
    _write_lines(root / "processedResults" / "summaryTable.csv", votes)


def _write_lines(path: Path, lines: Sequence[str], end: str = "\n") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(("\n".join(lines) + end).encode())


def plant(root: Path, traps: frozenset[str]) -> tuple[Defect, ...]:
    """Damage the clips of TRAPS in the folders of media."""
    return tuple(Defect(kind, TRAPS[kind], _plant_one(root, kind)) for kind in sorted(traps))


def _plant_one(root: Path, kind: str) -> Path:
    name = TRAPS[kind]
    flv = root / "VideoFlash" / f"{name}.flv"
    wav = root / "AudioWAV" / f"{name}.wav"
    if kind == "lfs-pointer":
        damage.lfs_pointer(flv)
    elif kind == "empty":
        damage.empty(flv)
    elif kind == "cut-short":
        damage.truncate(flv)
    elif kind == "apple-double":
        damage.apple_double(wav)
        return damage.apple_double(flv)
    elif kind == "identical-content":
        (root / "AudioWAV" / f"{IDENTICAL_TWIN}.wav").write_bytes(wav.read_bytes())
        return wav
    elif kind == "no-duration":
        # The header alone: no tag, therefore neither a frame nor a duration.
        flv.write_bytes(flv.read_bytes()[:13])
    elif kind != "flv-no-audio":
        return _plant_known_bad(kind, flv, wav)
    return flv


def _plant_known_bad(kind: str, flv: Path, wav: Path) -> Path:
    one = np.full((1, 90, 120, 3), 128, np.uint8)
    silence = np.zeros(num_samples(70), np.int16)
    if kind == "outlier-duration":
        second = np.tile(silence[:RATE_HZ], 61)
        movie = Movie(flv, np.repeat(one, 61, axis=0), Fraction(1), second, RATE_HZ, size=SIZE)
    elif kind == "too-short":
        movie = Movie(flv, one, FPS, None, RATE_HZ, size=SIZE)
    else:
        sound.write_wav(wav, silence, RATE_HZ)
        movie = Movie(flv, np.repeat(one, 70, axis=0), FPS, silence, RATE_HZ, size=SIZE)
    write_movies([movie])
    return wav if kind == "silent" else flv
