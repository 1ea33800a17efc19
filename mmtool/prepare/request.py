"""What `prepare` is asked for, what it tells meanwhile and what it gives back."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from mmtool.media.spec import Decoded, Feature
from mmtool.prepare.api import Source, Spec
from mmtool.store.columns import AnyArray

Duplicates: TypeAlias = Literal["first", "last", "multi", "drop"]


@dataclass(frozen=True, slots=True)
class PrepareRequest:
    """One call of `mmtool prepare`."""

    preparer: str
    """Name from `mmtool list datasets`, or a file: `./my_dataset.py`."""
    source: Path | None
    """Folder or file of the raw release; None takes the sample bundled with the preparer."""
    out: Path
    workers: int = 0
    """Decoding threads; 0 takes one per usable core."""
    limit: int | None = None
    """Take only so many clips, in proportion to splits and classes."""
    overwrite: bool = False
    options: Mapping[str, str] = field(default_factory=dict)
    dry_run: bool = False
    """Look and count, decode and write nothing."""
    max_skipped: float = 0.10
    """Largest share of the clips that may be skipped."""
    missing_modality: Literal["skip", "keep"] = "skip"
    """What becomes of a clip of which only some modalities decode: skipped, or kept with the rest
    marked absent."""
    max_missing: float | None = None
    """Largest share of the clips whose files may not exist; None takes what suits the dataset."""
    duplicates: Duplicates = "first"
    """Which of several rows with one id is kept; "multi" keeps all under ids of their own."""
    max_seconds: float | None = None
    """Cut sound and video off after so many seconds."""
    allow_leak: bool = False
    """Accept clips of different splits that share their raw data."""
    clips_per_shard: int | None = None
    """None takes as many as give shards of a good size."""


@dataclass(frozen=True, slots=True)
class PrepareResult:
    """A finished store, or the inventory of a dry run (its hash is then empty)."""

    path: Path
    report: dict[str, Any]
    hash: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the work is."""

    done: int
    total: int
    skipped: int
    clips_per_s: float
    eta_s: float | None
    stage: Literal["inventory", "probe", "decode", "publish", "verify"]
    note: str = ""
    """Something worth a line of its own, such as the codecs found by the probe."""


ProgressHook: TypeAlias = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class MediaRoom:
    """The functions that touch raw files; tests put their own in."""

    decode: Callable[[Source, Spec], Decoded]
    fingerprint: Callable[[Source], str]
    """Identity of the content of a source."""
    glance: Callable[[Source], str]
    """"found", or why a file is of no use, from its first bytes."""
    derive: Callable[[AnyArray, int, Feature], AnyArray]
    """A feature of an int16 wave at a rate."""
    failure: type[Exception]
    """What `decode` raises for raw data it cannot read; carries a short `reason`."""
    versions: Mapping[str, str] = field(default_factory=dict)
