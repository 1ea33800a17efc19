"""Open the prepared dataset a recipe names and say what reaches the encoders."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmtool import registry
from mmtool.config.schema import DataConfig
from mmtool.errors import DatasetNotPrepared, RequestError
from mmtool.store.reader import Store, open_store
from mmtool.text import suggestion
from mmtool.types import InputSpec, Modality, sorted_modalities


@dataclass(frozen=True, slots=True)
class Dataset:
    """A store seen through a recipe: its modalities, their columns and one split protocol."""

    store: Store
    config: DataConfig
    protocol: str
    modalities: tuple[Modality, ...]
    columns: Mapping[Modality, str]

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.store.classes)

    def rows(self, split: str) -> np.ndarray:
        """Store rows of a split, ascending; empty when the protocol has no such split."""
        return self.store.index.rows(split, self.protocol)

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
    """Give the folder of the store a recipe names, which may not exist yet."""
    named = Path(config.dataset)
    if len(named.parts) > 1 or named.is_absolute():
        return named
    return root / config.dataset


def open_dataset(config: DataConfig, root: Path) -> Dataset:
    """Open the store of a recipe and resolve protocol, modalities and columns."""
    path = locate_store(config, root)
    if not path.exists():
        raise _not_prepared(config, path, root)
    store = open_store(path)
    try:
        return _resolve(store, config, path)
    except BaseException:
        store.close()
        raise


def _resolve(store: Store, config: DataConfig, path: Path) -> Dataset:
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
    dataset = Dataset(store, config, protocol, modalities, columns)
    if len(dataset.rows("train")) == 0:
        raise RequestError(
            f"protocol {protocol!r} of {path} has no training samples",
            fix="choose another data.split, or prepare the dataset again",
        )
    return dataset


def _column(store: Store, config: DataConfig, modality: Modality, path: Path) -> str:
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
