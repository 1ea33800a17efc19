"""Measure the loader beside that of the usual recipe, on generated clips in CREMA-D's layout.

    python tests/bench/loader.py [--clips 96] [--repeats 3] [--out RESULTS]

The reference (tests/bench/reference.py) decodes JPEG and takes spectrograms in two worker
processes, which are kept between epochs although the recipe starts them anew; ours reads the store
that `mmtool prepare` wrote from the same clips, in threads. Both run turn by turn in this process,
so what else the machine does meets both; a ratio is the median of the repeats. "bytes" are uint8
crops and float16 spectrograms to be normalised by the device, "float32" the very shapes and types
that the reference gives.
Sources have 341 x 256 pixels; their pictures are as generated, so that JPEG decoding is cheaper
than with footage, to the reference's advantage.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import reference
import torch
from record import RESULTS, write_results

from mmtool.config.schema import DataConfig
from mmtool.data.dataset import Dataset, open_dataset
from mmtool.data.loader import Loader
from mmtool.data.samplers import Visits, num_batches, rank_share
from mmtool.engine.allocator import keep_freed_memory
from mmtool.prepare.pipeline import prepare
from mmtool.prepare.request import PrepareRequest
from mmtool.testing.layouts.cremad import names, write_cremad

BATCH_SIZE = 64
NUM_WORKERS = 2
NUM_AHEAD = 2 * NUM_WORKERS
NUM_TIMED = 6
CPU = torch.device("cpu")
GOALS = {
    "bytes, 1 frame": 30.0,
    "float32, 1 frame": 15.0,
    "bytes, 3 frames": 25.0,
    "float32, 3 frames": 10.0,
    "restart_s": 0.05,
}
AUGMENT = {"size": 224, "crop_scale": (0.08, 1.0), "flip": True}


def prepared(release: Path, folder: Path, num_frames: int) -> Dataset:
    """Prepare a store with this many frames and open it as the OGM-GE recipe does."""
    options = {"frames": f"{num_frames}"}
    request = PrepareRequest("cremad", release, folder / f"frames{num_frames}", options=options)
    prepare(request, lambda _: None)
    config = DataConfig.model_validate(
        {
            "dataset": str(request.out),
            "split": "ogm-ge",
            "columns": {"audio": "audio.ogm_ge"},
            "augment": {"video": AUGMENT},
        }
    )
    return open_dataset(config, folder)


def rate_of_ours(loader: Loader, seconds: float) -> float:
    """Give samples per second of epochs one after the other, restarts and last batches included."""
    rows = np.arange(len(loader.dataset.store.index.label))
    seen, epoch, started = 0, 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        order = np.random.default_rng(epoch).permutation(np.tile(rows, 8))
        visits = Visits(order)
        shares = (
            rank_share(visits, s, batch_size=BATCH_SIZE)
            for s in range(num_batches(len(visits), BATCH_SIZE))
        )
        for loaded in loader.run(shares, epoch=epoch):
            seen += sum(batch.size for batch in loaded.batches)
        epoch += 1
    return seen / (time.perf_counter() - started)


def rate_of_reference(batches: Iterator[int], num_batches: int) -> float:
    """Give samples per second over this many batches of a running loader."""
    for _ in range(NUM_AHEAD):  # made while this process did something else
        next(batches)
    started = time.perf_counter()
    seen = sum(next(batches) for _ in range(num_batches))
    rate = seen / (time.perf_counter() - started)
    wait_for_workers()
    return rate


def processor_seconds() -> float:
    """Give the processor time of this process and its workers."""
    workers = psutil.Process().children()
    return time.process_time() + sum(sum(w.cpu_times()[:2]) for w in workers)


def wait_for_workers() -> None:
    """Return once the workers have filled their queue: they would take the cores from the next."""
    workers = psutil.Process().children()
    while True:
        before = sum(sum(w.cpu_times()[:2]) for w in workers)
        time.sleep(0.2)
        if sum(sum(w.cpu_times()[:2]) for w in workers) - before < 0.02:
            return


def endless(loader: torch.utils.data.DataLoader) -> Iterator[int]:
    while True:
        for _, _, label in loader:
            yield len(label)


def restart_seconds(loader: Loader) -> float:
    """Give the time from the end of an epoch to the first batch of the next."""
    visits = Visits(np.arange(BATCH_SIZE) % len(loader.dataset.store.index.label))
    started = time.perf_counter()
    for _ in loader.run([rank_share(visits, 0, batch_size=BATCH_SIZE)], epoch=0):
        return time.perf_counter() - started
    raise AssertionError("no batch")


def reference_restart_seconds(data: reference.ReferenceData) -> float:
    started = time.perf_counter()
    loader = reference.reference_loader(data, batch_size=BATCH_SIZE, num_workers=NUM_WORKERS)
    next(iter(loader))
    return time.perf_counter() - started


def compare(
    dataset: Dataset, data: reference.ReferenceData, repeats: int, seconds: float
) -> dict[str, dict[str, object]]:
    """Run reference, bytes and float32 turn by turn."""
    loaders = {
        "bytes": Loader(dataset, device=CPU, seed=0, as_stored=True),
        "float32": Loader(dataset, device=CPU, seed=0),
    }
    theirs = endless(
        reference.reference_loader(
            data, batch_size=BATCH_SIZE, num_workers=NUM_WORKERS, persistent=True
        )
    )
    next(theirs)
    turns: dict[str, Callable[[], float]] = {
        "reference": lambda: rate_of_reference(theirs, NUM_TIMED),
        **{k: (lambda loader=v: rate_of_ours(loader, seconds)) for k, v in loaders.items()},
    }
    rates: dict[str, list[float]] = {name: [] for name in turns}
    costs: dict[str, list[float]] = {name: [] for name in turns}
    wait_for_workers()
    for repeat in range(repeats + 1):  # the first warms caches
        for name, run in turns.items():
            before, started = processor_seconds(), time.perf_counter()
            rate = run()
            # The reference refills its queue before it returns: NUM_AHEAD batches are made for
            # those taken from it.
            made = (
                (NUM_TIMED + NUM_AHEAD) * BATCH_SIZE
                if name == "reference"
                else rate * (time.perf_counter() - started)
            )
            if repeat:
                rates[name].append(rate)
                costs[name].append((processor_seconds() - before) * 1e3 / made)
    found = {}
    for name, loader in loaders.items():
        ratios = [b / a for a, b in zip(rates["reference"], rates[name], strict=True)]
        found[name] = {
            "samples_per_s": round(statistics.median(rates[name])),
            "reference_samples_per_s": round(statistics.median(rates["reference"])),
            "ratio": round(statistics.median(ratios), 1),
            "ratios": [round(r, 1) for r in ratios],
            "processor_ms_per_sample": round(statistics.median(costs[name]), 3),
            "reference_processor_ms_per_sample": round(statistics.median(costs["reference"]), 3),
            "processor_ratio": round(
                statistics.median(costs["reference"]) / statistics.median(costs[name]), 1
            ),
            "restart_s": round(min(restart_seconds(loader) for _ in range(3)), 4),
        }
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=96)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each turn of ours")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    is_kept = keep_freed_memory(CPU)  # as every run on the CPU does
    measured: dict[str, dict[str, object]] = {}
    with tempfile.TemporaryDirectory(prefix="mmtool-bench-") as name:
        folder = Path(name)
        write_cremad(folder / "release", names(given.clips), bad=False)
        reference.extract_frames(folder / "release", folder / "jpeg")
        for frames, words in ((1, "1 frame"), (3, "3 frames")):
            dataset = prepared(folder / "release", folder, frames)
            data = reference.ReferenceData(
                folder / "release", folder / "jpeg", num_frames=frames, copies=8
            )
            for kind, found in compare(dataset, data, given.repeats, given.seconds).items():
                measured[f"{kind}, {words}"] = found
            dataset.store.close()
        restart = reference_restart_seconds(data)
    for name, found in measured.items():
        print(f"{name}: {found['ratio']}x (goal {GOALS[name]}x) {found}")
    print(f"reference, start of an epoch: {restart:.2f} s (goal of ours {GOALS['restart_s']} s)")
    results = {
        "allocator_kept_memory": is_kept,
        "goals": GOALS,
        "reference_restart_s": round(restart, 2),
        "measured": measured,
    }
    print(write_results("loader", results, given.out))
    return 0


if __name__ == "__main__":
    sys.exit(main())
