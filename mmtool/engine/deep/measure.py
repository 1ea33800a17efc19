"""Everything that is measured on a trained model, from its features to the two deep records."""

import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmtool.config.links import starts_from_links
from mmtool.engine.deep.corruptions import corrupt
from mmtool.engine.deep.emap import project
from mmtool.engine.deep.encoders import effective_ranks, trainable, update_norms
from mmtool.engine.deep.headroom import encoder_alone, epochs_of, train_all_epochs
from mmtool.engine.deep.prediction import Predictor
from mmtool.engine.deep.readouts import MOST_SAMPLES, Lesson
from mmtool.engine.deep.record import Judge, Tell, host, target_variance
from mmtool.engine.deep.removals import DRAWS, Removals, subsets
from mmtool.engine.deep.reopen import check_solo, reopen
from mmtool.engine.deep.sources import Part, Readings, encode_once
from mmtool.engine.evaluate import Encoded, evaluation_mode
from mmtool.engine.job import Job
from mmtool.engine.recipe_model import build_recipe_model, laid_out
from mmtool.engine.scoring import METRICS
from mmtool.errors import RequestError
from mmtool.models.multimodal import MultimodalModel
from mmtool.randomness import fold
from mmtool.runlog.deep import DeepRecord, deep_path, write_deep
from mmtool.text import plural
from mmtool.types import Modality

SAMPLES = 5000
_SALT = 45


def tell_nobody(message: str) -> None:
    """Take a sentence and do nothing with it."""
    del message


@dataclass(frozen=True, slots=True)
class Asked:
    """How much is to be measured."""

    samples: int = SAMPLES
    headroom: bool = True


@dataclass(slots=True)
class _Stopwatch:
    tell: Tell
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def part(self, name: str, message: str) -> Iterator[None]:
        """Tell what begins, and keep how long it took."""
        self.tell(message)
        started = time.perf_counter()
        yield
        taken = time.perf_counter() - started
        self.seconds[name] = round(self.seconds.get(name, 0.0) + taken, 3)


def measure_deep(
    job: Job,
    directory: Path,
    *,
    asked: Asked | None = None,
    initial: MultimodalModel | None = None,
    solo: Mapping[Modality, Path] | None = None,
    tell: Tell = tell_nobody,
) -> Path:
    """Measure a trained job and write `deep/val.npz` and `deep/train.npz` below a directory.

    `initial` is its model as it was before the first step; None builds it again from the seed.
    `solo` are finished runs of single modalities. Neither model nor progress of the job changes.
    """
    asked = asked or Asked()
    _refuse(job)
    devices = [job.device] if job.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        measuring = _Measuring(job, asked, _Stopwatch(tell))
        measuring.encode()
        measuring.read_features(initial)
        if asked.headroom:
            measuring.read_headroom()
        for modality, run in (solo or {}).items():
            measuring.read_solo(modality, run)
        measuring.remove()
        measuring.project()
        measuring.corrupt()
    for record in measuring.records(directory.name):
        write_deep(directory, record)
    return deep_path(directory, "val").parent


def _refuse(job: Job) -> None:
    if job.ranks.world > 1:
        raise RequestError(
            "a model is measured in one process",
            why=f"this job has {job.ranks.world} ranks",
            fix="mmtool diagnose RUN --deep",
        )
    if len(job.dataset.rows("val")) == 0:
        raise RequestError(
            f"protocol {job.dataset.protocol!r} has no validation samples to measure on",
            why="answers on train tell what was memorised, and test never judges a recipe",
            fix="prepare the dataset with a validation split (val_fraction)",
        )


class _Measuring:
    """The state between two parts of a measurement."""

    def __init__(self, job: Job, asked: Asked, watch: _Stopwatch) -> None:
        self._job, self._asked, self._watch = job, asked, watch
        self._seed = job.recipe.train.seed
        self._about: dict[str, Any] = {"emap": None, "headroom": None, "solo": {}}
        self._kept, self._order = subsets(len(job.model.modalities), self._seed)

    def encode(self) -> None:
        """Encode the samples of both splits with the trained encoders."""
        job = self._job
        val = _drawn(job.dataset.rows("val"), self._asked.samples, self._seed)
        every = job.dataset.rows("train")
        train = _drawn(every, max(len(val), MOST_SAMPLES), self._seed)
        count = min(len(train), len(val))
        self._rows = np.concatenate([train, np.sort(val)])
        with self._watch.part("encode", f"encoding {len(val):,} samples of val"):
            self._encoded = encode_once(job, self._rows)
        device = self._encoded.label.device
        of_train = torch.from_numpy(np.argsort(train[:count], kind="stable")).to(device)
        of_val = torch.arange(len(train), len(self._rows), device=device)
        taught = torch.arange(min(len(train), MOST_SAMPLES), device=device)
        task, label = job.dataset.task, self._encoded.label
        judge = Judge(label, task, target_variance(label[: len(train)], task))
        self._val = Part("val", of_val, judge.at(of_val))
        self._train = Part("train", of_train, judge.at(of_train))
        group = torch.from_numpy(job.dataset.store.index.group[train].astype(np.int64)).to(device)
        lesson = Lesson(label[taught], group[taught], task, job.dataset.num_classes, self._seed)
        self._readings = Readings(
            lesson, taught, self._encoded.present, job.model.modalities, (self._val, self._train)
        )

    def read_features(self, initial: MultimodalModel | None) -> None:
        """Read out the trained encoders, and those that nothing has been taught yet."""
        job = self._job
        with self._watch.part("probe", "reading out each modality"):
            self._readings.read_all("probe", self._encoded.own)
        with self._watch.part("floor", "reading out the untrained encoders"):
            before = untrained(job) if initial is None else initial
            self._readings.read_all("floor", self._encoded_by(replace(job, model=before)).own)
        is_known = initial is not None or not starts_from_links(job.recipe)
        self._about["update_norm"] = update_norms(job.model, before if is_known else None)

    def read_headroom(self) -> None:
        """Train each encoder alone for a while and read it out."""
        epochs = epochs_of(self._job.recipe)
        for modality in self._job.model.modalities:
            words = f"training the encoder of {modality} alone, {plural(epochs, 'epoch')}"
            with self._watch.part("headroom", words), encoder_alone(self._job, modality) as own:
                train_all_epochs(own)
                features = self._encoded_by(own).features[modality]
                self._readings.read("headroom", modality, features)
        share = epochs / self._job.recipe.train.epochs
        self._about["headroom"] = {"epochs": epochs, "share": share}

    def read_solo(self, modality: Modality, run: Path) -> None:
        """Read out an encoder that was trained alone from the start."""
        with self._watch.part("solo", f"reading out {run.name}"), closing(reopen(run)) as opened:
            check_solo(self._job, modality, opened.job, run)
            features = self._encoded_by(opened.job).features[modality]
            self._readings.read("solo", modality, features)
        self._about["solo"][modality] = run.name

    def _encoded_by(self, job: Job) -> Encoded:
        return encode_once(job, self._rows)

    def remove(self) -> None:
        """Take modalities away, on both splits."""
        for part in (self._val, self._train):
            encoded = self._encoded.at(part.places)
            words = f"removing modalities on {part.split}: {len(self._kept)} subsets"
            with self._watch.part("removals", words), evaluation_mode(self._job.model):
                part.arrays |= Removals(self._job, encoded, part.judge).measure(self._kept)
                whole = Predictor(self._job)(encoded.features, encoded.present)
                part.arrays |= {f"fused.{k}": host(v) for k, v in part.judge.marks(whole).items()}

    def project(self) -> None:
        """Project the answers onto sums over modalities."""
        encoded = self._encoded.at(self._val.places)
        words = "comparing with the best sum over modalities"
        with self._watch.part("emap", words), evaluation_mode(self._job.model):
            found = project(self._job, encoded, self._val.judge)
        if found is not None:
            self._val.arrays |= found.arrays
            self._about["emap"] = found.about

    def corrupt(self) -> None:
        """Spoil the input of one modality after the other."""
        encoded = self._encoded.at(self._val.places)
        words = "spoiling the input of each modality"
        with self._watch.part("corruptions", words), evaluation_mode(self._job.model):
            self._val.arrays |= corrupt(self._job, encoded, self._val.judge)

    def records(self, run: str) -> Iterator[DeepRecord]:
        """Give the records; validation last, which is what tells that all is there."""
        self._readings.join_solo()
        for part in (self._train, self._val):
            encoded = self._encoded.at(part.places)
            rows = host(encoded.index)
            index = self._job.dataset.store.index
            arrays = {
                "row": rows,
                "id": np.array(index.ids(rows), dtype=np.str_),
                "group": index.group[rows].astype(np.int64),
                "label": host(encoded.label),
                "present": host(encoded.present),
                "kept": self._kept,
            }
            if len(self._order):
                arrays["order"] = self._order
            yield DeepRecord(self._head(part, encoded, run), {**arrays, **part.arrays})

    def _head(self, part: Part, encoded: Encoded, run: str) -> dict[str, Any]:
        job, dataset, progress = self._job, self._job.dataset, self._job.progress
        is_best = job.recipe.train.select == "best"
        return {
            "split": part.split,
            "run": run,
            "step": progress.step,
            "epoch": progress.best_epoch if is_best else progress.epoch - 1,
            "task": dataset.task,
            "metric": METRICS[dataset.task],
            "modalities": list(job.model.modalities),
            "classes": list(dataset.classes),
            "dataset_hash": dataset.store.hash,
            "protocol": dataset.protocol,
            "draws": DRAWS,
            "seed": self._seed,
            "chance": dataset.constant_score(part.split),
            "prior": _prior(job),
            "seconds": dict(self._watch.seconds),
            "asked": asdict(self._asked),
            "effective_rank": effective_ranks(job, encoded),
            "trainable": trainable(job),
            "removal": _removal(job),
            **self._about,
            **({} if part.split == "val" else {"emap": None}),
        }


def _drawn(rows: np.ndarray, wanted: int, seed: int) -> np.ndarray:
    """Give so many of the rows in a random order, the first ones of which are the same always."""
    generator = np.random.Generator(np.random.Philox(key=[seed, _SALT]))
    return rows[generator.permutation(len(rows))[:wanted]]


def untrained(job: Job) -> MultimodalModel:
    """Build the model of a job again as it was before the first step."""
    torch.manual_seed(fold(job.recipe.train.seed, 0) >> 1)
    model = build_recipe_model(job.recipe, job.dataset, job.method, None)
    laid_out(model, job.device)
    return model.eval()


def _prior(job: Job) -> list[float]:
    """Give the share of each class on train; of a regression none."""
    if job.dataset.task == "regression":
        return []
    labels = job.dataset.labels(job.dataset.rows("train"))
    if job.dataset.task == "multi_label":
        return [float(share) for share in labels.mean(axis=0)]
    counts = np.bincount(labels, minlength=job.dataset.num_classes)
    return [float(share) for share in counts / counts.sum()]


def _removal(job: Job) -> dict[Modality, str]:
    """Say what stands for a modality that is taken away."""
    counts = job.model.feature_count.tolist()
    return {
        m: "running mean of its features over training" if count else "zeros: no training step"
        for m, count in zip(job.model.modalities, counts, strict=True)
    }
