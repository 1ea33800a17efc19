"""The recipe that trains a problem: encoders of one of three kinds under one of five fusions."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from mmtool.config.dump import toml_value
from mmtool.testing.planted.problem import Problem, Truth
from mmtool.testing.planted.store import EncoderKind

FusionKind: TypeAlias = Literal["concat", "sum", "film", "gated", "attention"]
FUSION_KINDS: tuple[FusionKind, ...] = ("concat", "sum", "film", "attention")
ADDITIVE = frozenset({"concat", "sum"})
_PLUGINS = Path(__file__).parent / "plugins"


@dataclass(frozen=True, slots=True)
class Setup:
    """How a problem is trained."""

    encoder: EncoderKind = "mlp"
    fusion: FusionKind = "concat"
    seed: int = 0
    patch: Mapping[str, Any] = field(default_factory=dict)
    """Dotted key -> value that replaces what the recipe says."""


def truth_for(problem: Problem, fusion: str) -> Truth:
    """Give what is right to say of a model with this fusion."""
    truth = problem.truth
    return truth.additive if truth.additive is not None and fusion in ADDITIVE else truth


def recipe_text(problem: Problem, setup: Setup, dataset: str) -> str:
    """Give the recipe as TOML."""
    values: dict[str, Any] = {
        "data.dataset": dataset,
        "data.task": problem.task,
        "data.normalize": "none",
        "model.fusion.name": _fusion(setup.fusion),
        "train.epochs": problem.epochs,
        "train.batch_size": 64,
        "train.optimizer": "adamw",
        "train.lr": 2e-3,
        "train.weight_decay": 0.0,
        "train.select": "last",
        "train.seed": setup.seed,
        "launch.device": "cpu",
        "launch.threads": 1,
        "log.every_steps": 16,
    }
    for modality in problem.modalities:
        for key, value in _encoder(problem, modality, setup.encoder).items():
            values[f"model.encoders.{modality}.{key}"] = value
    return "".join(
        f"{key} = {toml_value(value)}\n" for key, value in {**values, **setup.patch}.items()
    )


def _fusion(kind: FusionKind) -> str:
    return str(_PLUGINS / "attention.py") if kind == "attention" else kind


def _encoder(problem: Problem, modality: str, kind: EncoderKind) -> dict[str, Any]:
    is_dead = modality in problem.dead
    if kind == "cnn":
        return {"name": "cnn", "width": 8}
    if kind == "transformer":
        transformer = {"name": str(_PLUGINS / "transformer.py")}
        return {**transformer, "last_bias": -50.0} if is_dead else transformer
    name = str(_PLUGINS / "dead_mlp.py") if is_dead else "mlp"
    return {"name": name, "hidden": list(problem.hidden.get(modality, (64, 32)))}
