"""Measure what diagnosing a long log costs: seconds and memory of the whole command.

    python tests/bench/reading.py [--steps 100000] [--repeats 3] [--gigabyte] [--out RESULTS]

The log is written by the run log's own writer in the shape of a training of two modalities: a line
per step with phases, loss terms and scores, an evaluation of every 1000 steps, a sample of the
machine for every ten steps. Each repeat is `mmtool diagnose RUN --json` in a process of its own,
from its start to its end; `import` is that process's share up to the first line read, measured in
another that stops there. Memory is the largest resident set. With `--gigabyte` a log of 2^30 bytes
is diagnosed once more, of which the steps are thinned.
"""

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from record import RESULTS, write_results

from mmtool.runlog.events import SCHEMA
from mmtool.runlog.rundir import RunDir, make_run
from mmtool.runlog.writer import EventWriter

GOALS = {"seconds": 10.0, "processor_s": 10.0, "memory_mb": 500.0}
"""The command has one thread: where nothing else runs, its seconds are the processor's."""
MODALITIES = ("audio", "video")
STARTER = """
import os, sys
child = os.posix_spawn(
    sys.argv[1], sys.argv[1:], os.environ, file_actions=[(os.POSIX_SPAWN_OPEN, 1, os.devnull, 1, 0)]
)
_, status, used = os.wait4(child, 0)
print([status, used.ru_utime + used.ru_stime, used.ru_maxrss])
"""
PER_EPOCH = 1000
STEPS_PER_SAMPLE = 10
_MIB = 2**20


def write_long_run(path: Path, num_steps: int) -> RunDir:
    """Write a finished run of so many steps."""
    run = make_run(path)
    chance = random.Random(0)
    with EventWriter(run.log_path(0), fsync_kinds=()) as writer:
        writer.write(
            "head",
            schema=SCHEMA,
            run=run.name,
            rank=0,
            world=1,
            attempt=1,
            modalities=MODALITIES,
            classes=list("abcdef"),
            num_val=600,
            chance=0.18,
            epochs=num_steps // PER_EPOCH,
        )
        for step in range(num_steps):
            write_step(writer, step, chance)
        writer.write("end", status="done", reason="")
    with EventWriter(run.system_log_path(0), fsync_kinds=()) as writer:
        for _ in range(num_steps // STEPS_PER_SAMPLE):
            gpu = {"util": 90.0, "mem_mb": 4000.0, "power_w": 200.0, "temp_c": 60.0}
            writer.write("sys", cpu_percent=150.0, rss_mb=2000.0, load1=1.5, gpus=[gpu])
    run.write_status(state="done", reason="", step=num_steps, attempt=1)
    return run


def write_step(writer: EventWriter, step: int, chance: random.Random) -> None:
    """Write a step, and the evaluations of the epoch that ends with it."""
    epoch, noise = step // PER_EPOCH, chance.random()
    phases = {"data": noise, "transfer": 1.0, "forward": 20.0 + noise, "backward": 35.0}
    phases |= {"sync": 2.0, "optimizer": 4.0, "step": 63.0 + 2 * noise}
    scores = {m: {"score": 0.5 + noise / 2, "coef": 1.0, "gnorm": noise} for m in MODALITIES}
    fields = {"n": 64, "loss": 1.8 - noise, "lr": 1e-3, "gnorm": 1.0 + noise, "skipped": False}
    writer.write(
        "step", step=step, epoch=epoch, **fields, terms={"fused": noise}, ms=phases, m=scores
    )
    if (step + 1) % PER_EPOCH == 0:
        row = {"acc": 0.6, "nll": 0.9, "how": "decompose", "alone": 0.5, "drop": 0.2, "flip": 0.3}
        row |= {"probe": 0.6, "probe_nll": 1.0}
        for split in ("train", "val"):
            per_modality = dict.fromkeys(MODALITIES, row)
            told = {"epoch": epoch, "step": step + 1, "split": split, "n": 600, "acc": 0.7}
            writer.write("epoch", **told, loss=1.0, m=per_modality)


def measured(arguments: list[str]) -> dict[str, float]:
    """Run a command to its end; give seconds, processor seconds and the largest resident set.

    A small process starts it: what a process inherits from a large one counts as its own memory.
    """
    started = time.perf_counter()
    said = subprocess.run(
        [sys.executable, "-S", "-c", STARTER, *arguments], check=True, capture_output=True
    ).stdout
    seconds = time.perf_counter() - started
    status, processor_s, memory_kb = json.loads(said)
    if status:
        raise SystemExit(f"{arguments} ended with status {status}")
    return {"seconds": seconds, "processor_s": processor_s, "memory_mb": memory_kb * 1024 / _MIB}


def diagnose(run: Path) -> dict[str, float]:
    """Diagnose a run in a process of its own."""
    return measured([sys.executable, "-m", "mmtool", "diagnose", str(run), "--json"])


def imported() -> dict[str, float]:
    """Give what a process costs that loads everything diagnosis needs and ends."""
    return measured([sys.executable, "-c", "import mmtool.diagnose.api"])


def median_of(rows: list[dict[str, float]]) -> dict[str, Any]:
    medians = {key: statistics.median(row[key] for row in rows) for key in rows[0]}
    return {**medians, "repeats": rows}


def stretched(run: RunDir, folder: Path, size: int) -> tuple[RunDir, int]:
    """Write a run of at least so many bytes by repeating steps under higher numbers."""
    found = make_run(folder)
    lines = run.log_path(0).read_bytes().splitlines(keepends=True)
    steps = [line for line in lines if line.startswith(b'{"k":"step"')]
    number = 0
    with found.log_path(0).open("wb") as file:
        file.write(lines[0])
        while file.tell() < size:
            for line in steps:
                before, _, rest = line.partition(b'"step":')
                file.write(b'%s"step":%d,%s' % (before, number, rest.partition(b",")[2]))
                number += 1
        file.writelines(
            line for line in lines if not line.startswith((b'{"k":"step"', lines[0][:10]))
        )
    found.write_status(state="done", reason="", attempt=1)
    return found, number


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--gigabyte", action="store_true")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = write_long_run(Path(folder) / "long", options.steps)
        found: dict[str, Any] = {
            "goals": GOALS,
            "steps": options.steps,
            "log_mb": run.log_path(0).stat().st_size / _MIB,
            "import": median_of([imported() for _ in range(options.repeats)]),
            "diagnose": median_of([diagnose(run.path) for _ in range(options.repeats)]),
        }
        if options.gigabyte:
            large, num_steps = stretched(run, Path(folder) / "large", 2**30)
            found["gigabyte"] = {
                "log_mb": large.log_path(0).stat().st_size / _MIB,
                "steps": num_steps,
                **diagnose(large.path),
            }
    found["met"] = {key: found["diagnose"][key] < goal for key, goal in GOALS.items()}
    print(json.dumps(found, indent=1))
    print(write_results("reading", found, options.out))


if __name__ == "__main__":
    main()
