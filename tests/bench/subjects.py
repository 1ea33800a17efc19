"""What the step benches train: our engine on CREMA-D's shape, beside the reference's loop."""

import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from mmtool.config.schema import Recipe
from mmtool.data.loader import LoadedShare
from mmtool.data.samplers import Visits, num_batches, rank_share, shuffled
from mmtool.engine.between_epochs import begin_epoch
from mmtool.engine.build import build_job
from mmtool.engine.distributed import Ranks
from mmtool.engine.job import Job
from mmtool.engine.loop import Fit, run_step
from mmtool.engine.metriclog import MetricLog
from mmtool.engine.saving import Saver
from mmtool.engine.stop import StopRequest
from mmtool.engine.timing import PhaseClock
from mmtool.store.index import index_bytes
from mmtool.store.schema import ColumnInfo, Manifest, content_hash
from mmtool.store.writer import StoreWriter
from mmtool.testing.training import ignore
from mmtool.types import Batch

NUM_CLASSES = 6
SPECTROGRAM, PICTURE = (1, 257, 188), (3, 256, 341)
SIDE = 224
AUGMENT = {"size": SIDE, "crop_scale": (0.08, 1.0), "flip": True}


def write_synthetic_store(path: Path, *, num_rows: int, num_frames: int) -> Path:
    """Write a store of CREMA-D's shapes whose values are noise."""
    generator = np.random.default_rng(0)
    columns = {
        "audio": ColumnInfo(modality="audio", kind="spectrogram", dtype="float16",
                            shape=SPECTROGRAM, ragged=False, max_length=None, stats={}),
        "video": ColumnInfo(modality="video", kind="frames", dtype="uint8",
                            shape=(num_frames, *PICTURE), ragged=False, max_length=None,
                            stats={"default": {"mean": [0.485, 0.456, 0.406],
                                               "std": [0.229, 0.224, 0.225]}}),
    }  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = StoreWriter(path)
    writer.begin()
    with writer.shard(0, columns) as shard:
        for _ in range(num_rows):
            audio = generator.normal(-6.0, 4.0, SPECTROGRAM).astype(np.float16)
            video = generator.integers(0, 256, (num_frames, *PICTURE), dtype=np.uint8)
            shard.append({"audio": audio, "video": video})
        shards = [shard.commit()]
    writer.note(0, "bench", shards[0], {})
    index = writer.write_index(
        index_bytes(
            ids=[f"{row:06d}" for row in range(num_rows)],
            labels=(np.arange(num_rows) % NUM_CLASSES).tolist(),
            groups=[f"{row}" for row in range(num_rows)],
            splits={"default": ["train"] * num_rows},
            present=[[True, True]] * num_rows,
            num_modalities=2,
        )
    )
    classes = tuple(f"class{c}" for c in range(NUM_CLASSES))
    manifest = Manifest(
        name=path.name, title="Noise of CREMA-D's shape", licence="none", source="generated",
        citation="none", classes=classes, modalities=("audio", "video"), columns=columns,
        protocols={"default": {"train": num_rows}}, default_protocol="default",
        shards=tuple(shards), index=index, provenance={},
        hash=content_hash(columns=columns, shards=shards, index=index, classes=classes,
                          preparer="bench", options={}),
    )  # fmt: skip
    writer.publish(manifest, {})
    return path


def recipe_for(
    dataset: Path, *, batch_size: int, precision: str, data: dict[str, object] | None = None,
    launch: dict[str, object] | None = None,
) -> Recipe:  # fmt: skip
    """Give the recipe of OGM-GE on CREMA-D, as recipes/cremad_ogm_legacy.toml has it."""
    return Recipe.model_validate(
        {
            "data": {"dataset": str(dataset), "augment": {"video": AUGMENT}, **(data or {})},
            "model": {"fusion": "concat", "encoders": {"audio": "resnet18", "video": "resnet18"}},
            "method": {"name": "ogm", "alpha": 0.8, "noise": True, "params": "conv"},
            "train": {
                "epochs": 1, "batch_size": batch_size, "lr": 1e-3, "precision": precision,
                "select": "last",
            },
            "launch": launch or {},
        }
    )  # fmt: skip


class OurTraining:
    """One job whose steps can be run one at a time, on loaded or on fixed batches."""

    def __init__(
        self, recipe: Recipe, device: torch.device, root: Path, ranks: Ranks | None = None
    ) -> None:
        self.job: Job = build_job(recipe, ranks or Ranks(device=device), data_root=root)
        self.clock = PhaseClock(device)
        self.scratch = Path(tempfile.mkdtemp(prefix="mmtool-bench-"))
        saver = Saver(self.job, self.scratch, ignore)
        stop = StopRequest()
        self.fit = Fit(self.job, ignore, self.scratch, stop, MetricLog(self.clock), saver)
        begin_epoch(self.job)
        self.epoch = 0

    def shares(self) -> Iterator[LoadedShare]:
        """Give the batches of one epoch; a smaller last one is left out."""
        visits = shuffled(self.job.train_visits(), seed=0, epoch=self.epoch)
        size = self.job.recipe.train.batch_size
        whole = max(1, len(visits) // size)
        ordered = Visits(visits.rows[: whole * size])
        steps = range(num_batches(len(ordered), size))
        self.epoch += 1
        ranks = self.job.ranks
        cut = partial(
            rank_share,
            batch_size=size,
            rank=ranks.rank,
            world=ranks.world,
            micro_batches=self.job.recipe.train.accumulate,
        )
        return self.job.loader.run((cut(ordered, s) for s in steps), epoch=self.epoch)

    def endless(self) -> Iterator[LoadedShare]:
        """Give batches of one epoch after the other."""
        while True:
            yield from self.shares()

    def step(self, share: LoadedShare) -> None:
        """Train on a share, as the loop does; metrics leave every ten steps."""
        run_step(self.fit, share, 1000)
        self.job.progress.step += 1
        if len(self.fit.metrics) >= self.job.recipe.log.every_steps:
            self.fit.metrics.flush()

    def close(self) -> None:
        self.job.close()
        self.scratch.rmdir()


def as_reference(batch: Batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Give the tensors of a batch of ours in the layout that the reference's step takes."""
    audio, video = batch.inputs["audio"], batch.inputs["video"]
    return audio.squeeze(1).contiguous(), video.transpose(1, 2).contiguous(), batch.label


def repeated(share: LoadedShare, batch_size: int) -> LoadedShare:
    """Give a share of this size made of another one's samples."""
    (batch,) = share.batches
    at = torch.arange(batch_size, device=batch.label.device) % batch.size
    larger = replace(
        batch,
        inputs={m: x[at] for m, x in batch.inputs.items()},
        present=batch.present[at],
        label=batch.label[at],
        index=batch.index[at],
    )
    return LoadedShare(0, batch_size, (larger,), 0.0, 0.0)


def timed(run: Callable[[], object]) -> tuple[float, float]:
    """Give wall and processor seconds of a call."""
    wall, processor = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - wall, time.process_time() - processor
