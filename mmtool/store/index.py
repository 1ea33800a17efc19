"""The table of a store: id, label, group, splits and presence of every row.

Where rows hold any number of classes, `label` is -1 in every row and two more arrays hold the
classes of all rows end to end (`classes`, ascending within a row) and where each row's begin
(`class_offsets`). A store of one class per row has neither.
"""

import functools
import io
import itertools
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mmtool.errors import StoreError, UnknownName
from mmtool.store.schema import SPLITS
from mmtool.text import suggestion

IntArray: TypeAlias = NDArray[np.int64]
_NO_SPLIT = -1
_NO_LABEL = -1
_SPLIT_PREFIX = "split/"
_EPOCH = (1980, 1, 1, 0, 0, 0)


class Index:
    """Row facts in memory; rows are in id order."""

    def __init__(
        self,
        *,
        ids: tuple[NDArray[np.uint8], IntArray],
        label: IntArray,
        group: IntArray,
        group_names: tuple[NDArray[np.uint8], IntArray],
        splits: Mapping[str, NDArray[np.int8]],
        present: NDArray[np.bool_],
        default_protocol: str,
        value: NDArray[np.float64] | None = None,
        label_sets: tuple[IntArray, IntArray] | None = None,
    ) -> None:
        self._id_bytes, self._id_offsets = ids
        self.label = label
        self.group = group
        self._group_bytes, self._group_offsets = group_names
        self._splits = dict(splits)
        self.present = present
        self.default_protocol = default_protocol
        self.value = value
        """The number behind each label, NaN where there is none; None where no clip has one."""
        self._label_sets = label_sets

    @functools.cached_property
    def group_names(self) -> list[str]:
        """Names of the groups by code; decoded when first asked for."""
        blob = self._group_bytes
        pairs = itertools.pairwise(self._group_offsets.tolist())
        return [blob[a:b].tobytes().decode() for a, b in pairs]

    @property
    def is_multi_label(self) -> bool:
        """Whether rows hold any number of classes, so that `label` says nothing."""
        return self._label_sets is not None

    def labels_lie_within(self, num_classes: int) -> bool:
        """Whether every class of every row is one of so many."""
        held = self.label if self._label_sets is None else self._label_sets[0]
        return not bool(np.any((held < 0) | (held >= num_classes)))

    def label_sets(self, rows: IntArray) -> list[list[int]]:
        """Give the classes of each row, ascending."""
        if self._label_sets is None:
            return [[label] for label in self.label[rows].tolist()]
        classes, offsets = self._label_sets
        return [classes[offsets[row] : offsets[row + 1]].tolist() for row in rows.tolist()]

    def answers(self, rows: IntArray, num_classes: int) -> NDArray[np.float32]:
        """Give 1 where a row holds a class and 0 elsewhere; [row, class].

        A row of one class has a single 1.
        """
        found = np.zeros((len(rows), num_classes), dtype=np.float32)
        if self._label_sets is None:
            found[np.arange(len(rows)), self.label[rows]] = 1.0
            return found
        classes, offsets = self._label_sets
        starts, counts = offsets[rows], offsets[rows + 1] - offsets[rows]
        row_of = np.repeat(np.arange(len(rows)), counts)
        within = np.arange(len(row_of)) - np.repeat(np.cumsum(counts) - counts, counts)
        found[row_of, classes[starts[row_of] + within]] = 1.0
        return found

    @property
    def num_rows(self) -> int:
        """Number of clips."""
        return int(self.label.shape[0])

    @property
    def protocols(self) -> tuple[str, ...]:
        """Names of the split protocols, the default one first."""
        rest = sorted(name for name in self._splits if name != self.default_protocol)
        return (self.default_protocol, *rest)

    def ids(self, rows: IntArray | Sequence[int] | None = None) -> list[str]:
        """Give the ids of some rows, or of all."""
        wanted = range(self.num_rows) if rows is None else np.asarray(rows).tolist()
        blob, offsets = self._id_bytes, self._id_offsets
        return [blob[offsets[row] : offsets[row + 1]].tobytes().decode() for row in wanted]

    def rows(self, split: str, protocol: str | None = None) -> IntArray:
        """Give the rows of a split in ascending order; empty where the protocol has none."""
        if split not in SPLITS:
            raise UnknownName(
                f"there is no split named {split!r}",
                why=f"splits are {', '.join(SPLITS)}",
                fix=suggestion(split, SPLITS),
            )
        codes = self.split_codes(protocol)
        return np.flatnonzero(codes == SPLITS.index(split)).astype(np.int64)

    def split_codes(self, protocol: str | None = None) -> NDArray[np.int8]:
        """Give each row's position in `SPLITS`, or -1 where it takes no part in the protocol."""
        name = protocol or self.default_protocol
        if name not in self._splits:
            raise UnknownName(
                f"this dataset has no split protocol named {name!r}",
                why=f"it has {', '.join(self.protocols)}",
                fix=suggestion(name, self.protocols, otherwise="set data.split to one of these"),
            )
        return self._splits[name]


def index_bytes(
    *,
    ids: Sequence[str],
    labels: Sequence[int],
    groups: Sequence[str],
    splits: Mapping[str, Sequence[str | None]],
    present: Sequence[Sequence[bool]],
    num_modalities: int,
    values: Sequence[float | None] | None = None,
    label_sets: Sequence[Iterable[int]] | None = None,
) -> bytes:
    """Give the index file; the same rows give the same bytes.

    `values` are the numbers behind the labels, where a dataset has them. `label_sets` are the
    classes of each row where a row may hold any number of them; `labels` do not count then.
    """
    encoded = [item.encode() for item in ids]
    group_names = sorted(set(groups))
    group_code = {name: code for code, name in enumerate(group_names)}
    codes: dict[str | None, int] = {
        None: _NO_SPLIT,
        **{name: code for code, name in enumerate(SPLITS)},
    }
    group_blob, group_offsets = _pack(name.encode() for name in group_names)
    id_blob, id_offsets = _pack(encoded)
    arrays: dict[str, NDArray[Any]] = {
        "ids": id_blob,
        "id_offsets": id_offsets,
        "label": np.asarray(labels, dtype=np.int64),
        "group": np.asarray([group_code[name] for name in groups], dtype=np.int64),
        "group_names": group_blob,
        "group_offsets": group_offsets,
        "present": np.asarray(present, dtype=np.bool_).reshape(len(ids), num_modalities),
    }
    if values is not None and any(value is not None for value in values):
        numbers = [np.nan if value is None else value for value in values]
        arrays["value"] = np.asarray(numbers, dtype=np.float64)
    if label_sets is not None:
        sets = [sorted(set(classes)) for classes in label_sets]
        arrays["label"] = np.full(len(ids), _NO_LABEL, dtype=np.int64)
        arrays["classes"] = np.asarray([c for classes in sets for c in classes], dtype=np.int64)
        arrays["class_offsets"] = np.zeros(len(ids) + 1, dtype=np.int64)
        np.cumsum([len(classes) for classes in sets], out=arrays["class_offsets"][1:])
    for protocol, names in splits.items():
        arrays[f"{_SPLIT_PREFIX}{protocol}"] = np.asarray([codes[n] for n in names], dtype=np.int8)
    return _zip(arrays)


def read_index(path: Path, default_protocol: str) -> Index:
    """Read an index file."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        return Index(
            ids=(arrays["ids"], arrays["id_offsets"]),
            label=arrays["label"],
            group=arrays["group"],
            group_names=(arrays["group_names"], arrays["group_offsets"]),
            splits={
                k.removeprefix("split/"): v for k, v in arrays.items() if k.startswith("split/")
            },
            present=arrays["present"],
            default_protocol=default_protocol,
            value=arrays.get("value"),
            label_sets=(
                (arrays["classes"], arrays["class_offsets"]) if "classes" in arrays else None
            ),
        )
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise StoreError(
            "the index of this dataset cannot be read",
            where=str(path),
            why=str(error),
            fix="prepare the dataset again: mmtool prepare NAME --overwrite",
        ) from error


def _pack(items: Iterable[bytes]) -> tuple[NDArray[np.uint8], IntArray]:
    held = list(items)
    offsets = np.zeros(len(held) + 1, dtype=np.int64)
    np.cumsum([len(item) for item in held], out=offsets[1:])
    return np.frombuffer(b"".join(held), dtype=np.uint8), offsets


def _zip(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    # np.savez stamps the time of day into the archive, which would change its checksum.
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(arrays):
            member = io.BytesIO()
            np.lib.format.write_array(member, arrays[name], allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy", _EPOCH), member.getvalue())
    return buffer.getvalue()
