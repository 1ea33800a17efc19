"""What the names in a foreign log mean: by custom, or as `mmtool-map.toml` beside it says.

    # mmtool-map.toml
    modalities = ["audio", "video"]
    classes = 6
    num_val = 600

    [tags]                                   # a regular expression = what it stands for
    'Validation/Top1' = "val.acc"
    'val_(?P<modality>\\w+)_permuted_flips' = "val.{modality}.flip"
    'dataloader_seconds' = "s.data"

A name stands for `step`, `epoch` or `time` (columns of a table), for a number of the step such as
`loss`, `lr`, `gnorm`, `n`, `ms.data` (or `s.data` in seconds), for one of a split such as `val.acc`
and `train.loss`, or for one of a modality such as `val.audio.flip`. "" leaves a name out.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmtool.errors import RequestError

FILE_NAME = "mmtool-map.toml"
MODALITY_METRICS = ("flip", "drop", "alone", "probe", "probe_nll", "acc", "nll")
_TELLING_METRICS = "flip|drop|alone|probe|probe_nll"
_SEP = r"[/_.\- ]"
_VAL = r"(?:val|valid|validation|eval|dev)"
_ACC = rf"(?:(?:epoch|multiclass){_SEP})?(?:acc|accuracy|acc_?1|top_?1)(?:{_SEP}epoch)?"
_LOSS = rf"(?:epoch{_SEP})?loss(?:{_SEP}epoch)?"
CUSTOM: tuple[tuple[str, str], ...] = (
    (r"_?(?:global_?)?step|iter(?:ation)?s?|it", "step"),
    (r"epoch", "epoch"),
    (r"_?(?:wall_?)?time(?:stamp)?", "time"),
    (rf"(?:train|training){_SEP}{_ACC}", "train.acc"),
    (rf"(?:train|training){_SEP}(?:epoch{_SEP}loss|loss{_SEP}epoch)", "train.loss"),
    (rf"{_VAL}{_SEP}{_ACC}", "val.acc"),
    (rf"{_VAL}{_SEP}{_LOSS}", "val.loss"),
    (rf"test{_SEP}{_ACC}", "test.acc"),
    (rf"test{_SEP}{_LOSS}", "test.loss"),
    (rf"(?:(?:train|training){_SEP})?loss(?:{_SEP}step)?", "loss"),
    (rf"(?:train{_SEP})?(?:lr|learning_rate)|lr-\w+(?:/pg1)?", "lr"),
    (rf"(?:train{_SEP})?(?:grad_norm|gnorm)", "gnorm"),
    (
        rf"{_VAL}{_SEP}(?P<modality>\w+?){_SEP}(?P<metric>{_TELLING_METRICS})",
        "val.{modality}.{metric}",
    ),
)  # fmt: skip
SPLITS = ("train", "val", "test")
COLUMNS = ("step", "epoch", "time")


@dataclass(frozen=True, slots=True)
class Target:
    """What a name stands for."""

    field: str
    split: str = ""
    modality: str = ""
    scale: float = 1.0


@dataclass(frozen=True, slots=True)
class NameMap:
    """Tells for every name in a log what it stands for."""

    tags: tuple[tuple[re.Pattern[str], str], ...] = ()
    about: Mapping[str, Any] = field(default_factory=dict)
    """Everything else that the file says: modalities, classes, num_val, dataset, ..."""

    @property
    def modalities(self) -> tuple[str, ...]:
        """Modalities that the file names."""
        return tuple(str(m) for m in self.about.get("modalities") or ())

    def target(self, name: str) -> Target | None:
        """Give what a name stands for, None for nothing that is known."""
        for pattern, text in (*self.tags, *self._of_modalities(), *_BY_CUSTOM):
            found = pattern.fullmatch(name)
            if found is not None:
                return target_from(text.format(**found.groupdict())) if text else None
        return None

    def _of_modalities(self) -> list[tuple[re.Pattern[str], str]]:
        """Give the patterns that only known modalities make safe, such as `val_audio_acc`."""
        if not self.modalities:
            return []
        names, metrics = "|".join(map(re.escape, self.modalities)), "|".join(MODALITY_METRICS)
        forms = []
        for split, written in (("val", _VAL), ("train", "(?:train|training)")):
            modality, metric = f"(?P<modality>{names})", f"(?P<metric>{metrics})"
            forms += [
                (rf"{written}{_SEP}{modality}{_SEP}{metric}", f"{split}.{{modality}}.{{metric}}"),
                (rf"{modality}{_SEP}{written}{_SEP}{metric}", f"{split}.{{modality}}.{{metric}}"),
                (rf"{written}{_SEP}{metric}{_SEP}{modality}", f"{split}.{{modality}}.{{metric}}"),
            ]
        return [(re.compile(pattern, re.IGNORECASE), text) for pattern, text in forms]


_BY_CUSTOM = tuple((re.compile(pattern, re.IGNORECASE), text) for pattern, text in CUSTOM)


def target_from(text: str) -> Target | None:
    """Read `loss`, `ms.data`, `s.data`, `val.acc` or `val.audio.flip`."""
    match text.split("."):
        case ["ms" | "s" as unit, phase] if phase:
            return Target(f"ms_{phase}", scale=1000.0 if unit == "s" else 1.0)
        case ["term", name] if name:
            return Target(f"term_{name}")
        case [split, metric] if split in SPLITS and metric:
            return Target(metric, split=split)
        case [split, modality, metric] if split in SPLITS and modality and metric:
            return Target(metric, split=split, modality=modality)
        case [name] if name:
            return Target(name)
    return None


def load_map(beside: Path) -> NameMap:
    """Read the map beside a log, that is in its folder; without one, names are read by custom."""
    path = (beside if beside.is_dir() else beside.parent) / FILE_NAME
    if not path.is_file():
        return NameMap()
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RequestError(f"{FILE_NAME} cannot be read: {error}", where=str(path)) from error
    tags = document.pop("tags", {})
    if not isinstance(tags, dict):
        raise RequestError("tags is a table of expressions", where=str(path), fix="[tags]")
    return NameMap(tuple(_tag(key, text, path) for key, text in tags.items()), document)


def _tag(pattern: str, text: object, path: Path) -> tuple[re.Pattern[str], str]:
    try:
        compiled = re.compile(pattern)
        groups = dict.fromkeys(compiled.groupindex, "x")
        filled = str(text).format(**groups)
    except (re.error, KeyError, IndexError, ValueError) as error:
        raise RequestError(
            f"{pattern!r} = {text!r} cannot be understood: {error}",
            where=str(path),
            fix="'val_(?P<modality>\\w+)_flips' = \"val.{modality}.flip\"",
        ) from error
    if filled and target_from(filled) is None:
        raise RequestError(
            f"{text!r} stands for nothing in a run",
            where=str(path),
            fix=f'{pattern!r} = "val.acc"    # or loss, lr, ms.data, train.loss, val.audio.flip',
        )
    return compiled, str(text)


def names_in(values: Sequence[str]) -> str:
    """Give some names for a message."""
    shown = ", ".join(values[:8])
    return f"{shown}, ..." if len(values) > 8 else shown
