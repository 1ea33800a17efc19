"""Open the prepared dataset a recipe names and say what reaches the encoders."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmtool import registry
from mmtool.config.schema import DataConfig
from mmtool.data.samplers import SHARDS_IN_REACH, Visits, block_shuffled, shuffled
from mmtool.errors import DatasetNotPrepared, EnvironmentLacks, RequestError
from mmtool.store.reader import Store, open_store
from mmtool.store.remote import is_url
from mmtool.store.schema import SPLITS
from mmtool.text import human_bytes, suggestion
from mmtool.types import InputSpec, Modality, TaskKind, sorted_modalities


@dataclass(frozen=True, slots=True)
class Dataset:
    """A store seen through a recipe: its modalities, their columns and one split protocol."""

    store: Store
    config: DataConfig
    protocol: str
    modalities: tuple[Modality, ...]
    columns: Mapping[Modality, str]

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes in label order; none for a regression."""
        return () if self.task == "regression" else self.store.classes

    @property
    def num_classes(self) -> int:
        """Number of outputs: one for each class, one for a regression."""
        return len(self.classes) or 1

    @property
    def task(self) -> TaskKind:
        """What the labels are."""
        return self.config.task

    def rows(self, split: str) -> np.ndarray:
        """Store rows of a split, ascending; empty when the protocol has no such split.

        Rows without a number take no part in a regression.
        """
        rows, value = self.store.index.rows(split, self.protocol), self.store.index.value
        if self.task == "regression" and value is not None:
            return rows[np.isfinite(value[rows])]
        return rows

    def labels(self, rows: np.ndarray) -> np.ndarray:
        """What is to be answered: [row] int64, of other tasks [row, output] float32."""
        index = self.store.index
        if self.task == "multi_label":
            return index.answers(rows, self.num_classes)
        if self.task == "regression" and index.value is not None:
            return index.value[rows, None].astype(np.float32)
        return index.label[rows]

    def constant_score(self, split: str) -> float:
        """The best score that one and the same answer for every sample has on a split.

        Accuracy of the most frequent class; label accuracy with each label's more frequent answer;
        0 for a regression, where the answer is the mean and the score R^2.
        """
        labels = self.labels(self.rows(split))
        if self.task == "regression":
            return 0.0
        if self.task == "multi_label":
            rate = labels.mean(axis=0)
            return float(np.maximum(rate, 1 - rate).mean())
        counts = np.bincount(labels, minlength=self.num_classes)
        return float(counts.max() / counts.sum())

    def notes(self) -> tuple[str, ...]:
        """What a person should know about how this task was taken from the store."""
        index = self.store.index
        if self.task == "multi_label" and not index.is_multi_label:
            return (
                "every sample has one class: data.task = 'multi_label' learns a yes or no for each "
                "class, one against the rest",
            )
        if self.task != "regression":
            return ()
        left_out = {
            split: len(index.rows(split, self.protocol)) - len(self.rows(split)) for split in SPLITS
        }
        counts = ", ".join(f"{split} {count:,}" for split, count in left_out.items() if count)
        return (f"samples without a value are left out: {counts}",) if counts else ()

    def epoch_order(self, visits: Visits, *, seed: int, epoch: int, batch_size: int) -> Visits:
        """Give visits in the order of an epoch: any order for a local store, by shards otherwise.

        A function of these arguments and of the store's content, never of ranks, of the cache or of
        what is in it.
        """
        if not self.store.is_remote:
            return shuffled(visits, seed=seed, epoch=epoch)
        return block_shuffled(
            visits, self.store.shard_starts, seed=seed, epoch=epoch, batch_size=batch_size
        )

    def will_need(self, rows: np.ndarray) -> None:
        """Announce rows that will be read soon."""
        self.store.will_need(self.columns.values(), rows)

    def input_specs(self) -> dict[Modality, InputSpec]:
        """What each encoder receives, after transforms."""
        return {m: self._input_spec(m) for m in self.modalities}

    def _input_spec(self, modality: Modality) -> InputSpec:
        column = self.store.columns[self.columns[modality]]
        shape = tuple(column.shape)
        augment = self.config.augment.get(modality)
        if augment is not None and augment.size is not None:
            shape = (*shape[:-2], augment.size, augment.size)
        return InputSpec(kind=column.kind, shape=shape, ragged=column.ragged)


def locate_store(config: DataConfig, root: Path) -> Path:
    """Give the folder of the store a recipe names, which may not exist yet.

    For a dataset that is a URL the folder never exists; `open_dataset` opens the URL itself.
    """
    named = Path(config.dataset)
    if len(named.parts) > 1 or named.is_absolute():
        return named
    return root / config.dataset


def open_dataset(config: DataConfig, root: Path) -> Dataset:
    """Open the store of a recipe and resolve protocol, modalities and columns."""
    if is_url(config.dataset):
        store = open_store(config.dataset)
    else:
        path = locate_store(config, root)
        if not path.exists():
            raise _not_prepared(config, path, root)
        store = open_store(path)
    try:
        dataset = _resolve(store, config, store.location)
        if store.is_remote:
            _refuse_small_cache(dataset)
        return dataset
    except BaseException:
        store.close()
        raise


def _refuse_small_cache(dataset: Dataset) -> None:
    """Refuse a cache that would fetch shards again and again within an epoch."""
    store = dataset.store
    sizes = sorted(
        sum(shard.files[c].bytes for c in dataset.columns.values())
        for shard in store.manifest.shards
    )
    needed = sum(sizes[-SHARDS_IN_REACH:])
    limit = store.cache_bytes
    if limit is not None and limit < needed:
        raise EnvironmentLacks(
            f"the cache of {human_bytes(limit)} is too small for {store.location}",
            why=f"an epoch draws from {min(SHARDS_IN_REACH, len(sizes))} shards at a time, "
            f"which have {human_bytes(needed)}",
            fix=f"export MMTOOL_CACHE_GB={needed * 5 // 4 // 10**9 + 1}",
        )


def _resolve(store: Store, config: DataConfig, path: str) -> Dataset:
    protocols = store.index.protocols
    protocol = config.split or store.manifest.default_protocol
    if protocol not in protocols:
        raise RequestError(
            f"store {path} has no split protocol {protocol!r}",
            why=f"it has: {', '.join(protocols)}",
            fix=suggestion(protocol, protocols, otherwise=f'data.split = "{protocols[0]}"'),
        )
    wanted = config.modalities or store.modalities
    unknown = [m for m in (*wanted, *config.columns) if m not in store.modalities]
    if unknown:
        raise RequestError(
            f"store {path} has no modality {unknown[0]!r}",
            why=f"it has: {', '.join(store.modalities)}",
            fix=suggestion(unknown[0], store.modalities, otherwise="correct data.modalities"),
        )
    modalities = sorted_modalities(wanted)
    columns = {m: _column(store, config, m, path) for m in modalities}
    _check_task(store, config, path)
    dataset = Dataset(store, config, protocol, modalities, columns)
    if len(dataset.rows("train")) == 0:
        raise RequestError(
            f"protocol {protocol!r} of {path} has no training samples"
            + (" with a value" if config.task == "regression" else ""),
            fix="choose another data.split, or prepare the dataset again",
        )
    return dataset


def _check_task(store: Store, config: DataConfig, path: str) -> None:
    """Refuse a task for which the store has no labels."""
    index = store.index
    if config.task == "regression" and index.value is None:
        raise RequestError(
            f"store {path} has no values, so there is nothing to regress on",
            why="data.task = 'regression' learns the number beside each label; this store has "
            "labels only",
            fix="-s data.task=multi_label"
            if index.is_multi_label
            else "-s data.task=single_label, or prepare the dataset with values (mmtool list "
            "datasets manifest)",
        )
    if config.task == "single_label" and index.is_multi_label:
        raise RequestError(
            f"store {path} has any number of classes per sample",
            why="data.task = 'single_label', the default, needs exactly one",
            fix="-s data.task=multi_label",
        )
    if config.task != "regression" and len(store.classes) == 1 and index.value is not None:
        raise RequestError(
            f"store {path} has one class, so there is nothing to classify",
            why=f"data.task = {config.task!r}; its samples have values",
            fix="-s data.task=regression",
        )


def _column(store: Store, config: DataConfig, modality: Modality, path: str) -> str:
    name = config.columns.get(modality, store.default_columns[modality])
    if name not in store.columns or store.columns[name].modality != modality:
        of_modality = [c for c, info in store.columns.items() if info.modality == modality]
        raise RequestError(
            f"store {path} has no column {name!r} for modality {modality!r}",
            why=f"it has: {', '.join(of_modality)}",
            fix=suggestion(name, of_modality, otherwise="correct data.columns"),
        )
    return name


def _not_prepared(config: DataConfig, path: Path, root: Path) -> DatasetNotPrepared:
    known = registry.names("datasets")
    prepared = sorted(p.parent.name for p in root.glob("*/manifest.json")) if root.is_dir() else []
    if config.dataset in known:
        fix = f"mmtool prepare {config.dataset} --source DIR --data-root {root}"
    else:
        fix = suggestion(
            config.dataset, (*prepared, *known), otherwise="mmtool list datasets shows the names"
        )
    return DatasetNotPrepared(
        f"dataset {config.dataset!r} is not prepared: there is no {path}",
        why=f"prepared under {root}: {', '.join(prepared) or 'nothing'}",
        fix=fix,
    )
