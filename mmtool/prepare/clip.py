"""What a preparer says of a dataset: its columns and its clips."""

from collections.abc import Mapping
from dataclasses import dataclass

from mmtool.media.spec import Source, Spec


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
    skip: str = ""
    """Why this clip is left out although it is listed, such as "known-bad" or "zero-length"."""
    value: float | None = None
    """The number behind the label, such as a sentiment of -3 to 3, kept in the index."""
    labels: tuple[int, ...] | None = None
    """Any number of classes in place of `label`, which is -1 then; all clips have them or none."""

    @property
    def every_label(self) -> tuple[int, ...]:
        """The classes of this clip: one, or as many as `labels` has."""
        return (self.label,) if self.labels is None else self.labels
