"""What `prepare` is asked for, what it tells meanwhile and what it gives back."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from mmtool.prepare.api import LogMel, Source, Spec
from mmtool.store.columns import AnyArray
from mmtool.store.writer import DEFAULT_CLIPS_PER_SHARD


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
    allow_leak: bool = False
    """Accept clips of different splits that share their raw data."""
    clips_per_shard: int = DEFAULT_CLIPS_PER_SHARD


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
    stage: Literal["inventory", "probe", "decode", "publish"]


ProgressHook: TypeAlias = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class MediaRoom:
    """The functions that touch raw files; tests put their own in."""

    decode: Callable[[Source, Spec], AnyArray]
    fingerprint: Callable[[Source], str]
    log_mel: Callable[[AnyArray, int, LogMel], AnyArray]
    failure: type[Exception]
    """What `decode` raises for raw data it cannot read; carries a short `reason`."""
    versions: Mapping[str, str] = field(default_factory=dict)
