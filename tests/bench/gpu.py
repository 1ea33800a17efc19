"""Measure training of CREMA-D's reference shape on a GPU, beside the usual loop, and keep figures.

    python tests/bench/gpu.py [--steps 30] [--batches 64 256 1024] [--variants plain compile]
    python tests/bench/gpu.py --smoke          a reduced form for any machine, to see that it runs
    python tests/bench/gpu.py --recipes quickstart avdigits_resnet18   `mmtool profile` of recipes

Two ResNet-18 on a 257 x 188 spectrogram and 1 or 3 frames of 224, modulated by OGM-GE, on noise:
our engine in fp32 and bf16, on one fixed batch ("synthetic") and from a store on the host or on the
device, and tests/bench/reference.py on fixed tensors in fp32, in turns. Written as JSON under
tests/bench/results: samples/s, split of the step, model FLOP utilisation, waits for the device,
share of the time in which the GPU computes, and peak memory. Figures of different machines are not
comparable; those within one file are.
"""

import argparse
import itertools
import json
import platform
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil
import reference
import torch
from record import RESULTS, write_results
from subjects import OurTraining, recipe_for, repeated, write_synthetic_store
from torch.utils.flop_counter import FlopCounterMode

from mmtool.config.load import load_recipe
from mmtool.engine.allocator import keep_freed_memory
from mmtool.prepare.pipeline import prepare
from mmtool.prepare.request import PrepareRequest
from mmtool.profile.run import profile
from mmtool.testing.host_reads import watch_host_reads

PRECISIONS = ("fp32", "bf16")
VARIANTS: dict[str, dict[str, object]] = {
    "plain": {},
    "streams": {"streams": True},
    "compile": {"compile": True},
    "compile+streams": {"compile": True, "streams": True},
}
GOALS = {
    "step over reference, batch 64, bf16": 3.0,
    "real over synthetic": 0.97,
    "mfu": 0.35,
    "waits": 0,
}
# Dense tensor-core peaks from the makers' data sheets, in FLOP/s; fp32 convolutions run as TF32.
PEAKS = {
    "H200": {"bf16": 989e12, "fp32": 494e12},
    "H100": {"bf16": 989e12, "fp32": 494e12},
    "A100": {"bf16": 312e12, "fp32": 156e12},
}
NUM_WARMUP, NUM_TRACED = 5, 5


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_per_step(
    device: torch.device, step: Callable[[], object], steps: int, *, blocks: int = 3
) -> float:
    """Give the median over blocks of the mean time of a step; the device is waited for."""
    found = []
    for _ in range(blocks):
        synchronize(device)
        started = time.perf_counter()
        for _ in range(steps):
            step()
        synchronize(device)
        found.append((time.perf_counter() - started) / steps)
    return statistics.median(found)


def waits(device: torch.device, step: Callable[[], object]) -> int:
    """Give how often a step waits for the device."""
    if device.type != "cuda":
        with watch_host_reads() as reads:
            step()
        return len(reads.reads)
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(warning.message) for warning in caught)


def busy_share(device: torch.device, step: Callable[[], object]) -> float | None:
    """Give the share of the time in which at least one kernel runs."""
    if device.type != "cuda":
        return None
    activities = [torch.profiler.ProfilerActivity.CUDA, torch.profiler.ProfilerActivity.CPU]
    synchronize(device)
    with torch.profiler.profile(activities=activities) as trace:
        for _ in range(NUM_TRACED):
            step()
        synchronize(device)
    spans = sorted(
        (event.time_range.start, event.time_range.end)
        for event in trace.events()
        if event.device_type == torch.autograd.DeviceType.CUDA
    )
    if not spans:
        return 0.0
    busy, until = 0.0, spans[0][0]
    for start, end in spans:
        busy += max(0.0, end - max(start, until))
        until = max(until, end)
    return busy / (until - spans[0][0])


def flops_per_sample(num_frames: int, device: torch.device) -> float:
    """Give the floating-point operations of forward and backward, two per multiply-add."""
    model = reference.ReferenceModel().to(device)
    audio = torch.zeros(2, 1, 257, 188, device=device)
    video = torch.zeros(2, 3, num_frames, 224, 224, device=device)
    with FlopCounterMode(display=False) as counter:
        model(audio, video)[2].sum().backward()
    return counter.get_total_flops() / 2


def peak_flops(device: torch.device, precision: str) -> float | None:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    return next((peaks[precision] for key, peaks in PEAKS.items() if key in name), None)


def peak_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return psutil.Process().memory_info().rss


def measure_ours(
    training: OurTraining, batch_size: int, steps: int, traced: bool
) -> dict[str, Any]:
    """Give the figures of one way to train, on a fixed batch and from the store."""
    device = training.job.device
    share = repeated(next(iter(training.shares())), batch_size)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)

    def fixed() -> None:
        training.step(share)

    stream = training.endless()

    def real() -> None:
        training.step(next(stream))

    for _ in range(NUM_WARMUP if traced else 1):
        fixed()
        real()
    training.fit.metrics.flush()
    synthetic_s = seconds_per_step(device, fixed, steps)
    real_s = seconds_per_step(device, real, steps)
    synchronize(device)
    split = training.clock.read()[-steps:] if len(training.fit.metrics) else []
    training.fit.metrics = type(training.fit.metrics)(training.clock)
    return {
        "synthetic_samples_per_s": batch_size / synthetic_s,
        "real_samples_per_s": batch_size / real_s,
        "real_over_synthetic": synthetic_s / real_s,
        "step_ms": synthetic_s * 1e3,
        "split_ms": {n: statistics.mean(s[n] for s in split) for n in split[0]} if split else {},
        "waits": waits(device, fixed),
        "busy_share": busy_share(device, fixed),
        "peak_memory_bytes": peak_memory(device),
        "resident": training.job.loader.is_resident,
    }


def measure_reference(
    device: torch.device, num_frames: int, batch_size: int, steps: int, traced: bool
) -> dict[str, Any]:
    """Give the figures of the usual loop on fixed tensors."""
    training = reference.ReferenceTraining(device)
    fixed = (
        torch.randn(batch_size, 257, 188, device=device),
        torch.randn(batch_size, 3, num_frames, 224, 224, device=device),
        torch.arange(batch_size, device=device) % reference.NUM_CLASSES,
    )
    training.model.train()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)

    def step() -> None:
        training.step(*fixed)

    for _ in range(NUM_WARMUP if traced else 1):
        step()
    step_s = seconds_per_step(device, step, steps)
    return {
        "synthetic_samples_per_s": batch_size / step_s,
        "step_ms": step_s * 1e3,
        "waits": waits(device, step),
        "busy_share": busy_share(device, step),
        "peak_memory_bytes": peak_memory(device),
    }


def attempt(measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Give figures, or what went wrong: one shape that does not fit must not cost the others."""
    try:
        return measure()
    except Exception as error:  # noqa: BLE001 - kept in the results
        torch.cuda.empty_cache()
        return {"error": f"{type(error).__name__}: {str(error)[:300]}"}


def compare(given: argparse.Namespace, device: torch.device, folder: Path) -> list[dict[str, Any]]:
    """Measure every shape, batch size, precision and variant."""
    found: list[dict[str, Any]] = []
    for num_frames, batch_size in itertools.product(given.frames, given.batches):
        rows = 2 * batch_size if given.smoke else max(512, 2 * batch_size)
        store = folder / f"store{num_frames}x{rows}"
        if not store.exists():
            write_synthetic_store(store, num_rows=rows, num_frames=num_frames)
        flops = flops_per_sample(num_frames, device)
        shape = {"frames": num_frames, "batch_size": batch_size, "gflop_per_sample": flops / 1e9}

        def of_reference(frames: int = num_frames, size: int = batch_size) -> dict[str, Any]:
            return measure_reference(device, frames, size, given.steps, not given.smoke)

        theirs = attempt(of_reference)
        found.append({"engine": "reference", "precision": "fp32", **shape, **theirs})
        for precision, variant, placement in itertools.product(
            PRECISIONS, given.variants, ("host", "device") if device.type == "cuda" else ("host",)
        ):

            def of_ours(
                store: Path = store,
                size: int = batch_size,
                precision: str = precision,
                variant: str = variant,
                placement: str = placement,
            ) -> dict[str, Any]:
                recipe = recipe_for(
                    store,
                    batch_size=size,
                    precision=precision,
                    data={"placement": placement},
                    launch=VARIANTS[variant],
                )
                training = OurTraining(recipe, device, folder)
                try:
                    return measure_ours(training, size, given.steps, not given.smoke)
                finally:
                    training.close()

            ours = attempt(of_ours)
            facts = {"precision": precision, "variant": variant, "placement": placement}
            peak = peak_flops(device, precision)
            if peak is not None and "step_ms" in ours:
                ours["mfu"] = flops * ours["synthetic_samples_per_s"] / peak
            if "step_ms" in ours and "step_ms" in theirs:
                ours["over_reference"] = theirs["step_ms"] / ours["step_ms"]
            found.append({"engine": "mmtool", **facts, **shape, **ours})
            print(json.dumps(found[-1], default=str), flush=True)
    return found


def profiles(names: Sequence[str], data_root: Path, steps: int) -> list[dict[str, Any]]:
    """Run `mmtool profile` for recipes in this process."""
    store = data_root / "avdigits"
    if not store.exists():
        prepare(PrepareRequest("avdigits", None, store), lambda _: None)
    measured = []
    for name, precision in itertools.product(names, PRECISIONS):
        loaded = load_recipe(name, [f"train.precision={precision}"])
        report = profile(loaded, data_root=data_root, steps=steps)
        measured.append({"precision": precision, **report.as_dict()})
        print("\n".join(report.lines()), f"\nprecision: {precision}\n")
    return measured


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--batches", type=int, nargs="+", default=[64, 256, 1024])
    parser.add_argument("--frames", type=int, nargs="+", default=[1, 3])
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=["plain", "streams"])
    parser.add_argument("--recipes", nargs="*", default=[])
    parser.add_argument("--data-root", type=Path, default=Path("data"))
    parser.add_argument("--smoke", action="store_true", help="one step of batch 2, anywhere")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    if given.smoke:
        given.steps, given.batches, given.frames, given.variants = 1, [2], [1], ["plain"]
    device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    if device.type == "cpu" and not given.smoke:
        parser.error("torch sees no GPU; --smoke runs a reduced form on the CPU")
    keep_freed_memory(device)
    with tempfile.TemporaryDirectory(prefix="mmtool-bench-") as folder:
        measured = compare(given, device, Path(folder))
    profiled = profiles(given.recipes, given.data_root, given.steps) if given.recipes else []
    name = torch.cuda.get_device_name() if device.type == "cuda" else platform.machine()
    kind = "smoke" if given.smoke else "gpu"
    results = {"device": name, "goals": GOALS, "measured": measured, "profiles": profiled}
    print(write_results(f"{kind}_{name.replace(' ', '-').lower()}", results, given.out))
    return 1 if any("error" in row for row in measured) else 0


if __name__ == "__main__":
    sys.exit(main())
