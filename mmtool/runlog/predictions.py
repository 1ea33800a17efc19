"""What a finished run answered on every sample, so that two runs can be compared sample by sample.

    predictions/val.npz, predictions/test.npz        of the weights that the run selected

`numpy.load` reads a file without pickles. With n samples, K outputs and modality m:

    head       one text, JSON: schema, split, task, metric, dataset, dataset_hash, protocol, epoch,
               step, unimodal (how the answers of one modality came about), modalities, classes
    row        [n] int64      row of the store, ascending
    id         [n] text       id of the sample
    group      [n] int64      group of the sample, whose members are not independent
    label      [n] int64, or [n, K] float32 for several labels and for a regression
    answer     [n] int64, [n, K] bool for several labels, [n, K] float64 for a regression
    loss       [n] float32
    answer/m, present/m       the answer of modality m by itself, and whether the sample has it
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmtool.runlog.npz import Array, read_npz, write_npz

SCHEMA = "mmtool-predictions/1.0"
FOLDER = "predictions"
_REQUIRED = ("row", "id", "group", "label", "answer", "loss")


@dataclass(frozen=True, slots=True)
class Predictions:
    """The answers of one run on one split."""

    head: Mapping[str, Any]
    row: NDArray[np.int64]
    id: Array
    group: NDArray[np.int64]
    label: Array
    answer: Array
    loss: Array
    answers: Mapping[str, Array]
    """By modality, the answers it gives by itself."""
    present: Mapping[str, Array]

    @property
    def task(self) -> str:
        """What was learnt: single_label, multi_label or regression."""
        return str(self.head["task"])

    @property
    def key(self) -> tuple[Any, ...]:
        """What two runs must share to have answered the same questions."""
        kept = ("dataset_hash", "protocol", "split", "task")
        return tuple(self.head.get(name) for name in kept)

    def right(self, modality: str | None = None) -> NDArray[np.float64]:
        """Give how right each answer is, from 0 to 1; of a regression, its squared errors [n, K].

        A sample that lacks the modality counts as NaN.
        """
        answer = self.answer if modality is None else self.answers[modality]
        if self.task == "regression":
            found = (answer - self.label.astype(np.float64)) ** 2
        else:
            label = self.label if self.task == "single_label" else self.label > 0.5
            found = (answer == label).astype(np.float64)
            found = found if found.ndim == 1 else found.mean(axis=1)
        if modality is not None:
            found[~self.present[modality]] = np.nan
        return found


def predictions_path(run: Path, split: str) -> Path:
    """Give the file of the answers on a split."""
    return run / FOLDER / f"{split}.npz"


def write_predictions(run: Path, found: Predictions) -> Path:
    """Write the answers of a run; a reader sees the whole file or none."""
    arrays = {name: getattr(found, name) for name in _REQUIRED}
    arrays |= {f"answer/{m}": value for m, value in found.answers.items()}
    arrays |= {f"present/{m}": value for m, value in found.present.items()}
    path = predictions_path(run, str(found.head["split"]))
    return write_npz(path, schema=SCHEMA, head=found.head, arrays=arrays)


def read_predictions(run: Path, split: str) -> Predictions | None:
    """Read the answers of a run; None where it has none, an error where they are damaged."""
    path = predictions_path(run, split)
    return read_npz(
        path,
        schema=SCHEMA,
        what=f"the answers on {split}",
        fix=f"rm {path}    # the run is then compared by its log alone",
        build=_unpacked,
    )


def _unpacked(head: dict[str, Any], arrays: dict[str, Array]) -> Predictions:
    modalities = [str(m) for m in head["modalities"]]
    found = Predictions(
        head,
        **{name: arrays[name] for name in _REQUIRED},
        answers={m: arrays[f"answer/{m}"] for m in modalities},
        present={m: arrays[f"present/{m}"] for m in modalities},
    )
    sizes = {len(array) for array in arrays.values()}
    if sizes - {len(found.row)}:
        raise ValueError("its columns have different lengths")
    return found
