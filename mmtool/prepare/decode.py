"""One clip: raw sources in, one sample per column out, or the reason why not."""

from collections import Counter
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import TypeVar

import numpy as np

from mmtool.errors import MmtoolError, WorkFailed
from mmtool.media.spec import Decoded, MediaFacts
from mmtool.prepare.api import AudioSpec, Clip, SeriesSpec, Source, Spec
from mmtool.prepare.facts import describe
from mmtool.prepare.layout import UnfitSample, as_sample, column_info, estimated_bytes
from mmtool.prepare.plan import Plan
from mmtool.prepare.request import MediaRoom
from mmtool.prepare.statistics import Moments, moments_of
from mmtool.store.columns import AnyArray
from mmtool.store.schema import ColumnInfo

NUM_PROBED = 20
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Skipped:
    """A clip that is left out, and why."""

    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class Clipful:
    """What a clip's sources hold: arrays by column, and facts by modality."""

    arrays: Mapping[str, AnyArray]
    facts: Mapping[str, MediaFacts]


@dataclass(frozen=True, slots=True)
class Sample:
    """A clip as the store takes it; a column is None where its modality is absent."""

    arrays: Mapping[str, AnyArray | None]
    facts: Mapping[str, MediaFacts]
    contents: Mapping[str, str]
    """Modality -> identity of the raw bytes."""
    flags: tuple[str, ...]
    moments: Mapping[str, Moments]


def decode_clip(
    clip: Clip, plan: Plan, media: MediaRoom, *, keep_partial: bool = False
) -> Clipful | Skipped:
    """Decode a clip's sources, let the preparer finish them and derive features.

    With `keep_partial` a modality that does not decode is left out, as long as another one does.
    """
    arrays: dict[str, AnyArray] = {}
    facts: dict[str, MediaFacts] = {}
    failed: dict[str, Skipped] = {}
    decoded: dict[tuple[Source, Spec], Decoded] = {}
    for name, column in plan.columns.items():
        source = clip.sources.get(column.modality)
        if source is None or column.modality in failed:
            continue
        spec = _without_feature(column.spec)
        try:
            if (source, spec) not in decoded:
                decoded[source, spec] = media.decode(source, spec)
            found = decoded[source, spec]
            # A copy for each column: `finish` may change arrays in place.
            arrays[name] = found.array.copy()
            facts.setdefault(column.modality, found.facts)
        except media.failure as error:
            detail = f"{column.modality}: {error}"
            failed[column.modality] = Skipped(_reason(error), detail)
    arrays = {n: a for n, a in arrays.items() if plan.columns[n].modality not in failed}
    if failed and not (keep_partial and arrays):
        return next(iter(failed.values()))
    facts = {m: found for m, found in facts.items() if m not in failed}
    return Clipful(_finished(clip, plan, media, arrays), facts)


def _finished(
    clip: Clip, plan: Plan, media: MediaRoom, arrays: dict[str, AnyArray]
) -> Mapping[str, AnyArray]:
    finish = plan.preparer.finish
    if finish is not None:
        given = set(arrays)
        arrays = dict(finish(clip, arrays, plan.options))
        if set(arrays) != given:
            raise WorkFailed(
                f"finish() of {plan.preparer.name} returned {sorted(arrays)} for {sorted(given)}",
                where=str(plan.preparer.file),
                fix="return exactly the columns that were given",
            )
    for name, array in arrays.items():
        if array.ndim and len(array) == 0:
            raise UnfitSample("empty", f"{name} has no samples")
        spec = plan.columns[name].spec
        if isinstance(spec, AudioSpec) and spec.feature is not None:
            arrays[name] = media.derive(array, spec.rate_hz, spec.feature)
    return arrays


def decode_or_skip(
    clip: Clip, plan: Plan, media: MediaRoom, *, keep_partial: bool
) -> Clipful | Skipped:
    """Decode a clip; unreadable data is a reason to skip it, anything else names the clip."""
    try:
        return decode_clip(clip, plan, media, keep_partial=keep_partial)
    except (UnfitSample, media.failure) as error:
        return Skipped(_reason(error), str(error))
    except MmtoolError:
        raise
    except Exception as error:
        raise WorkFailed(
            f"clip {clip.id!r} broke the decoding: {type(error).__name__}: {error}",
            where=str(plan.preparer.file),
            why="finished shards are kept",
            fix="correct the preparer, or leave the clip out",
        ) from error


def make_sample(
    clip: Clip,
    plan: Plan,
    columns: Mapping[str, ColumnInfo],
    media: MediaRoom,
    *,
    keep_partial: bool = False,
) -> Sample | Skipped:
    """Give a clip in the form the store takes, with its flags and statistics."""
    found = decode_or_skip(clip, plan, media, keep_partial=keep_partial)
    if isinstance(found, Skipped):
        return found
    try:
        samples = {name: as_sample(name, columns[name], a) for name, a in found.arrays.items()}
    except UnfitSample as unfit:
        return Skipped(unfit.reason, str(unfit))
    flags = {flag for facts in found.facts.values() for flag in facts.flags}
    trains = "train" in clip.split.values()
    moments = {
        name: moments_of(array, columns[name].kind)
        for name, array in samples.items()
        if trains and columns[name].kind != "tokens"
    }
    contents = {m: _content(clip.sources[m], media) for m in sorted(found.facts)}
    stored = {name: samples.get(name) for name in columns}
    return Sample(stored, found.facts, contents, tuple(sorted(flags)), moments)


@dataclass(frozen=True, slots=True)
class Probed:
    """What a few decoded clips tell about all of them."""

    columns: dict[str, ColumnInfo]
    lengths: dict[str, float]
    """Mean length by column."""
    media: dict[str, str]
    """Modality -> codec, rate and size of the first real file."""

    def bytes_per_clip(self) -> float:
        """Give the bytes that an average clip will take."""
        return sum(estimated_bytes(c, self.lengths, n) for n, c in self.columns.items())

    def summary(self) -> str:
        """Give what was found in one line."""
        return "; ".join(f"{modality}: {text}" for modality, text in self.media.items())


def probe(plan: Plan, media: MediaRoom, workers: int, *, keep_partial: bool = False) -> Probed:
    """Decode a few clips spread over the list.

    Stops when none of them can be decoded: the full pass would only take longer to say so.
    """
    chosen = [plan.clips[i] for i in _spread(len(plan.clips), NUM_PROBED)]
    for modality in plan.modalities:
        having = [clip for clip in plan.clips if modality in clip.sources]
        chosen += [having[i] for i in _spread(len(having), 4)]
    unique = list({clip.id: clip for clip in chosen}.values())
    with ThreadPoolExecutor(max_workers=workers) as pool:
        one = partial(decode_or_skip, plan=plan, media=media, keep_partial=keep_partial)
        found = list(in_order(pool, one, unique, 2 * workers))
    good = [item for item in found if not isinstance(item, Skipped)]
    if not good:
        raise _nothing_decodes([item for item in found if isinstance(item, Skipped)])
    columns: dict[str, ColumnInfo] = {}
    lengths: dict[str, float] = {}
    for name, column in plan.columns.items():
        arrays = [item.arrays[name] for item in good if name in item.arrays]
        channels = Counter(a.shape[-1] for a in arrays if a.ndim > 1)
        num_channels = channels.most_common(1)[0][0] if channels else 1
        if isinstance(column.spec, SeriesSpec) and not channels:
            raise WorkFailed(
                f"no probed clip gives a series for column {name!r}",
                where=str(plan.root),
                why="the number of channels is read from the data",
                fix="check the files of this modality, or leave the column out",
            )
        columns[name] = column_info(
            column, num_channels=num_channels, finished=plan.preparer.finish is not None
        )
        lengths[name] = float(np.mean([len(a) for a in arrays])) if arrays else 0.0
    described: dict[str, str] = {}
    for item in good:
        for modality, facts in item.facts.items():
            described.setdefault(modality, describe(facts))
    return Probed(columns, lengths, {m: text for m, text in sorted(described.items()) if text})


def in_order(
    pool: Executor,
    function: Callable[[_Item], _Result],
    items: Iterable[_Item],
    window: int,
) -> Generator[_Result, None, None]:
    """Apply a function in the pool, give results in the order of the items.

    At most `window` items are in work or waiting to be taken, so memory stays bounded.
    """
    source = iter(items)
    waiting: list[Future[_Result]] = [pool.submit(function, i) for i in islice(source, window)]
    try:
        while waiting:
            yield waiting.pop(0).result()
            waiting += [pool.submit(function, item) for item in islice(source, 1)]
    finally:
        for future in waiting:
            future.cancel()


def _content(source: Source, media: MediaRoom) -> str:
    try:
        return str(media.fingerprint(source))
    except (OSError, media.failure):
        return ""


def _reason(error: Exception) -> str:
    return str(getattr(error, "reason", "decode-error"))


def _spread(count: int, wanted: int) -> list[int]:
    if count == 0:
        return []
    return sorted(set(np.linspace(0, count - 1, min(count, wanted)).round().astype(int).tolist()))


def _without_feature(spec: Spec) -> Spec:
    return replace(spec, feature=None) if isinstance(spec, AudioSpec) else spec


def _nothing_decodes(skipped: Sequence[Skipped]) -> WorkFailed:
    reasons = Counter(item.reason for item in skipped)
    said = "\n    ".join(sorted({item.detail for item in skipped})[:3])
    counts = ", ".join(f"{reason} ({count})" for reason, count in reasons.most_common())
    return WorkFailed(
        f"none of the {len(skipped)} probed clips can be decoded",
        where=said,
        why=f"reasons: {counts}; nothing was written",
        fix="look at one of these files, or run `mmtool doctor` to check the decoders",
    )
