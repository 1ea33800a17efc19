"""UR-FUNNY: sentences of TED talks, half of which the audience laughs about; V2 has 10,166.

    mmtool prepare urfunny --source DIR

    DIR/
        data_folds.pkl  humor_label_sdk.pkl       who is in which split; 1 is humorous
        language_sdk.pkl                          V2: words of the punchline and of the context
        word_embedding_indexes_sdk.pkl            V1 instead: rows of word_embedding_list.pkl
        word_embedding_list.pkl                   GloVe vectors of 300 numbers
        covarep_features_sdk.pkl                  81 numbers of sound for each word
        openface_features_sdk.pkl                 371 numbers of the face for each word (75 in V1)
        urfunny2_videos/<id>.mp4                  V2: context and punchline; read where it is there
        humor.pkl                                 MultiBench instead of all the above

The edition is told by these files and, of whole releases, by the number of labels: V1 has 16,514,
V2 has 10,166. MultiBench's humor.pkl left out utterances without text; its counts are smaller.

Splits  official  the authors' train, dev (as val) and test of data_folds.pkl, never drawn anew.
                  The release names no speakers and no talks, so groups cannot be checked.

Columns  videos       audio  audio.logmel (64 x 1000, twenty seconds)  video  text
         features     audio  vision  text (V2)  text.glove
         multibench   audio  vision  text

Traps  Features are those of the punchline alone, one row per word; the text is too, or with
       `-s context=true` the sentences before it and the punchline; some have none. A video shows
       both, and a few have no sound. COVAREP holds minus infinity: zero is stored, and the clip
       counted as `replaced`. Pickles are held in memory together, at several times their size.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmtool.prepare import api

NAME = "urfunny"
TITLE = "UR-FUNNY: humour in TED talks"
LICENCE = "features: none stated; TED videos: CC BY-NC-ND 4.0"
SOURCE = "github.com/ROC-HCI/UR-FUNNY"
CITATION = (
    "M. K. Hasan et al., UR-FUNNY: A multimodal language dataset for understanding humor, "
    "EMNLP 2019"
)
FOLDS, LABELS, WORDS = "data_folds.pkl", "humor_label_sdk.pkl", "language_sdk.pkl"
V1_WORDS, GLOVE = "word_embedding_indexes_sdk.pkl", "word_embedding_list.pkl"
FEATURES = {"audio": "covarep_features_sdk.pkl", "vision": "openface_features_sdk.pkl"}
MULTIBENCH = "humor.pkl"
EDITIONS = {
    "V2 videos": [FOLDS, LABELS, WORDS, "urfunny2_videos/*.mp4"],
    "V2 features": [FOLDS, LABELS, WORDS, *FEATURES.values()],
    "V1 features": [FOLDS, LABELS, V1_WORDS, GLOVE, *FEATURES.values()],
    "multibench": [MULTIBENCH],
}
MEDIA = ["urfunny2_videos/*.mp4"]
MAX_MISSING = 0.0

CLASSES = ("not humorous", "humorous")
NUM_LABELS = {"V1": 16_514, "V2": 10_166}
SPLITS = {"train": "train", "dev": "val", "test": "test"}
_INDEXES = "punchline_embedding_indexes"


class Options(api.SpeechOptions):
    """What is stored of each punchline."""

    features: bool = False
    """Read the features although the videos are there."""
    context: bool = False
    """Put the sentences before the punchline in front of its text."""


def columns(root: Path, options: Options) -> Mapping[str, api.Column]:
    """What the edition has."""
    edition = _edition(root, options)
    series = api.SeriesSpec(replace_non_finite=True)
    specs: dict[str, api.Spec]
    if edition == "V2 videos":
        specs = api.speech_specs(options, seconds=20)
    else:
        specs = {"audio": series, "vision": series}
        if edition == "multibench":
            specs["text"] = series
        if edition == "V2 features":
            specs["text"] = api.words(options)
        if edition == "V1 features" or (edition == "V2 features" and _has_indexes(root)):
            specs["text.glove"] = series
    return {name: api.Column(name.partition(".")[0], spec) for name, spec in specs.items()}


def classes(root: Path, options: Options) -> Sequence[str]:
    """Humorous or not."""
    del root, options
    return CLASSES


def clips(root: Path, options: Options) -> Iterable[api.Clip]:
    """Every utterance of the authors' folds, or of MultiBench's pickle."""
    edition = _edition(root, options)
    if edition == "multibench":
        yield from _multibench(root / MULTIBENCH)
        return
    folds, labels = api.read_pickle(root / FOLDS), api.read_pickle(root / LABELS)
    _check(root, edition, folds, labels)
    words = api.read_pickle(root / (V1_WORDS if edition == "V1 features" else WORDS))
    for fold, split in SPLITS.items():
        for name in folds[fold]:
            if name not in labels or name not in words:
                raise api.SourceError(
                    f"utterance {name} of {fold} has no label or no words",
                    where=str(root),
                    why=f"{FOLDS} lists what {LABELS} or the words do not hold",
                    fix="take all pickles from one version of the release",
                )
            yield api.Clip(
                id=str(name),
                label=int(labels[name]),
                sources=_sources(root, edition, name, words[name], options),
                split={"official": split},
            )


def finish(
    clip: api.Clip, arrays: dict[str, NDArray[np.generic]], options: Options
) -> dict[str, NDArray[np.generic]]:
    """Put the GloVe vectors in the place of their numbers; cut off what fills series up."""
    del options
    if "text.glove" in arrays:
        vectors = api.read_pickle(clip.sources["text"].path.parent / GLOVE)
        rows = arrays["text.glove"].astype(np.int64).ravel().tolist()
        arrays["text.glove"] = np.asarray([vectors[row] for row in rows], np.float32)
    if any(source.path.name == MULTIBENCH for source in clip.sources.values()):
        return api.without_padding(clip.sources, arrays)
    return arrays


def _edition(root: Path, options: Options) -> str:
    wanted = {n: m for n, m in EDITIONS.items() if not (options.features and n == "V2 videos")}
    edition = api.edition_of(root, wanted)
    if not edition:
        raise api.SourceError(
            "the features are not there",
            where=str(root),
            why=f"looked for {', '.join(FEATURES.values())}",
            fix="leave -s features=true away to read the videos",
        )
    return edition


def _has_indexes(root: Path) -> bool:
    entry: Mapping[str, Any] = next(iter(api.read_pickle(root / WORDS).values()), {})
    return _INDEXES in entry and (root / GLOVE).is_file()


def _check(root: Path, edition: str, folds: Any, labels: Any) -> None:
    lacking = [fold for fold in SPLITS if not isinstance(folds, Mapping) or fold not in folds]
    if lacking or not isinstance(labels, Mapping) or not set(labels.values()) <= {0, 1}:
        raise api.SourceError(
            f"{FOLDS} or {LABELS} is not that of UR-FUNNY",
            where=str(root),
            why=f"{FOLDS} has no {', '.join(lacking)}" if lacking else "labels are 0 and 1",
            fix="take both from the release again",
        )
    version = edition[:2]
    whole = NUM_LABELS[version]
    if 2 * len(labels) > min(NUM_LABELS.values()) and len(labels) != whole:
        is_other = next((v for v, count in NUM_LABELS.items() if count == len(labels)), "neither")
        raise api.SourceError(
            f"{LABELS} holds {len(labels):,} labels, {version} of UR-FUNNY has {whole:,}",
            where=str(root),
            why=f"by its files this is {version}, by its labels {is_other}",
            fix="take all pickles from one version of the release",
        )


def _sources(
    root: Path, edition: str, name: Any, words: Mapping[str, Any], options: Options
) -> dict[str, api.Source]:
    key = f"{name}/{_INDEXES}"
    if edition == "V1 features":
        text = api.Source(root / V1_WORDS, key=key)
    else:
        text = api.Source(root / WORDS, key=key, text=_text(words, options))
    if edition == "V2 videos":
        video = api.Source(root / "urfunny2_videos" / f"{name}.mp4")
        return {"audio": video, "video": video, "text": text}
    features = {
        modality: api.Source(root / file, key=f"{name}/punchline_features")
        for modality, file in FEATURES.items()
    }
    return {**features, "text": text}


def _text(words: Mapping[str, Any], options: Options) -> str:
    before = list(words.get("context_sentences", ())) if options.context else []
    sentences = [*before, words["punchline_sentence"]]
    # A sentence is a text in some copies, a list of words in others.
    return " ".join(s if isinstance(s, str) else " ".join(map(str, s)) for s in sentences)


def _multibench(path: Path) -> Iterable[api.Clip]:
    for row in api.read_utterances(path):
        yield api.Clip(
            id=f"{row.split}_{row.id}",
            label=int(row.value > 0),
            sources=row.sources,
            split={"official": row.split},
        )
