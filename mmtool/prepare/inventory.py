"""Which raw files are there, found without decoding, and when to stop because of it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

from mmtool.errors import SourceError
from mmtool.prepare.api import Clip, Source
from mmtool.prepare.listing import LeftOut
from mmtool.prepare.request import MediaRoom
from mmtool.store.schema import SPLITS
from mmtool.text import plural

_Place: TypeAlias = tuple[Path, str | None]
_SMALL_BYTES = 4096
_NUM_SAMPLED = 2_000
_DAMAGED_SHARE = 0.01
_DAMAGED_FEW = 4
_NUM_NAMED = 3
_ADVICE = {
    "lfs-pointer": "they are git-lfs pointers: git -C {folder} lfs pull",
    "not-media": "the download gave something else; fetch these files again",
    "empty": "fetch these files again",
}


@dataclass(frozen=True, slots=True)
class FileState:
    """What a look at a raw file tells: "found", or why it is of no use."""

    state: str
    stamp: str
    """Changes when the file is replaced."""


@dataclass(frozen=True, slots=True)
class Inventory:
    """The state of every raw file that a list of clips names."""

    states: Mapping[_Place, FileState]

    def of(self, source: Source) -> FileState:
        """Give the state of a source's files: the first that is of no use, else one for all."""
        found = [self.states[place] for place in _places(source)]
        useless = next((state for state in found if state.state != "found"), None)
        stamp = " ".join(state.stamp for state in found)
        return useless or FileState("found", stamp)

    def stamps(self, clip: Clip) -> dict[str, str]:
        """Give the stamp of every modality of a clip."""
        return {m: self.of(source).stamp for m, source in sorted(clip.sources.items())}

    def num_bytes(self, source: Source) -> int:
        """Give the size of a source's file; 0 where it lies in an archive or is missing."""
        size = self.states[source.path, source.member].stamp.partition(":")[0]
        return int(size) if size.isdigit() and source.member is None else 0


def take_inventory(clips: Sequence[Clip], media: MediaRoom, workers: int) -> Inventory:
    """Look at every file, and into those that are suspiciously small and a sample of the others."""
    places = {
        place: source
        for clip in clips
        for source in clip.sources.values()
        for place in _places(source)
    }
    every = max(1, len(places) // _NUM_SAMPLED)
    ordered = sorted(places.items(), key=lambda item: (str(item[0][0]), item[0][1] or ""))

    def look(item: tuple[int, tuple[_Place, Source]]) -> tuple[_Place, FileState]:
        number, (place, source) = item
        one = replace(source, path=place[0], parts=())
        return place, _look(one, media, always=number % every == 0)

    with ThreadPoolExecutor(max_workers=workers) as pool:
        return Inventory(dict(pool.map(look, enumerate(ordered), chunksize=64)))


def without_missing(
    clips: Sequence[Clip], inventory: Inventory, *, keep_partial: bool
) -> tuple[list[Clip], list[LeftOut]]:
    """Leave out clips whose files do not exist; with `keep_partial` only the lost modalities."""
    kept, left_out = [], []
    for clip in clips:
        lost = {m: s for m, s in clip.sources.items() if inventory.of(s).state == "missing"}
        rest = {m: s for m, s in clip.sources.items() if m not in lost}
        if lost and not (keep_partial and rest):
            modality, source = min(lost.items())
            place = f"{source.path}!{source.member}" if source.member else str(source.path)
            left_out.append(LeftOut(clip, "missing", f"{modality}: {place} does not exist"))
        else:
            kept.append(replace(clip, sources=rest) if lost else clip)
    return kept, left_out


def refuse_damaged(inventory: Inventory, root: Path, name: str) -> None:
    """Stop when so many files are pointers, web pages or empty that the download went wrong."""
    present = {
        place: found for place, found in inventory.states.items() if found.state != "missing"
    }
    damaged = {place: found for place, found in present.items() if found.state != "found"}
    allowed = max(_DAMAGED_FEW, _DAMAGED_SHARE * len(present))
    if not damaged or (len(damaged) <= allowed and len(damaged) < len(present)):
        return
    counts = Counter(found.state for found in damaged.values())
    commonest = counts.most_common(1)[0][0]
    examples = [str(path) for path, _ in damaged][:_NUM_NAMED]
    raise SourceError(
        f"{len(damaged):,} of {len(present):,} raw files of {name} are not what they should be",
        where="\n    ".join(examples),
        why=", ".join(f"{reason}: {count:,}" for reason, count in counts.most_common()),
        fix=_ADVICE[commonest].format(folder=root),
    )


def refuse_missing(
    left_out: Sequence[LeftOut],
    num_listed: int,
    *,
    max_missing: float,
    classes: Sequence[str],
    protocol: str,
) -> None:
    """Stop when more clips are missing than a comparable result allows."""
    missing = [found for found in left_out if found.reason == "missing"]
    if len(missing) <= max_missing * num_listed and len(missing) < num_listed:
        return
    splits = Counter(found.clip.split.get(protocol, "-") for found in missing)
    by_class = Counter(classes[c] for found in missing for c in found.clip.every_label)
    per_split = ", ".join(f"{split} {splits[split]:,}" for split in (*SPLITS, "-") if splits[split])
    per_class = ", ".join(f"{name} {count:,}" for name, count in by_class.most_common(6))
    needed = min(1.0, len(missing) / num_listed + 0.005)
    everything = len(missing) == num_listed
    raise SourceError(
        f"{plural(len(missing), 'clip')} of {num_listed:,} have no file, "
        f"more than the {max_missing:.0%} allowed",
        where="\n    ".join(found.detail for found in missing[:_NUM_NAMED]),
        why=f"by split of {protocol!r}: {per_split}; by class: {per_class}"
        + (" and others" if len(by_class) > 6 else ""),
        fix="check that --source is the right folder"
        if everything
        else f"complete the release, or accept it and say so: --max-missing {needed:.2f}",
    )


def _look(source: Source, media: MediaRoom, *, always: bool) -> FileState:
    if source.text is not None:
        return FileState("found", "text")
    try:
        status = source.path.stat()
    except OSError:
        return FileState("missing", "")
    stamp = f"{status.st_size}:{status.st_mtime_ns}"
    if source.path.is_dir():
        return FileState("found", stamp)
    if source.member is None and status.st_size == 0:
        return FileState("empty", stamp)
    if always or source.member is not None or status.st_size < _SMALL_BYTES:
        return FileState(media.glance(source), stamp)
    return FileState("found", stamp)


def _places(source: Source) -> list[_Place]:
    return [(source.path, source.member), *((part, None) for part in source.parts)]
