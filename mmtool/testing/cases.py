"""A small recipe for every method, on a small store: what contract tests train.

    write_contract_store(root / "fake")
    train_here(contract_recipe("ogm"), data_root=root, checkpoints=...)

Three modalities of different kinds, one of them missing now and then, and batches that do not
divide evenly. A method whose defaults would sit out two epochs of four steps, or that needs a
certain fusion, has a case of its own; a plugin author passes one.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmtool.config.schema import Recipe
from mmtool.testing.fakes import FakeModality, write_fake_store
from mmtool.types import TaskKind

_ENCODERS: Mapping[str, Any] = {
    "audio": {"name": "mlp", "hidden": (12,)},
    "image": {"name": "mlp", "hidden": (8,)},
    "motion": {"name": "series"},
}


@dataclass(frozen=True, slots=True)
class Case:
    """What a method needs beside the defaults so that it acts in a run of two epochs."""

    options: Mapping[str, Any] = field(default_factory=dict)
    fusion: str = "concat"
    modalities: tuple[str, ...] | None = None
    encoders: Mapping[str, Any] = field(default_factory=lambda: _ENCODERS)
    train: Mapping[str, Any] = field(default_factory=dict)


_EQUAL_WIDTHS: Mapping[str, Any] = {
    "audio": {"name": "mlp", "hidden": (16,)},
    "image": {"name": "mlp", "hidden": (16,)},
    "motion": {"name": "series", "width": 16},
}
_STAGED: Mapping[str, Any] = {
    "audio": {"name": "mlp", "hidden": (12, 8, 8)},
    "image": {"name": "cnn", "width": 4},
}
# Where stages differ, the last weights are compared: the best ones may come before a stage.
_LAST: Mapping[str, Any] = {"select": "last"}

CASES: Mapping[str, Case] = {
    "aug": Case({"hidden": 8, "max_learners": 3, "checks": 2}, train=_LAST),
    "arl": Case({"start_epoch": 0}),
    "cggm": Case({"limit": 2.0}),
    "di_mml": Case(
        {"warmup_share": 0.34, "fusion_share": 0.34},
        encoders=_EQUAL_WIDTHS,
        train={"epochs": 3, **_LAST},
    ),
    "gblend": Case({"super_epoch": 1, "start_epoch": 1}),
    "greedy": Case(
        {"start_epoch": 0, "window": 2},
        fusion="mmtm",
        modalities=("audio", "image"),
        encoders=_STAGED,
    ),
    "mla": Case(fusion="shared", encoders=_EQUAL_WIDTHS, train=_LAST),
    "mmcosine": Case(fusion="cosine"),
    "mses": Case({"patience": 1, "min_delta": 1000.0}, train={"epochs": 3, **_LAST}),
    "mslr": Case({"coefficients": {"audio": 0.5, "image": 1.5}}),
    "opm": Case({"warmup_epochs": 0}),
    "reconboost": Case({"boost_epochs": 1, "joint_epochs": 1}, train={"epochs": 6, **_LAST}),
    "relearning": Case({"every": 1, "times": 1}, train=_LAST),
    "smv_modality": Case({"warmup_epochs": 0}, train=_LAST),
    "smv_sample": Case({"warmup_epochs": 0}, train=_LAST),
    "unimodal": Case({"modality": "audio"}),
}


def case_of(method: str) -> Case:
    """Give the case of a method, which is the default one for most."""
    return CASES.get(method, Case())


def contract_recipe(
    method: str, case: Case | None = None, task: TaskKind = "single_label", **train: Any
) -> Recipe:
    """Give a recipe of two epochs for a method's name or file."""
    case = case or case_of(method)
    lr = 0.001 if task == "regression" else 0.05  # squared errors of these samples are steep
    return Recipe.model_validate(
        {
            "data": {"dataset": "fake", "modalities": case.modalities, "task": task},
            "model": {"fusion": case.fusion, "encoders": dict(case.encoders)},
            "method": {"name": method, **case.options},
            "train": {"epochs": 2, "batch_size": 20, "lr": lr, **case.train, **train},
        }
    )


def write_contract_store(path: Path, task: TaskKind = "single_label") -> Path:
    """Write the store of `contract_recipe`: 61 samples to train on, 30 held out, 30 to test."""
    modalities = {
        "audio": FakeModality((6,), "spectrogram", signal=3.0),
        "image": FakeModality((1, 8, 8), "frames", signal=1.0),
        "motion": FakeModality((3,), "series", signal=1.0, missing=0.2),
    }
    return write_fake_store(path, modalities, task=task)
