"""Made-up run directories in the true log format, for tests of whatever reads runs.

    run = write_run(tmp_path / "run", scenario="image_dominant")

Every number is drawn from `seed`; the curves of a scenario are planted, so a test knows the answer.
"""

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mmtool.runlog.events import SCHEMA
from mmtool.runlog.rundir import RunDir
from mmtool.runlog.writer import EventWriter

Scenario = Literal["image_dominant", "balanced", "overfit", "data_bound"]

CLASSES = ("cat", "cow", "dog", "hen")
BATCH_SIZE = 32
STEPS_PER_EPOCH = 20
NUM_VAL = 1000
CHANCE = 0.26
_STARTED = 1_780_000_000.0


@dataclass(frozen=True, slots=True)
class Planted:
    """What is true of one modality of a scenario once training has settled."""

    acc: float
    probe: float
    flip: float
    drop: float
    alone: float
    overfits: bool = False


HEALTHY = Planted(acc=0.72, probe=0.74, flip=0.34, drop=0.22, alone=0.70)
TRUTH: Mapping[Scenario, Mapping[str, Planted]] = {
    "balanced": {"audio": HEALTHY, "image": HEALTHY},
    "data_bound": {"audio": HEALTHY, "image": HEALTHY},
    # The audio encoder has learnt (its probe says so), but the fused head hardly listens to it.
    "image_dominant": {
        "audio": Planted(acc=0.36, probe=0.70, flip=0.03, drop=0.01, alone=0.34),
        "image": Planted(acc=0.84, probe=0.85, flip=0.66, drop=0.55, alone=0.84),
    },
    # The decision rests on the modality that is learnt by heart.
    "overfit": {
        "audio": Planted(acc=0.50, probe=0.55, flip=0.05, drop=0.02, alone=0.32),
        "image": Planted(acc=0.60, probe=0.60, flip=0.45, drop=0.25, alone=0.58, overfits=True),
    },
}
PHASE_MS = {
    "data": 0.4,
    "transfer": 0.6,
    "forward": 11.0,
    "backward": 21.0,
    "sync": 0.5,
    "optimizer": 3.0,
}


def write_run(
    path: Path,
    *,
    scenario: Scenario = "image_dominant",
    epochs: int = 8,
    seed: int = 0,
    num_ranks: int = 1,
    is_finished: bool = True,
    head: Mapping[str, Any] | None = None,
) -> Path:
    """Write a run directory and give its path; `head` replaces fields of the head event."""
    run = RunDir(path)
    for folder in (run.log_dir, run.ckpt_dir, run.report_dir):
        folder.mkdir(parents=True, exist_ok=True)
    recipe = _recipe(epochs, seed)
    run.write_recipe(recipe, recipe)
    run.write_env({"versions": {"mmtool": "0.0.0"}, "host": "testing", "cpus": 2, "gpus": []})
    for rank in range(num_ranks):
        generator = random.Random(f"{scenario} {seed} {rank}")
        clock = _Clock()
        with EventWriter(run.log_path(rank), fsync_kinds=(), clock=clock) as writer:
            facts = {**_head(run, scenario, epochs, seed), "rank": rank, "world": num_ranks}
            writer.write("head", **{**facts, **(head or {})})
            _write_epochs(writer, clock, scenario, epochs, generator, is_first=rank == 0)
            if is_finished:
                writer.write("end", status="done", reason="")
        _write_system(run.system_log_path(rank), clock.seconds, generator)
    run.write_status(
        state="done" if is_finished else "running",
        reason="",
        step=epochs * STEPS_PER_EPOCH,
        epoch=epochs,
        attempt=1,
        pid=1,
        host="testing",
        resumable=not is_finished,
    )
    return path


def _recipe(epochs: int, seed: int) -> str:
    return (
        '[data]\ndataset = "recorded"\n\n'
        '[model]\nfusion = {name = "concat"}\n\n'
        '[model.encoders]\naudio = {name = "resnet18"}\nimage = {name = "resnet18"}\n\n'
        f"[train]\nepochs = {epochs}\nbatch_size = {BATCH_SIZE}\n"
        f'optimizer = "sgd"\nlr = 0.01\nseed = {seed}\n\n'
        '[method]\nname = "none"\n'
    )


def _head(run: RunDir, scenario: Scenario, epochs: int, seed: int) -> dict[str, Any]:
    modalities = sorted(TRUTH[scenario])
    return {
        "schema": SCHEMA,
        "run": run.name,
        "attempt": 1,
        "modalities": modalities,
        "classes": list(CLASSES),
        "dataset": "recorded",
        "dataset_hash": "5ca1ab1e",
        "protocol": "official",
        "method": "none",
        "fusion": "concat",
        "optimizer": "sgd",
        "unimodal": "decompose",
        "batch_size": BATCH_SIZE,
        "epochs": epochs,
        "seed": seed,
        "steps_per_epoch": STEPS_PER_EPOCH,
        "num_train": BATCH_SIZE * STEPS_PER_EPOCH,
        "num_val": NUM_VAL,
        "num_test": NUM_VAL,
        "chance": CHANCE,
        "parameters": {**dict.fromkeys(modalities, 11_200_000), "fusion": 4100},
        "device": "cpu",
        "fusion_group": "fusion",
    }


def _write_epochs(
    writer: EventWriter,
    clock: "_Clock",
    scenario: Scenario,
    epochs: int,
    generator: random.Random,
    *,
    is_first: bool,
) -> None:
    for epoch in range(epochs):
        for step in range(epoch * STEPS_PER_EPOCH, (epoch + 1) * STEPS_PER_EPOCH):
            fields = _step(scenario, step, generator)
            clock.seconds += fields["ms"]["step"] / 1e3
            if not is_first:
                fields = {key: fields[key] for key in ("n", "ms")}
            writer.write("step", step=step, epoch=epoch, **fields)
        clock.seconds += 0.5
        if is_first:
            done = (epoch + 1) * STEPS_PER_EPOCH
            for split in ("train", "val"):
                fields = _epoch(scenario, epoch, split, generator)
                writer.write("epoch", epoch=epoch, step=done, **fields)
            writer.write("event", what="checkpoint", step=done, name=f"step{done:08d}")
    if epochs and is_first:
        fields = _epoch(scenario, epochs - 1, "test", generator)
        writer.write("epoch", epoch=epochs - 1, step=epochs * STEPS_PER_EPOCH, **fields)


def _step(scenario: Scenario, step: int, generator: random.Random) -> dict[str, Any]:
    """Give one step; a starved loader makes the data phase the longest."""
    ms = {name: value * generator.uniform(0.9, 1.1) for name, value in PHASE_MS.items()}
    if scenario == "data_bound":
        ms["data"] = generator.uniform(30.0, 60.0)
    ms["step"] = sum(ms.values()) + generator.uniform(0.1, 0.5)
    learnt = _progress(step / STEPS_PER_EPOCH)
    loss = math.log(len(CLASSES)) * (1 - 0.8 * learnt) * generator.uniform(0.95, 1.05)
    per_modality = {
        m: {
            "score": CHANCE + (truth.acc - CHANCE) * learnt,
            "coef": 1.0,
            "gnorm": 0.2 + 2.0 * truth.flip * generator.uniform(0.9, 1.1),
        }
        for m, truth in TRUTH[scenario].items()
    }
    return {
        "n": BATCH_SIZE,
        "loss": loss,
        "lr": 0.01,
        "gnorm": 1.5 * generator.uniform(0.8, 1.2),
        "skipped": False,
        "terms": {"fused": loss},
        "ms": ms,
        "m": per_modality,
    }


def _epoch(scenario: Scenario, epoch: int, split: str, generator: random.Random) -> dict[str, Any]:
    truths = TRUTH[scenario]
    learnt = _progress(epoch + 1)
    rows = {m: _row(truth, epoch, split, generator) for m, truth in truths.items()}
    best = max(truth.acc for truth in truths.values())
    fused = CHANCE + (min(best + 0.06, 0.98) - CHANCE) * learnt
    n = 512 if split == "train" else NUM_VAL
    return {
        "split": split,
        "n": n,
        "loss": _nll(fused),
        "acc": _counted(fused, n, generator),
        "m": rows,
    }


def _row(truth: Planted, epoch: int, split: str, generator: random.Random) -> dict[str, Any]:
    learnt = _progress(epoch + 1)
    n = 512 if split == "train" else NUM_VAL
    acc = CHANCE + (truth.acc - CHANCE) * learnt
    nll = _nll(acc)
    if truth.overfits and split == "train":
        acc, nll = 1.0 - 0.5 * (1 - learnt), 1.2 * 0.5 ** (epoch + 1)
    elif truth.overfits:
        nll += 0.06 * epoch
    probe = CHANCE + (truth.probe - CHANCE) * learnt
    return {
        "acc": _counted(acc, n, generator),
        "nll": nll,
        "how": "decompose",
        "alone": _counted(CHANCE + (truth.alone - CHANCE) * learnt, n, generator),
        "drop": round(truth.drop * learnt * n) / n,
        # Reliance is decided within the first epoch, long before accuracy settles.
        "flip": _counted(truth.flip, n, generator),
        "probe": _counted(probe, n, generator),
        "probe_nll": _nll(probe),
    }


def _progress(epochs_done: float) -> float:
    """How much of what will be learnt is learnt; 95 % after three epochs."""
    return 1 - math.exp(-epochs_done)


def _nll(acc: float) -> float:
    """A loss that fits an accuracy: log(classes) at chance, falling towards 0."""
    return math.log(len(CLASSES)) * (1 - acc) / (1 - CHANCE)


def _counted(rate: float, n: int, generator: random.Random) -> float:
    """Give the rate as a whole number of samples, one or two off."""
    return min(max(round(rate * n) + generator.randint(-2, 2), 0), n) / n


def _write_system(path: Path, seconds: float, generator: random.Random) -> None:
    clock = _Clock()
    with EventWriter(path, clock=clock) as writer:
        while clock.seconds < seconds:
            writer.write(
                "sys",
                cpu_percent=generator.uniform(80, 160),
                rss_mb=900 + 10 * clock.seconds,
                load1=generator.uniform(1, 3),
            )
            clock.seconds += 1.0


@dataclass(slots=True)
class _Clock:
    """A clock that the generator moves, so that a run is the same bytes every time."""

    seconds: float = 0.0

    def __call__(self) -> float:
        return _STARTED + self.seconds
