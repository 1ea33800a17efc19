"""MUStARD: sarcasm in television series; text, sound and picture.

data/sarcasm_data.json      id -> utterance, speaker, context, context_speakers, show, sarcasm
data/split_indices.p        five folds of row numbers
utterances_final/1_60.mp4   context_final/1_60_c.mp4
"""

import json
import pickle
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from mmtool.testing.layouts import damage
from mmtool.testing.layouts.crawled import Cues, Style, Wanted, defects_of, write_clips
from mmtool.testing.layouts.encode import require_tools
from mmtool.testing.layouts.truth import Defect, Truth, chosen_traps

CLASSES = ("False", "True")
SHOWS = ("BBT", "FRIENDS", "GOLDENGIRLS", "SARCASMOHOLICS")
TRAPS = ("apple-double", "silent", "av-length")
HARMFUL_TRAPS = ("missing", "no-audio", "truncated", "lfs-pointer")
"""Not planted by default: the release is a fixed archive."""
_NUM_FOLDS = 5


def write_mustard(
    root: Path,
    clips: int = 20,
    *,
    seed: int = 0,
    bad: bool | Iterable[str] = True,
    context: bool = True,
    seconds: float = 1.5,
    cues: Cues = Cues(),  # noqa: B008 -- frozen
) -> Truth:
    """Write `clips` sound clips and one more per trap that changes a file.

    Ids such as 1_60 and 1_180 are not in numeric order. Protocols: `fold-1` to `fold-5`, and
    `speaker-independent`, whose test is the show FRIENDS; `group` is the show.
    """
    require_tools()
    traps = chosen_traps(bad, (*TRAPS, *HARMFUL_TRAPS))
    traps -= set(HARMFUL_TRAPS) if bad is True else set()
    kinds = [kind for kind in (*TRAPS[1:], *HARMFUL_TRAPS) if kind in traps]
    folder = root / "utterances_final"
    wanted = []
    shows = []
    for place in range(clips + len(kinds)):
        show = place // 2 % len(SHOWS)
        name = f"{1 + show % 2}_{60 + (place * 120) % 7000 + place}"
        defect = kinds[place - clips] if place >= clips else ""
        wanted.append(Wanted(name, folder / f"{name}.mp4", place % 2, defect))
        shows.append(SHOWS[show])
    style = Style(2, seconds, seed, cues)
    fps = write_clips(wanted, style)
    if context:
        before = [
            Wanted(one.id, root / "context_final" / f"{one.id}_c.mp4", 0, event=(0.0, 0.0))
            for one in wanted
        ]
        write_clips(before, style)
    defects = list(defects_of(wanted))
    if "apple-double" in traps:
        twin = damage.apple_double(wanted[0].path)
        damage.apple_double(folder / ".DS_Store")
        defects.append(Defect("apple-double", wanted[0].id, twin))
    names = [one.id for one in wanted]
    _write_rows(root, wanted, shows)
    ids = _write_folds(root, names, seed)
    is_test = {name: show == "FRIENDS" for name, show in zip(names, shows, strict=True)}
    ids["speaker-independent", "train"] = tuple(name for name in names if not is_test[name])
    ids["speaker-independent", "test"] = tuple(name for name in names if is_test[name])
    return Truth(
        root,
        CLASSES,
        ids,
        {one.id: CLASSES[one.index] for one in wanted},
        tuple(defects),
        fps,
        dict.fromkeys(names, seconds),
        dict(zip(names, shows, strict=True)),
    )


def _write_rows(root: Path, wanted: list[Wanted], shows: list[str]) -> None:
    rows = {}
    for place, (one, show) in enumerate(zip(wanted, shows, strict=True)):
        speaker = "CHANDLER" if show == "FRIENDS" else f"{show}-{place % 2}"
        rows[one.id] = {
            "utterance": f'Oh, that’s "great", really great, number {place}.',
            "speaker": speaker,
            "context": ["I lost the keys.", "Again?"][: place % 3],
            "context_speakers": ["PERSON", speaker][: place % 3],
            "show": show,
            "sarcasm": bool(one.index),
        }
    path = root / "data" / "sarcasm_data.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows), encoding="utf-8")


def _write_folds(root: Path, names: list[str], seed: int) -> dict[tuple[str, str], tuple[str, ...]]:
    # Pairs of clips of both classes stay together, so that folds are balanced.
    order = np.random.default_rng([seed, 690]).permutation((len(names) + 1) // 2)
    fold_of = {int(pair): place % _NUM_FOLDS for place, pair in enumerate(order)}
    folds = []
    ids: dict[tuple[str, str], tuple[str, ...]] = {}
    for fold in range(_NUM_FOLDS):
        in_test = np.array([fold_of[place // 2] == fold for place in range(len(names))])
        train, test = np.flatnonzero(~in_test), np.flatnonzero(in_test)
        folds.append((train, test))
        ids[f"fold-{fold + 1}", "train"] = tuple(names[place] for place in train)
        ids[f"fold-{fold + 1}", "test"] = tuple(names[place] for place in test)
    (root / "data" / "split_indices.p").write_bytes(pickle.dumps(folds, protocol=2))
    return ids
