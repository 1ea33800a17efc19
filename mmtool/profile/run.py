"""A short instrumented run of a recipe: where time and memory would go, before paying for it.

Steps with the real loader and steps on one cached batch alternate in blocks, so that a noisy
machine disturbs both alike; what the real loader adds is the input-bound share.
"""

import resource
import time
from collections.abc import Generator
from pathlib import Path

import torch

from mmtool.config.load import Loaded
from mmtool.data.loader import LoadedShare
from mmtool.data.samplers import rank_share
from mmtool.engine.between_epochs import begin_epoch
from mmtool.engine.build import build_job
from mmtool.engine.distributed import Ranks, choose_device
from mmtool.engine.job import Job
from mmtool.engine.loop import Fit, run_step
from mmtool.engine.metriclog import MetricLog
from mmtool.engine.rank import set_threads
from mmtool.engine.saving import Saver
from mmtool.engine.stop import StopRequest
from mmtool.engine.timing import PhaseClock
from mmtool.errors import EnvironmentLacks, RequestError
from mmtool.profile.flops import count_costs
from mmtool.profile.report import ProfileReport

_NUM_BLOCKS = 4
_WARMUP_STEPS = 3
_TRACED_STEPS = 3


def _ignore(kind: str, **fields: object) -> None:
    """Take an event and do nothing with it: a measurement leaves no run behind."""
    del kind, fields


def profile(
    loaded: Loaded, *, data_root: Path, steps: int = 40, trace: Path | None = None
) -> ProfileReport:
    """Measure a recipe for about `steps` steps of each kind; nothing is kept but the report."""
    recipe = loaded.recipe
    if recipe.launch.gpus > 1:
        raise RequestError(
            f"profile measures one rank, the recipe asks for {recipe.launch.gpus}",
            fix="--gpus 1, and divide the predicted compute time by the number of GPUs",
        )
    device = choose_device(recipe.launch.device)
    set_threads(recipe, device, world=1)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    job = build_job(
        recipe, Ranks(device=device), data_root=data_root, relative_to=loaded.path.parent
    )
    measured = _Measurement(job)
    try:
        costs = count_costs(job)
        measured.run(steps)
        if trace is not None:
            measured.write_trace(trace)
        return ProfileReport(
            recipe=loaded.name,
            device=str(device),
            num_threads=torch.get_num_threads(),
            batch_size=recipe.train.batch_size,
            steps_per_epoch=job.steps_per_epoch(),
            epochs=recipe.train.epochs,
            costs=costs,
            real_ms=measured.real_ms,
            synthetic_ms=measured.synthetic_ms,
            loader_ms=measured.loader_ms(steps),
            phases=measured.phases,
            peak_memory_bytes=_peak_memory(device),
            memory_kind="GPU allocator" if device.type == "cuda" else "process RSS",
        )
    finally:
        measured.close()
        job.close()


class _Measurement:
    """Alternating blocks of real and synthetic steps."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.real_ms: list[float] = []
        self.synthetic_ms: list[float] = []
        self.phases: list[dict[str, float]] = []
        self._clock = PhaseClock(job.device)
        metrics = MetricLog(self._clock)
        saver = Saver(job, Path(), _ignore)
        self._fit = Fit(job, _ignore, Path(), StopRequest(), metrics, saver)
        begin_epoch(job)
        self._shares = self._endless()

    def close(self) -> None:
        """Let the loader end."""
        self._shares.close()

    def _endless(self) -> Generator[LoadedShare, None, None]:
        """Give shares of one epoch after the other."""
        epoch = 0
        while True:
            size = self.job.recipe.train.batch_size
            visits = self.job.dataset.epoch_order(
                self.job.train_visits(), seed=0, epoch=epoch, batch_size=size
            )
            # The short last batch would make steps of two kinds.
            whole = max(1, len(visits) // size)
            micro = self.job.recipe.train.accumulate
            shares = (
                rank_share(visits, s, batch_size=size, micro_batches=micro) for s in range(whole)
            )
            yield from self.job.loader.run(shares, epoch=epoch)
            epoch += 1

    def run(self, steps: int) -> None:
        """Measure about `steps` real and as many synthetic steps."""
        cached = next(self._shares)
        for _ in range(_WARMUP_STEPS):
            self._step(cached)
        self._clock.read()
        for _ in range(_NUM_BLOCKS):
            for _ in range(-(-steps // _NUM_BLOCKS)):
                started = time.perf_counter()
                loaded = next(self._shares)
                self._step(loaded)
                self.real_ms.append((time.perf_counter() - started) * 1e3)
            self.phases += self._clock.read()
            for _ in range(-(-steps // _NUM_BLOCKS)):
                started = time.perf_counter()
                self._step(cached)
                self.synthetic_ms.append((time.perf_counter() - started) * 1e3)
            self._clock.read()

    def _step(self, loaded: LoadedShare) -> None:
        run_step(self._fit, loaded, self.job.steps_per_epoch())
        if self.job.device.type == "cuda":
            torch.cuda.synchronize()

    def loader_ms(self, steps: int) -> list[float]:
        """Measure the loader alone: milliseconds per batch."""
        times = []
        for _ in range(steps):
            started = time.perf_counter()
            next(self._shares)
            times.append((time.perf_counter() - started) * 1e3)
        return times

    def write_trace(self, path: Path) -> None:
        """Write a Chrome trace of a few real steps."""
        activities = [torch.profiler.ProfilerActivity.CPU]
        if self.job.device.type == "cuda":
            activities.append(torch.profiler.ProfilerActivity.CUDA)
        with torch.profiler.profile(activities=activities, record_shapes=True) as recorded:
            for _ in range(_TRACED_STEPS):
                self._step(next(self._shares))
        try:
            recorded.export_chrome_trace(str(path))
        except (OSError, RuntimeError) as err:
            raise EnvironmentLacks(
                f"the trace cannot be written to {path}: {err}", fix="--trace another/file.json"
            ) from err


def _peak_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
