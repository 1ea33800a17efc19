"""Measure the training step beside that of the usual recipe, on this machine's CPU.

    python tests/bench/step.py [--batch-size 8] [--repeats 5] [--clips 48] [--out RESULTS]

Two ResNet-18 on a 257 x 188 spectrogram and one frame of 224, modulated by OGM-GE, in float32 and
in bfloat16, beside tests/bench/reference.py in float32. All take turns in this process on one
thread, so what else the machine does meets them alike; a ratio is the median of the repeats, and
that of processor time is given too. Ours logs scores, norms and linear probes at every step, which
the reference does not. Then whole training from generated clips, loaders included, on two threads;
and the operators and host reads of a step at batch 64.
"""

import argparse
import itertools
import statistics
import sys
import tempfile
import time
from pathlib import Path

import reference
import torch
from loader import prepared
from record import RESULTS, write_results
from subjects import (
    OurTraining,
    as_reference,
    recipe_for,
    repeated,
    timed,
    write_synthetic_store,
)

from mmtool.engine.allocator import keep_freed_memory
from mmtool.testing.host_reads import watch_host_reads
from mmtool.testing.layouts.cremad import names, write_cremad

CPU = torch.device("cpu")
GOALS = {
    "fp32": 1.0,
    "bf16": 1.8,
    "end to end": 2.0,
    "host reads": 0,
    "operators at batch 64": 700,
}


def compare_steps(batch_size: int, repeats: int, folder: Path) -> dict[str, dict[str, object]]:
    """Run one step of each in turn on the same fixed batch."""
    store = write_synthetic_store(folder / "steps", num_rows=batch_size, num_frames=1)
    theirs = reference.ReferenceTraining(CPU)
    ours = {
        precision: OurTraining(
            recipe_for(store, batch_size=batch_size, precision=precision), CPU, folder
        )
        for precision in ("fp32", "bf16")
    }
    share = next(iter(ours["fp32"].shares()))
    fixed = as_reference(share.batches[0])
    turns = {
        "reference": lambda: theirs.step(*fixed),
        **{name: (lambda training=t: training.step(share)) for name, t in ours.items()},
    }
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in turns}
    for repeat in range(repeats + 1):  # the first turn warms up
        for name, run in turns.items():
            found = timed(run)
            if repeat:
                seconds[name].append(found)
    for training in ours.values():
        training.close()
    return {
        name: {
            **_ratios("ratio", seconds["reference"], seconds[name], 0),
            **_ratios("processor_ratio", seconds["reference"], seconds[name], 1),
            "step_s": round(statistics.median(w for w, _ in seconds[name]), 3),
            "reference_step_s": round(statistics.median(w for w, _ in seconds["reference"]), 3),
        }
        for name in ours
    }


def _ratios(
    name: str, theirs: list[tuple[float, float]], ours: list[tuple[float, float]], at: int
) -> dict[str, object]:
    found = [a[at] / b[at] for a, b in zip(theirs, ours, strict=True)]
    each = [round(ratio, 2) for ratio in found]
    return {name: round(statistics.median(found), 2), f"{name}s": each}


def count_step(folder: Path, *, batch_size: int = 64) -> dict[str, object]:
    """Count the operators and host reads of a step of both at this batch size."""
    store = write_synthetic_store(folder / "count", num_rows=4, num_frames=1)
    ours = OurTraining(recipe_for(store, batch_size=4, precision="fp32"), CPU, folder)
    share = repeated(next(iter(ours.shares())), batch_size)
    theirs = reference.ReferenceTraining(CPU)
    with watch_host_reads() as own:
        ours.step(share)
    with watch_host_reads() as other:
        theirs.step(*as_reference(share.batches[0]))
    ours.close()
    return {
        "operators": own.num_operators,
        "host_reads": len(own.reads),
        "reference_operators": other.num_operators,
        "reference_host_reads": other.operators["aten::_local_scalar_dense"],
        "batch_size": batch_size,
    }


def end_to_end(batch_size: int, num_clips: int, repeats: int, folder: Path) -> dict[str, object]:
    """Train an epoch of each in turn from clips, loaders and their start included."""
    release, frames = folder / "release", folder / "jpeg"
    write_cremad(release, names(num_clips), bad=False)
    reference.extract_frames(release, frames)
    dataset = prepared(release, folder, 1)
    store, config = dataset.store.path, dataset.config
    dataset.store.close()
    data = reference.ReferenceData(release, frames, num_frames=1)
    theirs = reference.ReferenceTraining(CPU)
    options = {"split": config.split, "columns": config.columns}
    recipe = recipe_for(store, batch_size=batch_size, precision="bf16", data=options)
    ours = OurTraining(recipe, CPU, folder)

    def reference_epoch() -> int:
        found = reference.reference_loader(data, batch_size=batch_size, num_workers=2)
        return sum(theirs.epoch(found))

    def our_epoch() -> int:
        seen = 0
        for share in ours.shares():
            ours.step(share)
            seen += share.global_size
        return seen

    rates: dict[str, list[float]] = {"reference": [], "mmtool": []}
    for _, (name, run) in itertools.product(
        range(repeats), (("reference", reference_epoch), ("mmtool", our_epoch))
    ):
        started = time.perf_counter()
        seen = run()
        rates[name].append(seen / (time.perf_counter() - started))
    ours.close()
    found = [b / a for a, b in zip(rates["reference"], rates["mmtool"], strict=True)]
    return {
        "ratio": round(statistics.median(found), 2),
        "ratios": [round(ratio, 2) for ratio in found],
        "samples_per_s": {n: round(statistics.median(r), 2) for n, r in rates.items()},
        "precision": "bf16 beside the reference's fp32",
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--clips", type=int, default=48)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--default-allocator", action="store_true")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    is_kept = False if given.default_allocator else keep_freed_memory(CPU)
    with tempfile.TemporaryDirectory(prefix="mmtool-bench-") as name:
        folder, threads = Path(name), torch.get_num_threads()
        torch.set_num_threads(1)
        counts = count_step(folder)
        steps = compare_steps(given.batch_size, given.repeats, folder)
        torch.set_num_threads(threads)
        whole = (
            end_to_end(given.batch_size, given.clips, given.epochs, folder) if given.epochs else {}
        )
    for precision, found in steps.items():
        print(f"step, {precision}: {found['ratio']}x (goal {GOALS[precision]}x) {found}")
    if whole:
        print(f"end to end, bf16: {whole['ratio']}x (goal {GOALS['end to end']}x) {whole}")
    print(f"a step: {counts} (goals: 0 host reads, at most 700 operators)")
    results = {
        "batch_size": given.batch_size,
        "allocator_kept_memory": is_kept,
        "goals": GOALS,
        "steps": steps,
        "end_to_end": whole,
        "counts": counts,
    }
    print(write_results("step", results, given.out))
    return 0


if __name__ == "__main__":
    sys.exit(main())
