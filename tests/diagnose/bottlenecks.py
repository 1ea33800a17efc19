"""Short real runs with a planted bottleneck, logged as the engine logs them.

No system samples are taken, so that what else runs on this machine is in no verdict but as time.
"""

import json
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from mmtool.config.schema import Recipe
from mmtool.data.gather import Gatherer
from mmtool.engine import saving
from mmtool.engine.build import build_job
from mmtool.engine.distributed import Ranks
from mmtool.engine.loop import fit
from mmtool.engine.rank import run_facts
from mmtool.engine.stop import StopRequest
from mmtool.runlog.events import SCHEMA
from mmtool.runlog.writer import EventWriter
from mmtool.testing.fakes import FakeModality, write_fake_store

SECONDS_PER_SAMPLE = 4e-3
CHECKPOINT_S = 1.5
LATE_S = 0.04
TINY_OPERATORS = 1500

TINY_FUSION = f'''
"""Add the features, by way of many operators that do next to nothing."""

from mmtool.config import schema
from mmtool.models.linear import linear
from torch import nn


class Options(schema.Options):
    """None."""


class Fusion(nn.Module):
    additive = False

    def __init__(self, options, dims, num_classes):
        super().__init__()
        self.classifier = linear(sum(dims.values()), num_classes)
        self.names = sorted(dims)

    def forward(self, features):
        import torch

        out = self.classifier(torch.cat([features[m] for m in self.names], 1))
        for _ in range({TINY_OPERATORS}):
            out = out * 1.0
        return out
'''


def write_store(root: Path, *, image_signal: float = 2.0) -> None:
    frames = {
        "audio": FakeModality((1, 16, 16), "frames", signal=2.0),
        "image": FakeModality((3, 32, 32), "frames", signal=image_signal),
    }
    write_fake_store(root / "fake", frames, splits={"train": 320, "val": 200, "test": 8})


SMALL = {"name": "mlp", "hidden": (16,)}
CNN = {"name": "cnn", "width": 8}


def recipe(
    *, audio: Any = CNN, image: Any = CNN, fusion: str = "concat", **train: object
) -> Recipe:
    encoders = {"audio": audio, "image": image}
    settings = {"epochs": 2, "batch_size": 8, "lr": 0.01, **train}
    return Recipe.model_validate(
        {
            "data": {"dataset": "fake"},
            "model": {"encoders": encoders, "fusion": fusion},
            "train": settings,
            "log": {"train_samples": 16},
        }
    )


@contextmanager
def slow_loader():
    """Reading takes 4 ms per sample longer, as decoding would."""
    read = Gatherer.transformed

    def slowly(self, visited, *arguments, **named):
        time.sleep(SECONDS_PER_SAMPLE * len(visited.rows))
        return read(self, visited, *arguments, **named)

    with patch.object(Gatherer, "transformed", slowly):
        yield


@contextmanager
def slow_disk():
    """Writing a checkpoint takes longer than what is trained between two of them."""
    write = saving.write_snapshot

    def slowly(*arguments):
        time.sleep(CHECKPOINT_S)
        return write(*arguments)

    with patch.object(saving, "write_snapshot", slowly):
        yield


def train(run: Path, recipe: Recipe, root: Path, ranks: Ranks | None = None, *, late: bool = False):
    """Train and leave a run directory; a `late` rank sleeps before every step's backward pass."""
    ranks = ranks or Ranks()
    torch.set_num_threads(1)
    job = build_job(recipe, ranks, data_root=root)
    with ExitStack() as stack:
        stack.callback(job.close)
        writer = stack.enter_context(EventWriter(run / "log" / f"rank{ranks.rank}.jsonl"))
        facts = {"schema": SCHEMA, "run": run.name, "rank": ranks.rank, "world": ranks.world}
        writer.write("head", **facts, attempt=0, **run_facts(job))

        def emit(kind, **fields):
            if kind == "step" and not ranks.is_first:
                fields = {k: fields[k] for k in ("step", "epoch", "n", "ms")}
            if ranks.is_first or kind == "step":
                writer.write(kind, **fields)

        def beat(step):
            if late:
                time.sleep(LATE_S)

        stop = StopRequest()
        fit(job, emit=emit, checkpoints=run / "ckpt", stop=stop, is_resumed=False, beat=beat)
        writer.write("end", status="done", reason="")
    return run


def make_run(folder: Path) -> Path:
    (folder / "log").mkdir(parents=True)
    (folder / "ckpt").mkdir()
    (folder / "status.json").write_text(json.dumps({"state": "done"}))
    return folder


def three_pairs(ranks: Ranks, folder: str) -> None:
    """On every rank: a healthy pair, one whose second rank is late, one with large gradients."""
    root = Path(folder)
    small = recipe(image={"name": "cnn", "width": 16}, epochs=1)
    train(root / "healthy", small, root, ranks)
    train(root / "straggler", small, root, ranks, late=ranks.rank == 1)
    wide = {"name": "mlp", "hidden": (700, 700)}
    train(root / "comm", recipe(audio=wide, image=wide, epochs=1), root, ranks)
