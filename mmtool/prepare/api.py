"""The contract between a preparer in `data_prep/` and mmtool; the only thing a preparer imports.

A preparer is a Python file of facts. It enumerates clips; it does not decode them. It defines:

    NAME, TITLE, LICENCE, SOURCE, CITATION   strings, printed before work starts
    Options                                  optional pydantic model of `-s key=value` options
    columns(root, options) -> Mapping[str, Column]   what the store will hold
    classes(root, options) -> Sequence[str]          class names; the label is an index into them
    clips(root, options) -> Iterable[Clip]           every clip, in any order; sorted by id later
    finish(clip, arrays, options) -> arrays          optional: deterministic change after decoding
                                                     and before features, by column name
    BUNDLED                                  optional Path: sample data used without --source
    EDITIONS                                 optional: layouts of the release by name, each a list
                                             of files or globs that must exist under the root
    MEDIA                                    optional globs of all media files under the root; those
                                             that no clip names are counted as unlisted
    MAX_MISSING                              optional share of clips whose files may be missing:
                                             0.0 for fixed archives (default), 0.3 for crawled ones
    LEAKS                                    optional "refuse" (default) or "drop-train": what to do
                                             when an official list puts one clip into two splits

With EDITIONS, `root` is the folder in which an edition was found, at --source or up to two folders
below it, and `edition_of(root, EDITIONS)` names it. A preparer raises `SourceError` when a list or
a table is not what it should be. It names media files that may not exist: missing, empty and
damaged files are found and counted by prepare. Rows that are unusable for a reason only the
release knows carry that reason in `Clip.skip`.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from mmtool.config.schema import Options as Options
from mmtool.errors import SourceError as SourceError
from mmtool.media.spec import AudioSpec as AudioSpec
from mmtool.media.spec import Filterbank as Filterbank
from mmtool.media.spec import FramesSpec as FramesSpec
from mmtool.media.spec import LogMel as LogMel
from mmtool.media.spec import LogSpectrogram as LogSpectrogram
from mmtool.media.spec import Recording as Recording
from mmtool.media.spec import SeriesSpec as SeriesSpec
from mmtool.media.spec import Source as Source
from mmtool.media.spec import Spec as Spec
from mmtool.media.spec import TextSpec as TextSpec
from mmtool.prepare.archives import open_tree as open_tree
from mmtool.prepare.archives import read_content as read_content
from mmtool.prepare.archives import read_numbers as read_numbers
from mmtool.prepare.clip import Clip as Clip
from mmtool.prepare.clip import Column as Column
from mmtool.prepare.digits import SPOKEN_RATE_HZ as SPOKEN_RATE_HZ
from mmtool.prepare.digits import SPOKEN_TEST_TAKES as SPOKEN_TEST_TAKES
from mmtool.prepare.digits import HandwrittenDigits as HandwrittenDigits
from mmtool.prepare.digits import handwritten_digits as handwritten_digits
from mmtool.prepare.digits import named_choice as named_choice
from mmtool.prepare.digits import named_normal as named_normal
from mmtool.prepare.digits import spoken_digits as spoken_digits
from mmtool.prepare.digits import with_noise as with_noise
from mmtool.prepare.editions import edition_of as edition_of
from mmtool.prepare.files import FileTree as FileTree
from mmtool.prepare.pickles import read_pickle as read_pickle
from mmtool.prepare.recordings import WindowOptions as WindowOptions
from mmtool.prepare.recordings import between as between
from mmtool.prepare.recordings import labels_of_numbers as labels_of_numbers
from mmtool.prepare.recordings import window_clips as window_clips
from mmtool.prepare.records import read_records as read_records
from mmtool.prepare.sentiment import Sentiment as Sentiment
from mmtool.prepare.sentiment import SentimentOptions as SentimentOptions
from mmtool.prepare.sentiment import sentiment_classes as sentiment_classes
from mmtool.prepare.sentiment import sentiment_specs as sentiment_specs
from mmtool.prepare.sentiment import sentiments as sentiments
from mmtool.prepare.speech import SpeechOptions as SpeechOptions
from mmtool.prepare.speech import speech_specs as speech_specs
from mmtool.prepare.speech import words as words
from mmtool.prepare.splits import carve as carve
from mmtool.prepare.splits import draw_share as draw_share
from mmtool.prepare.splits import leave_one_out as leave_one_out
from mmtool.prepare.table import Table as Table
from mmtool.prepare.table import TableRow as TableRow
from mmtool.prepare.table import label_of as label_of
from mmtool.prepare.table import read_lines as read_lines
from mmtool.prepare.table import read_rows as read_rows
from mmtool.prepare.table import read_table as read_table
from mmtool.prepare.utterances import read_utterances as read_utterances
from mmtool.prepare.utterances import without_padding as without_padding
from mmtool.prepare.videos import VideoFiles as VideoFiles
from mmtool.prepare.videos import draw_videos as draw_videos
from mmtool.prepare.videos import video_and_start as video_and_start
from mmtool.prepare.windows import Window as Window
from mmtool.prepare.windows import label_windows as label_windows
from mmtool.text import suggestion as suggestion


class Preparer(Protocol):
    """The module-level names of a preparer file, for type checkers."""

    NAME: str
    TITLE: str
    LICENCE: str
    SOURCE: str
    CITATION: str

    def columns(self, root: Path, options: Options) -> Mapping[str, Column]:
        """Columns of the store by name; the name of a modality's main column is the modality."""

    def classes(self, root: Path, options: Options) -> Sequence[str]:
        """Class names in label order."""

    def clips(self, root: Path, options: Options) -> Iterable[Clip]:
        """Every clip of the release."""
