"""Measure what every balancing method adds to a training step: time and peak memory beside `none`.

    python tests/bench/methods.py [--only ogm,agm] [--batch-size 64] [--repeats 9] [--device cuda]

Each method trains the contract's case of it on frames and spectrograms with two small convolutional
encoders (a method that needs other encoders or another fusion is compared with `none` on those).
Steps of the method and of `none` take turns in this process, so that what else the machine does
meets both; time is the ratio of processor time (of wall time on a GPU), as the median over the
turns. Peak memory is that of live tensors within a step, counted from allocations and releases (on
a GPU by torch's own counter).
"""

import argparse
import statistics
import sys
import tempfile
import time
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from record import RESULTS, write_results
from subjects import OurTraining
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mmtool import registry
from mmtool.testing.cases import Case, case_of, contract_recipe
from mmtool.testing.fakes import FakeModality, write_fake_store

SMALL = {
    "audio": {"name": "cnn", "width": 16},
    "image": {"name": "cnn", "width": 16},
}


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of storages that were made inside and are still held."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0
        self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        del types
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, torch.Tensor):
                self._hold(value.untyped_storage())
        return result

    def _hold(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self._known:
            return
        self._known.add(key)
        size = storage.nbytes()
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._release, key, size)

    def _release(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


def subject(method: str, case: Case, root: Path, batch_size: int, device: torch.device) -> Any:
    """Give a training of this method and a fixed batch of it."""
    recipe = contract_recipe(method, case, batch_size=batch_size)
    training = OurTraining(recipe, device, root)
    return training, next(iter(training.shares()))


def bench_case(method: str) -> Case:
    """Give the method's case with encoders large enough to be worth timing."""
    case = case_of(method)
    is_plain = case.encoders == Case().encoders
    return replace(
        case, modalities=("audio", "image"), encoders=SMALL if is_plain else case.encoders
    )


def peak_bytes(training: OurTraining, share: Any, device: torch.device) -> int:
    """Give the most bytes that were live within one step, beyond those before it."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        training.step(share)
        return torch.cuda.max_memory_allocated() - before
    with LiveBytes() as live:
        training.step(share)
    return live.peak


def seconds(training: OurTraining, share: Any, device: torch.device) -> float:
    """Give processor seconds of a step, or wall seconds on a GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        started = time.perf_counter()
        training.step(share)
        torch.cuda.synchronize()
        return time.perf_counter() - started
    started = time.process_time()
    training.step(share)
    return time.process_time() - started


def compare(
    method: str, root: Path, batch_size: int, repeats: int, device: torch.device
) -> dict[str, Any]:
    """Run steps of a method and of `none` in turn."""
    case = bench_case(method)
    plain = replace(case, options={})
    ours, share = subject(method, case, root, batch_size, device)
    base, same = subject("none", plain, root, batch_size, device)
    times: list[tuple[float, float]] = []
    for turn in range(repeats + 2):  # the first two turns warm up
        pair = seconds(base, same, device), seconds(ours, share, device)
        if turn >= 2:
            times.append(pair)
    memory = peak_bytes(base, same, device), peak_bytes(ours, share, device)
    for training in (ours, base):
        training.close()
    return {
        "time_ratio": round(statistics.median(b / a for a, b in times), 3),
        "memory_ratio": round(memory[1] / memory[0], 3),
        "step_ms": round(1e3 * statistics.median(b for _, b in times), 2),
        "none_step_ms": round(1e3 * statistics.median(a for a, _ in times), 2),
        "peak_mib": round(memory[1] / 2**20, 2),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    device = torch.device(given.device)
    torch.set_num_threads(1)
    chosen = given.only.split(",") if given.only else registry.names("methods")
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="mmtool-bench-") as name:
        root = Path(name)
        modalities = {
            "audio": FakeModality((1, 32, 32), "spectrogram"),
            "image": FakeModality((1, 32, 32), "frames"),
        }
        splits = {"train": 2 * given.batch_size, "val": 32, "test": 8}
        write_fake_store(root / "fake", modalities, splits=splits, num_classes=10)
        print(f"{'method':18} {'time':>7} {'memory':>7} {'step ms':>9} {'peak MiB':>9}")
        for method in chosen:
            row = found[method] = compare(method, root, given.batch_size, given.repeats, device)
            figures = f"{row['time_ratio']:7.2f} {row['memory_ratio']:7.2f}"
            print(f"{method:18} {figures} {row['step_ms']:9.2f} {row['peak_mib']:9.2f}", flush=True)
    results = {
        "device": device.type,
        "batch_size": given.batch_size,
        "repeats": given.repeats,
        "methods": found,
    }
    print(write_results(f"methods_{device.type}", results, given.out))
    return 0


if __name__ == "__main__":
    sys.exit(main())
