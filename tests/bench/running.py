"""Measure what a run costs beside its steps: checkpoints, logging, a new epoch, a second rank.

    python tests/bench/running.py [--steps 20] [--repeats 5] [--out RESULTS]

Each cost is measured in turns with steps that lack it, in one process on one thread, so what else
the machine does meets both. Steps are those of OGM-GE on CREMA-D's shape (two ResNet-18); the model
is the largest a reference recipe has, so a checkpoint is as large as its can be.

checkpoint   the time for which training waits when a save begins, over that of a step, if one is
             taken in every `--checkpoint-every` steps
logging      processor time of a step's metrics, of writing them and of samples of the system at the
             default interval, over that of a step
epoch        from the end of an epoch's last step to the first batch of the next, loader included
ranks        samples per second of two gloo ranks over those of one, each on one core of its own:
             on small encoders, whose gradients are quick to sum, and on the ResNet-18 pair
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from record import RESULTS, write_results
from subjects import OurTraining, recipe_for, write_synthetic_store

from mmtool.config.schema import Recipe
from mmtool.engine.allocator import keep_freed_memory
from mmtool.engine.distributed import Ranks
from mmtool.engine.saving import Saver
from mmtool.runlog.system import SystemSampler
from mmtool.runlog.writer import EventWriter
from mmtool.testing.ranks import run_ranks
from mmtool.testing.training import ignore

CPU = torch.device("cpu")
GOALS = {"checkpoint": 0.02, "logging": 0.01, "epoch_s": 0.05, "two ranks over one": 1.7}
SYSTEM_SAMPLES = 10


def processor_s(run: Callable[[], object]) -> float:
    """Give the processor seconds of this thread in a call."""
    started = time.thread_time()
    run()
    return time.thread_time() - started


def wall_s(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def measure_checkpoint(
    training: OurTraining, folder: Path, *, repeats: int, every: int
) -> dict[str, Any]:
    """Compare steps that follow a save, and the save itself, with steps that do not."""
    share = next(iter(training.shares()))
    saver = Saver(training.job, folder, ignore)

    def step() -> None:
        training.step(share)

    step()
    saver.save()
    saver.finish()
    begin, beside, plain = [], [], []
    for _ in range(repeats):
        plain.append(wall_s(step))
        begin.append(wall_s(saver.save))
        beside.append(wall_s(step))  # while the file is being written
        saver.finish()
    own, stall = statistics.median(plain), statistics.median(begin)
    slower = max(0.0, statistics.median([b - p for b, p in zip(beside, plain, strict=True)]))
    return {
        "step_ms": own * 1e3,
        "stall_ms": stall * 1e3,
        "slower_step_ms": slower * 1e3,
        "every_steps": every,
        "share": stall / (every * own),
        "share_with_slower_step": (stall + slower) / (every * own),
    }


def measure_logging(training: OurTraining, folder: Path, *, repeats: int) -> dict[str, Any]:
    """Time the metrics of a step, from the device to the disk, and a sample of the system."""
    share, every = next(iter(training.shares())), training.job.recipe.log.every_steps
    own, flushes = [], []
    with EventWriter(folder / "rank0.jsonl") as writer:

        def flush() -> None:
            for record in training.fit.metrics.flush():
                writer.write("step", **record)

        training.fit.metrics.flush()
        for _ in range(repeats):
            own.append(processor_s(lambda: training.step(share)))
            number = len(training.fit.metrics)
            flushes.append(processor_s(flush) / max(1, number))
        with EventWriter(folder / "system.jsonl") as system:
            sampler = SystemSampler(ignore, 3600.0)
            sampler.open()

            def sample() -> None:
                system.write("sys", **sampler.sample_once())

            sample()
            samples = [processor_s(sample) for _ in range(SYSTEM_SAMPLES)]
    step_s, interval = statistics.median(own), training.job.recipe.log.system_every_s
    log_s, sample_s = statistics.median(flushes), statistics.median(samples)
    return {
        "step_ms": step_s * 1e3,
        "log_ms_per_step": log_s * 1e3,
        "system_sample_ms": sample_s * 1e3,
        "system_every_s": interval,
        "flushed_every_steps": every,
        "share": log_s / step_s + sample_s / interval,
    }


def measure_epoch(training: OurTraining, *, repeats: int) -> dict[str, Any]:
    """Time from the last step of an epoch to the first batch of the next."""
    found = []
    for _ in range(repeats + 1):
        for _ in training.shares():
            pass
        found.append(wall_s(lambda: next(iter(training.shares()))))
    return {"seconds": statistics.median(found[1:]), "all": found[1:]}


def small_recipe(store: Path, batch_size: int) -> Recipe:
    """Give small convolutional encoders in the place of the ResNet-18 pair."""
    recipe = recipe_for(store, batch_size=batch_size, precision="fp32")
    encoders = {m: {"name": "cnn", "width": 16} for m in ("audio", "video")}
    fields = recipe.model_dump()
    fields["model"]["encoders"] = encoders
    return Recipe.model_validate(fields)


def train_on_core(ranks: Ranks, store: str, out: str, kind: str, size: str, steps: str) -> None:
    """Train some steps on a core of this rank's own; called in each rank process."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[ranks.rank % len(cores)]})
    keep_freed_memory(CPU)
    batch = int(size) * ranks.world
    small = small_recipe(Path(store), batch)
    large = recipe_for(Path(store), batch_size=batch, precision="fp32")
    recipe = small if kind == "small" else large
    training = OurTraining(recipe, CPU, Path(out), ranks)
    share = next(iter(training.shares()))
    training.step(share)
    ranks.barrier()
    seconds = wall_s(lambda: [training.step(share) for _ in range(int(steps))])
    training.close()
    if ranks.is_first:
        rate = batch * int(steps) / seconds
        (Path(out) / f"{kind}.{ranks.world}.json").write_text(json.dumps(rate), encoding="utf-8")


def measure_ranks(store: Path, folder: Path, *, repeats: int, size: int) -> dict[str, Any]:
    """Run one rank and two in turns, each rank with a batch of the same size."""
    target, found = f"{Path(__file__).resolve()}:train_on_core", {}
    # The ranks load this file by its path, and with it its neighbours by their names.
    os.environ["PYTHONPATH"] = str(Path(__file__).resolve().parent)
    for kind, steps in (("small", 12), ("resnet18", 3)):
        ratios, rates = [], {1: 0.0, 2: 0.0}
        for _ in range(repeats):
            for world in (1, 2):
                given = (str(store), str(folder), kind, str(size), str(steps))
                run_ranks(world, target, *given, timeout_s=300.0)
                rates[world] = json.loads((folder / f"{kind}.{world}.json").read_text())
            ratios.append(rates[2] / rates[1])
        found[kind] = {
            "ratio": statistics.median(ratios),
            "ratios": ratios,
            "samples_per_s": rates,
            "batch_per_rank": size,
        }
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--rank-repeats", type=int, default=2, help="0 leaves out the ranks")
    parser.add_argument("--checkpoint-every", type=int, default=100)
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    keep_freed_memory(CPU)
    torch.set_num_threads(1)
    results: dict[str, Any] = {"batch_size": given.batch_size, "goals": GOALS}
    with tempfile.TemporaryDirectory(prefix="mmtool-bench-") as name:
        folder = Path(name)
        store = write_synthetic_store(folder / "store", num_rows=4 * given.batch_size, num_frames=1)
        recipe = recipe_for(store, batch_size=given.batch_size, precision="fp32")
        training = OurTraining(recipe, CPU, folder)
        every = given.checkpoint_every
        results["checkpoint"] = measure_checkpoint(
            training, folder / "ckpt", repeats=given.repeats, every=every
        )
        results["logging"] = measure_logging(training, folder, repeats=given.repeats)
        results["epoch"] = measure_epoch(training, repeats=given.repeats)
        training.close()
        if given.rank_repeats:
            results["ranks"] = measure_ranks(
                store, folder, repeats=given.rank_repeats, size=given.batch_size
            )
    for name in ("checkpoint", "logging", "epoch", "ranks"):
        print(f"{name}: {results.get(name)}")
    print(f"goals: {GOALS}")
    print(write_results("running", results, given.out))
    return 0


if __name__ == "__main__":
    sys.exit(main())
