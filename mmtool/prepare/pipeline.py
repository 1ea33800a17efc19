"""The work of `mmtool prepare`: inventory, probe, full pass shard by shard, publish."""

import contextlib
import errno
import shutil
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Literal

from mmtool.errors import EnvironmentLacks, RequestError, StoppedResumable, WorkFailed
from mmtool.prepare.api import Clip
from mmtool.prepare.decode import Sample, Skipped, in_order, make_sample, probe
from mmtool.prepare.finalise import finalise
from mmtool.prepare.layout import clips_per_shard
from mmtool.prepare.loader import load_preparer, parse_options, resolve_source
from mmtool.prepare.notes import ShardNotes
from mmtool.prepare.plan import Plan, leak_policy, make_plan, usable_cores
from mmtool.prepare.report import inventory_report
from mmtool.prepare.request import (
    MediaRoom,
    PrepareRequest,
    PrepareResult,
    Progress,
    ProgressHook,
)
from mmtool.store.reader import open_store
from mmtool.store.schema import ColumnInfo
from mmtool.store.writer import FinishedShard, StoreWriter, refuse_occupied
from mmtool.text import human_bytes, plural

_DISK_ERRORS = {
    errno.ENOSPC: ("the disk is full", "free some space"),
    errno.EDQUOT: ("the disk quota is used up", "free some space"),
    errno.EFBIG: ("a file would exceed the allowed size", "raise `ulimit -f`"),
    errno.EROFS: ("the file system is read-only", "choose another folder"),
    errno.EACCES: ("the folder may not be written", "choose another folder"),
    errno.EPERM: ("the folder may not be written", "choose another folder"),
    errno.ENOTDIR: ("part of the path is a file, not a folder", "choose another folder"),
    errno.ENOENT: ("the folder cannot be made", "choose another folder"),
}
_NUM_NAMED = 3
_SECONDS_BETWEEN_REPORTS = 0.1


def prepare(
    request: PrepareRequest, progress: ProgressHook, *, media: MediaRoom | None = None
) -> PrepareResult:
    """Turn a raw release into a store.

    Killed at any moment, the same call continues and gives the same bytes as an undisturbed run.
    """
    started = time.monotonic()
    _check_request(request)
    preparer = load_preparer(request.preparer)
    options = parse_options(preparer, request.options)
    release = resolve_source(preparer, request.source)
    if not request.dry_run:
        refuse_occupied(request.out, overwrite=request.overwrite)
    media = media or default_media()
    workers = request.workers or usable_cores()
    progress(Progress(0, 0, 0, 0.0, None, "inventory"))
    plan = make_plan(preparer, options, release, media, request, workers=workers)
    if request.dry_run:
        seconds = time.monotonic() - started
        return PrepareResult(request.out, inventory_report(plan), "", seconds)
    progress(Progress(0, len(plan.clips), 0, 0.0, None, "probe"))
    with one_thread_each():
        probed = probe(plan, media, workers, keep_partial=request.missing_modality == "keep")
    bytes_per_clip = probed.bytes_per_clip()
    _check_room(request.out, len(plan.clips), bytes_per_clip)
    progress(Progress(0, len(plan.clips), 0, 0.0, None, "probe", note=probed.summary()))
    writer = StoreWriter(request.out)
    size = request.clips_per_shard or clips_per_shard(bytes_per_clip)
    full_pass = _FullPass(request, plan, probed.columns, media, writer, progress, size)
    with explained_disk_errors(request.out):
        writer.begin(overwrite=request.overwrite)
        try:
            shards = full_pass.run(workers)
            progress(full_pass.progress("publish"))
            report, found = finalise(
                plan,
                probed.columns,
                shards,
                writer,
                media,
                leaks=leak_policy(preparer, request),
                started=started,
                redone=full_pass.decoded,
            )
        finally:
            writer.remove_if_empty()
    progress(full_pass.progress("verify"))
    # Checksums were made of what was written just now.
    open_store(request.out, verify="size").close()
    return PrepareResult(request.out, report, found, time.monotonic() - started)


class _FullPass:
    """Decodes what no earlier attempt has finished, and counts."""

    def __init__(
        self,
        request: PrepareRequest,
        plan: Plan,
        columns: dict[str, ColumnInfo],
        media: MediaRoom,
        writer: StoreWriter,
        progress: ProgressHook,
        clips_per_shard: int,
    ) -> None:
        self._clips_per_shard = clips_per_shard
        self._request = request
        self._plan = plan
        self._columns = columns
        self._media = media
        self._writer = writer
        self._hook = progress
        self._done = self._skipped = self.decoded = 0
        self._examples: deque[str] = deque(maxlen=_NUM_NAMED)
        self._started = self._reported = time.monotonic()

    def run(self, workers: int) -> list[FinishedShard]:
        """Give all shards, kept and new, in order."""
        size = self._clips_per_shard
        total = len(self._plan.clips)
        ranges = [(first, min(first + size, total)) for first in range(0, total, size)]
        more = {
            "missing_modality": self._request.missing_modality,
            "decoders": dict(self._media.versions),
        }
        keys = [self._plan.shard_key(a, b, self._columns, more) for a, b in ranges]
        shards = {n: self._writer.finished(n, key) for n, key in enumerate(keys)}
        for number, (first, last) in enumerate(ranges):
            if (kept := shards[number]) is not None:
                self._done += last - first
                self._skipped += last - first - kept.info.rows
        self._refuse_too_many_skipped()
        pending = [number for number, kept in shards.items() if kept is None]
        clips = (clip for n in pending for clip in self._plan.clips[slice(*ranges[n])])
        work = partial(
            make_sample,
            plan=self._plan,
            columns=self._columns,
            media=self._media,
            keep_partial=self._request.missing_modality == "keep",
        )
        try:
            with (
                one_thread_each(),
                ThreadPoolExecutor(max_workers=workers) as pool,
                contextlib.closing(in_order(pool, work, clips, 4 * workers)) as samples,
            ):
                for number in pending:
                    clips_here = self._plan.clips[slice(*ranges[number])]
                    shards[number] = self._write(number, keys[number], clips_here, samples)
        except KeyboardInterrupt as interrupt:
            raise StoppedResumable(
                "prepare was interrupted",
                where=str(self._writer.partial),
                why=f"{sum(s is not None for s in shards.values())} of "
                f"{plural(len(shards), 'shard')} finished and kept",
                fix="run the same command again to continue",
            ) from interrupt
        return [shard for shard in shards.values() if shard is not None]

    def progress(self, stage: Literal["decode", "publish", "verify"] = "decode") -> Progress:
        """Give the counts so far."""
        seconds = max(time.monotonic() - self._started, 1e-9)
        rate = self.decoded / seconds
        total = len(self._plan.clips)
        eta_s = (total - self._done) / rate if rate > 0 else None
        return Progress(self._done, total, self._skipped, rate, eta_s, stage)

    def _write(
        self,
        number: int,
        key: str,
        clips: tuple[Clip, ...],
        samples: Iterator[Sample | Skipped],
    ) -> FinishedShard:
        notes = ShardNotes(self._columns, self._plan.protocols)
        with self._writer.shard(number, self._columns) as shard:
            for position, clip in enumerate(clips):
                sample = next(samples)
                self._done += 1
                self.decoded += 1
                if isinstance(sample, Skipped):
                    self._skipped += 1
                    self._examples.append(f"{clip.id}: {sample.reason}: {sample.detail}")
                    notes.skip(position, sample)
                    self._refuse_too_many_skipped()
                else:
                    shard.append(sample.arrays)
                    notes.keep(position, clip, sample)
                self._report()
            info = shard.commit()
        self._writer.note(number, key, info, notes.as_json())
        return FinishedShard(info, notes.as_json())

    def _report(self) -> None:
        now = time.monotonic()
        last = self._done == len(self._plan.clips)
        if last or now - self._reported >= _SECONDS_BETWEEN_REPORTS:
            self._reported = now
            self._hook(self.progress())

    def _refuse_too_many_skipped(self) -> None:
        total = len(self._plan.clips)
        if self._skipped == total or self._skipped > self._request.max_skipped * total:
            raise WorkFailed(
                f"{plural(self._skipped, 'clip')} of {total:,} cannot be read, "
                f"more than the {self._request.max_skipped:.0%} allowed",
                where="\n    ".join(self._examples) or str(self._plan.root),
                why="a dataset with so many clips missing gives numbers nobody can compare",
                fix="complete the release, or accept it with a larger --max-skipped",
            )


@contextlib.contextmanager
def one_thread_each() -> Iterator[None]:
    """Let a decoding thread be one thread.

    The linear algebra behind numpy and the resizing of pictures would start threads of their own in
    each, which then wait for each other: measured nine times slower on two busy cores.
    """
    threadpoolctl, torch = import_module("threadpoolctl"), import_module("torch")
    import_module("cv2").setNumThreads(1)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpoolctl.threadpool_limits(1, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(before)


def default_media() -> MediaRoom:
    """Give the real decoders; importing them is slow, so it happens here."""
    raw = import_module("mmtool.media.raw")
    media = import_module("mmtool.media.decode")
    features = import_module("mmtool.media.features")
    failure = import_module("mmtool.media.failure")
    return MediaRoom(
        media.decode,
        raw.fingerprint,
        raw.glance,
        features.derive,
        failure.MediaError,
        media.versions(),
    )


@contextlib.contextmanager
def explained_disk_errors(out: Path) -> Iterator[None]:
    """Turn a full or read-only disk into an error that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno not in _DISK_ERRORS:
            raise
        what, remedy = _DISK_ERRORS[error.errno]
        raise EnvironmentLacks(
            f"the dataset cannot be written: {what}",
            where=str(error.filename or out),
            why=f"{error.strerror}; finished shards, if any, are kept",
            fix=f"{remedy}, or name another place with --out, and run the same command again",
        ) from error


def _check_request(request: PrepareRequest) -> None:
    for name, value, valid in (
        ("workers", request.workers, request.workers >= 0),
        ("clips_per_shard", request.clips_per_shard, (request.clips_per_shard or 1) >= 1),
        ("max_skipped", request.max_skipped, 0.0 <= request.max_skipped <= 1.0),
        ("max_missing", request.max_missing, 0.0 <= (request.max_missing or 0.0) <= 1.0),
        ("max_seconds", request.max_seconds, (request.max_seconds or 1.0) > 0.0),
    ):
        if not valid:
            raise RequestError(f"{name} cannot be {value}", fix="see mmtool prepare --help")


def _check_room(out: Path, num_clips: int, bytes_per_clip: float) -> None:
    needed = num_clips * bytes_per_clip
    existing = next((p for p in (out, *out.absolute().parents) if p.is_dir()), None)
    if existing is None:
        return
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise EnvironmentLacks(
            f"the dataset needs about {human_bytes(needed)}, the disk has {human_bytes(free)}",
            where=str(existing),
            fix="free some space, choose another --out, or store less (see the -s options)",
        )
