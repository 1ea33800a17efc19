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

A preparer raises `SourceError` when `root` is not a release it knows.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from mmtool.config.schema import Options as Options
from mmtool.errors import SourceError as SourceError
from mmtool.media.spec import AudioSpec as AudioSpec
from mmtool.media.spec import FramesSpec as FramesSpec
from mmtool.media.spec import LogMel as LogMel
from mmtool.media.spec import SeriesSpec as SeriesSpec
from mmtool.media.spec import Source as Source
from mmtool.media.spec import Spec as Spec
from mmtool.media.spec import TextSpec as TextSpec
from mmtool.prepare.splits import draw_share as draw_share
from mmtool.prepare.table import Table as Table
from mmtool.prepare.table import TableRow as TableRow
from mmtool.prepare.table import read_table as read_table
from mmtool.text import suggestion as suggestion


@dataclass(frozen=True, slots=True)
class Column:
    """One array of the store. A modality may have several columns; the first is its default."""

    modality: str
    spec: Spec


@dataclass(frozen=True, slots=True)
class Clip:
    """One sample: its id, label, where its raw data lies, and its split under each protocol."""

    id: str
    label: int
    sources: Mapping[str, Source]
    """Modality -> raw source; a modality that is not listed is stored as absent."""
    split: Mapping[str, str]
    """Protocol -> "train", "val" or "test"; the first protocol is the default one.

    A clip that a protocol does not list takes no part in it."""
    group: str = ""
    """Speaker, source video or subject: what must not be shared between splits."""
    notes: Mapping[str, str] = field(default_factory=dict)


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
