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
from mmtool.prepare.api import AudioSpec, Clip, SeriesSpec, Source, Spec
from mmtool.prepare.layout import UnfitSample, as_sample, column_info, flags_of
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
class Sample:
    """A clip as the store takes it; a column is None where its modality is absent."""

    arrays: Mapping[str, AnyArray | None]
    flags: tuple[str, ...]
    moments: Mapping[str, Moments]


def decode_clip(
    clip: Clip, plan: Plan, media: MediaRoom, *, keep_partial: bool = False
) -> Mapping[str, AnyArray] | Skipped:
    """Decode a clip's sources, let the preparer finish them and derive features.

    With `keep_partial` a modality that does not decode is left out, as long as another one does.
    """
    arrays: dict[str, AnyArray] = {}
    failed: dict[str, Skipped] = {}
    decoded: dict[tuple[Source, Spec], AnyArray] = {}
    for name, column in plan.columns.items():
        source = clip.sources.get(column.modality)
        if source is None or column.modality in failed:
            continue
        spec = _without_feature(column.spec)
        try:
            if (source, spec) not in decoded:
                decoded[source, spec] = media.decode(source, spec)
            # A copy for each column: `finish` may change arrays in place.
            arrays[name] = decoded[source, spec].copy()
        except media.failure as error:
            detail = f"{column.modality}: {error}"
            failed[column.modality] = Skipped(_reason(error), detail)
    arrays = {n: a for n, a in arrays.items() if plan.columns[n].modality not in failed}
    if failed and not (keep_partial and arrays):
        return next(iter(failed.values()))
    return _finished(clip, plan, media, arrays)


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
            arrays[name] = media.log_mel(array, spec.rate_hz, spec.feature)
    return arrays


def decode_or_skip(
    clip: Clip, plan: Plan, media: MediaRoom, *, keep_partial: bool
) -> Mapping[str, AnyArray] | Skipped:
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
    arrays = decode_or_skip(clip, plan, media, keep_partial=keep_partial)
    if isinstance(arrays, Skipped):
        return arrays
    try:
        samples = {name: as_sample(name, columns[name], array) for name, array in arrays.items()}
    except UnfitSample as unfit:
        return Skipped(unfit.reason, str(unfit))
    flags = {flag for name, array in samples.items() for flag in flags_of(columns[name], array)}
    trains = "train" in clip.split.values()
    moments = {
        name: moments_of(array, columns[name].kind)
        for name, array in samples.items()
        if trains and columns[name].kind != "tokens"
    }
    return Sample({name: samples.get(name) for name in columns}, tuple(sorted(flags)), moments)


def probe(
    plan: Plan, media: MediaRoom, workers: int, *, keep_partial: bool = False
) -> tuple[dict[str, ColumnInfo], dict[str, float]]:
    """Decode a few clips spread over the list; give the columns and their mean lengths.

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
    columns, lengths = {}, {}
    for name, column in plan.columns.items():
        arrays = [arrays[name] for arrays in good if name in arrays]
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
    return columns, lengths


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
