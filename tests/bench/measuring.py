"""Measure what the default tier of measurement costs a run: probes, norms, log, epochs' ends.

    python tests/bench/measuring.py [--batch-size 16] [--repeats 6] [--out RESULTS]

All times are processor seconds of this process on one thread, since what else a machine does would
drown shares of one percent. The run is OGM-GE on CREMA-D's shape (two ResNet-18).

side by side   steps with probes and norms in turns with steps that lack them, as the median of the
               ratios; its error is that of a difference of two long times
parts          the engine's own account of the same steps (engine/overhead.py), which times only
               what is measured; norms are those of every tenth step
small          both again for small convolutional encoders, where the two ways must agree: there
               measuring is not hidden in the noise
epoch          what is measured of 512 of CREMA-D's 744 validation samples, and the evaluation of
               512 training samples in every so many of 100 epochs
share          all parts of a CREMA-D epoch together, over the epoch without them
"""

import argparse
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from record import RESULTS, write_results
from running import processor_s, small_recipe
from subjects import OurTraining, recipe_for, write_synthetic_store

from mmtool.config.schema import Recipe
from mmtool.data.loader import LoadedShare
from mmtool.engine.allocator import keep_freed_memory
from mmtool.engine.distributed import Ranks
from mmtool.engine.evaluate import Encoded, encode_rows, measure
from mmtool.engine.job import Job
from mmtool.engine.overhead import LIMIT, Overhead
from mmtool.engine.train_sample import interval
from mmtool.runlog.system import SystemSampler
from mmtool.runlog.writer import EventWriter
from mmtool.testing.training import ignore

CPU = torch.device("cpu")
NUM_TRAIN, NUM_VAL, NUM_CLASSES, EPOCHS, SAMPLES = 6698, 744, 6, 100, 512
NEVER = 10**9


def with_log(recipe: Recipe, **options: Any) -> Recipe:
    return recipe.model_copy(update={"log": recipe.log.model_copy(update=options)})


def run_step(training: OurTraining, share: LoadedShare, writer: EventWriter) -> None:
    """Train on a share and write its metrics, as the loop does."""
    training.step(share)
    for record in training.job.overhead.read_with(training.fit.metrics.flush):
        with training.job.overhead.part("log"):
            writer.write("step", **record)


def measure_steps(recipe: Recipe, folder: Path, *, repeats: int) -> dict[str, Any]:
    """Alternate steps with and without the default tier; norms are taken in every tenth pair."""
    every = recipe.log.norms_every_steps
    on = OurTraining(recipe, CPU, folder)
    off = OurTraining(with_log(recipe, probes=False, norms_every_steps=NEVER), CPU, folder)
    share = next(iter(on.shares()))
    ratios, bare = [], []
    with EventWriter(folder / "on.jsonl") as log_on, EventWriter(folder / "off.jsonl") as log_off:
        for training, log in ((on, log_on), (off, log_off)):
            for _ in range(2):
                run_step(training, share, log)
        off.job.progress.step = on.job.progress.step = 0
        on.job.overhead = Overhead(CPU, clock=time.process_time)
        for _ in range(repeats):
            with_tier, without = 0.0, 0.0
            for _ in range(every):
                without += processor_s(lambda: run_step(off, share, log_off))
                with_tier += processor_s(lambda: run_step(on, share, log_on))
            ratios.append(with_tier / without)
            bare.append(without / every)
    costs, num_steps = on.job.overhead.account(Ranks()), repeats * every
    on.close()
    off.close()
    step_s = statistics.median(bare)
    parts = {p: s / num_steps / step_s for p, s in costs.parts.items() if s}
    return {
        "step_ms": step_s * 1e3,
        "side_by_side": statistics.median(ratios) - 1,
        "side_by_side_all": [ratio - 1 for ratio in ratios],
        "parts": parts,
        "share": sum(parts.values()),
        "num_steps": num_steps,
    }


def larger(job: Job, encoded: Encoded, size: int) -> Encoded:
    """Give a set of this size with noise of these features' widths."""
    generator = torch.Generator().manual_seed(0)
    features = {
        m: torch.randn(size, f.shape[1], generator=generator) for m, f in encoded.features.items()
    }
    label = torch.arange(size) % NUM_CLASSES
    present = torch.ones(size, len(job.model.modalities), dtype=torch.bool)
    return replace(encoded, features=features, label=label, index=label, present=present)


def measure_epoch(recipe: Recipe, folder: Path, *, step_s: float, repeats: int) -> dict[str, Any]:
    """Time what an epoch's end adds on CREMA-D, over the epoch's steps and validation."""
    training = OurTraining(recipe, CPU, folder)
    job, rows = training.job, training.job.dataset.rows("train")
    forward, modalities = [], []
    for _ in range(repeats):
        forward.append(processor_s(lambda: encode_rows(job, rows)) / len(rows))
        val = larger(job, encode_rows(job, rows), NUM_VAL)
        job.overhead = Overhead(CPU, clock=time.process_time)
        measure(job, val, "val")
        modalities.append(job.overhead.account(Ranks()).parts["modalities"])
    sampler = SystemSampler(ignore, 3600.0)
    sampler.open()
    sample_s = statistics.median(processor_s(sampler.sample_once) for _ in range(10))
    training.close()
    forward_s = statistics.median(forward)
    epoch_s = NUM_TRAIN / recipe.train.batch_size * step_s + NUM_VAL * forward_s
    every = interval(SAMPLES, NUM_TRAIN, EPOCHS)
    return {
        "forward_ms_per_sample": forward_s * 1e3,
        "epoch_s": epoch_s,
        "modalities_ms": statistics.median(modalities) * 1e3,
        "train_sample_s": SAMPLES * forward_s,
        "train_sample_every_epochs": every,
        "parts": {
            "modalities": statistics.median(modalities) / epoch_s,
            "train_sample": SAMPLES * forward_s / every / epoch_s,
            "system": sample_s / recipe.log.system_every_s,
        },
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=6, help="tens of steps of small encoders")
    parser.add_argument("--large-repeats", type=int, default=2, help="tens of steps of ResNet-18")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    keep_freed_memory(CPU)
    torch.set_num_threads(1)
    size = given.batch_size
    results: dict[str, Any] = {"batch_size": size, "goal": LIMIT}
    with tempfile.TemporaryDirectory(prefix="mmtool-bench-") as name:
        folder = Path(name)
        store = write_synthetic_store(folder / "store", num_rows=2 * size, num_frames=1)
        large = recipe_for(store, batch_size=size, precision="fp32")
        results["small"] = measure_steps(small_recipe(store, size), folder, repeats=given.repeats)
        results["steps"] = measure_steps(large, folder, repeats=given.large_repeats)
        results["epoch"] = measure_epoch(
            large, folder, step_s=results["steps"]["step_ms"] / 1e3, repeats=3
        )
    results["share"] = results["steps"]["share"] + sum(results["epoch"]["parts"].values())
    for name in ("small", "steps", "epoch", "share", "goal"):
        print(f"{name}: {results[name]}")
    print(write_results("measuring", results, given.out))
    return 0


if __name__ == "__main__":
    sys.exit(main())
