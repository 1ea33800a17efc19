"""What a re-opened checkpoint answered when modalities were removed, kept beside the run.

    deep/val.npz, deep/train.npz          written by `mmtool diagnose RUN --deep`, read by diagnosis

Everything is per sample, so that every number, interval and verdict can be computed again without
the model. `numpy.load` reads a file without pickles. With n samples in the order of the store,
M modalities and K outputs:

    head       one text, JSON; keys below
    row        [n] int64      row of the store, ascending
    id         [n] text       id of the sample
    group      [n] int64      group of the sample, whose members are not independent
    label      [n] int64, or [n, K] float32 for several labels and for a regression
    present    [n, M] bool    which modalities the sample has, in the order of head.modalities
    kept       [s, M] bool    the subsets that were kept; the first keeps all, the last none; all
                              2^M up to M = 4, above that all, none, singles, all but one, and
                              what `order` leads through
    order      [p, M] int64   above M = 4, sampled permutations of modalities; each of them enters
                              one by one, from none to all, through subsets that are in `kept`
    fused.right, .gain, .answer, .conf   [n]   the whole model; differs from the first subset only
                              where encoders hear each other, which no subset lets them do
    permute.right, permute.gain   [s, draws, n] float32   the others swapped with other samples'
    mean.right, mean.gain         [s, n] float32          the others replaced by their mean feature
    permute.answer                [s, draws, n] int32     class named (one label only)
    mean.answer                   [s, n] int32
    conf                          [s, n] float32          largest probability, of the mean removal
    emap.row, emap.right, emap.gain, emap.full_right, emap.full_gain   [e]   see head.emap; on val
    SOURCE/m.right, SOURCE/m.gain, SOURCE/m.conf   [n] float32  a linear readout of modality m alone
        SOURCE: probe     refitted on the features of this checkpoint's encoder
                floor     on those of the encoder as it was before the first step
                headroom  on those of the encoder after it was trained on alone for a while
                solo      on those of an encoder that was trained alone with the same recipe
    SOURCE/m.answer               [n] int32               one label only
    solo_joint.right, .gain       [n] float32             log probabilities of all solo runs, summed
    CORRUPTION/m.right, .gain     [n] float32             the input of m: noise | blank | swapped;
                                                          on val, to be compared with fused
    CORRUPTION/m.answer           [n] int32               one label only

`right` is how right an answer is from 0 to 1; of a regression its squared error, summed over
outputs. `gain` is the log probability of the label, clipped at log(1e-6), of several labels their
mean; of a regression the negative squared error in variances of the target on train, the mean
over outputs. `conf` of several labels is the mean of the larger probabilities; a regression has
none. A sample without a modality has NaN, and the answer -1, in what is about that modality alone;
in the removals it keeps what stands for the modality.

head: schema, split, run, step, epoch, task, metric, modalities, classes, dataset_hash, protocol,
draws, seed, chance, prior [share of each class on train], seconds {part: s},
emap {modalities, n, how: exact | additive} or null, effective_rank {m: value},
update_norm {m: relative change of the encoder since the start, null if unknown},
trainable {m: bool}, headroom {epochs, share} or null, solo {m: run directory name},
asked {samples, headroom: bool},
removal {m: how a missing modality is presented to the fusion}.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmtool.runlog.npz import Array, read_npz, write_npz

SCHEMA = "mmtool-deep/1.0"
FOLDER = "deep"
_REQUIRED = ("row", "id", "group", "label", "present", "kept")


@dataclass(frozen=True, slots=True)
class DeepRecord:
    """Everything that was measured on one split; arrays by the names above."""

    head: Mapping[str, Any]
    arrays: Mapping[str, Array]

    @property
    def modalities(self) -> tuple[str, ...]:
        """Modalities in the order of the columns of `kept` and `present`."""
        return tuple(str(m) for m in self.head["modalities"])

    @property
    def n(self) -> int:
        """Number of samples."""
        return len(self.arrays["row"])

    def subset(self, *kept: str) -> int:
        """Give the place of a subset of modalities along the first axis of the removals."""
        wanted = np.array([m in kept for m in self.modalities])
        places = np.flatnonzero((self.arrays["kept"] == wanted).all(axis=1))
        if not len(places):
            raise KeyError(f"the subset {kept} was not measured")
        return int(places[0])


def deep_path(run: Path, split: str) -> Path:
    """Give the file of the measurements on a split."""
    return run / FOLDER / f"{split}.npz"


def write_deep(run: Path, record: DeepRecord) -> Path:
    """Write the measurements on a split; a reader sees the whole file or none."""
    path = deep_path(run, str(record.head["split"]))
    return write_npz(path, schema=SCHEMA, head=record.head, arrays=record.arrays)


def read_deep(run: Path, split: str) -> DeepRecord | None:
    """Read the measurements on a split; None where there are none, an error where damaged."""
    path = deep_path(run, split)
    return read_npz(
        path,
        schema=SCHEMA,
        what=f"the measurements on {split}",
        fix=f"rm {path}    # or measure again: mmtool diagnose {run} --deep",
        build=_checked,
    )


def _checked(head: dict[str, Any], arrays: dict[str, Array]) -> DeepRecord:
    record = DeepRecord(head, arrays)
    missing = [name for name in _REQUIRED if name not in arrays]
    if missing:
        raise ValueError(f"it lacks {', '.join(missing)}")
    width = len(record.modalities)
    wrong = [name for name in ("present", "kept") if arrays[name].shape[1:] != (width,)]
    wrong += [
        name
        for name, array in arrays.items()
        if not _is_apart(name) and record.n not in array.shape[:3]
    ]
    if wrong:
        raise ValueError(f"{', '.join(wrong)} does not fit its {record.n} samples")
    return record


def _is_apart(name: str) -> bool:
    """Tell whether an array has another length than one entry for each sample."""
    return name in ("kept", "order") or name.startswith("emap.")
