"""CMU-MOSI: 2,199 opinions in 93 videos of people who review films; sentiment from -3 to 3.

    mmtool prepare mosi --source DIR                   the first that DIR holds of
    mmtool prepare mosi --source DIR -s file=NAME      the one named

    DIR/
        mosi_data.pkl  mosi_data_noalign.pkl      MulT: text 300, audio 5, vision 20 numbers a step
        aligned_50.pkl  unaligned_50.pkl          MMSA, gzipped or not: also the words
        mosi_raw.pkl                              MultiBench: text 300, audio 74, vision 35
        label.csv                                 MMSA's table, with Raw/<video>/<clip>.mp4 or
                                                  Segmented/<video>_<clip>.mp4 anywhere below DIR

The raw release of CMU keeps labels and splits in .csd files; it needs label.csv beside it.

Splits  official  1,284 / 229 / 686 utterances, no speaker in two of them

Classes  7                       the sentiment rounded, -3 to 3; a half goes to the even number
         2-negative-nonnegative  0 counts as positive
         2-negative-positive     0 takes no part, reason `neutral`
         Accuracies under the three differ by far; name the one you report. The number itself is
         the clip's value.

Columns  audio  vision  text  series of features; text.tokens where the pickle has the words.
         From videos: audio (wave), audio.logmel, video, text (tokens).

Traps  Audio holds minus infinity and NaN: zero is stored, and the clip counted as `replaced`.
       Series are filled up with rows of zeros, in front or at the end depending on the release:
       they are cut off, aligned series alike, others to their length where the pickle gives it.
       Names are bytes in some pickles. Utterances of a video that a held-out split has too leave
       train, reason `cross-split-video` (`-s shared_videos=keep` keeps them). A pickle is read
       whole: unaligned MOSEI needs more than ten GB of memory.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mmtool.prepare import api

NAME = "mosi"
TITLE = "CMU-MOSI: sentiment of film reviews"
LICENCE = "for research; the videos belong to their makers"
SOURCE = (
    "github.com/thuiar/MMSA, github.com/pliang279/MultiBench or "
    "github.com/yaohungt/Multimodal-Transformer"
)
CITATION = (
    "A. Zadeh, R. Zellers, E. Pincus, L.-P. Morency, Multimodal sentiment intensity analysis in "
    "videos: Facial gestures and verbal messages, IEEE Intelligent Systems 31(6), 2016"
)
PICKLES = (
    "mosi_data.pkl",
    "mosi_data_noalign.pkl",
    "aligned_50.pkl",
    "unaligned_50.pkl",
    "mosi_raw.pkl",
)
EDITIONS = {
    **{name: [f"{name}*"] for name in PICKLES},
    "label.csv": ["label.csv"],
    "without-labels": ["Raw/Video/Segmented"],
}
MEDIA = ["**/*.mp4"]
MAX_MISSING = 0.0
LEAKS = "drop-train"
NUM_MOSI = 2199


class Options(api.SentimentOptions):
    """What the classes are, which pickle is read, and what is stored of videos."""


def columns(root: Path, options: Options) -> Mapping[str, api.Column]:
    """Series of features; or wave, spectrogram, pictures and words."""
    specs = api.sentiment_specs(root, options, PICKLES)
    return {name: api.Column(name.partition(".")[0], spec) for name, spec in specs.items()}


def classes(root: Path, options: Options) -> Sequence[str]:
    """Seven sentiments or two."""
    del root
    return api.sentiment_classes(options)


def clips(root: Path, options: Options) -> Iterable[api.Clip]:
    """Every utterance of the pickle or of the table."""
    found = api.sentiments(root, options, PICKLES)
    if len(found) > NUM_MOSI:
        raise api.SourceError(
            f"these are {len(found):,} utterances, CMU-MOSI has {NUM_MOSI:,}",
            where=str(root),
            why="pickles of CMU-MOSEI have the same names",
            fix=f"mmtool prepare mosei --source {root}",
        )
    for sentiment in found:
        utterance = sentiment.utterance
        yield api.Clip(
            id=utterance.id,
            label=sentiment.label,
            sources=utterance.sources,
            split={"official": utterance.split},
            group=utterance.video,
            skip=sentiment.skip,
            value=utterance.value,
        )


def finish(
    clip: api.Clip, arrays: dict[str, NDArray[np.generic]], options: Options
) -> dict[str, NDArray[np.generic]]:
    """Cut off what fills series up."""
    del options
    return api.without_padding(clip.sources, arrays)
