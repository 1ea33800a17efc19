"""bfloat16 on a CPU trains what float32 trains, to the precision it has."""

import pytest
import torch

from mmtool.config.schema import Recipe
from mmtool.testing.fakes import FakeModality, write_fake_store
from mmtool.testing.training import train_here

TOLERANCE = 0.05
"""Largest difference of losses, and relative distance of all weights: bfloat16 keeps 8 bits, so a
product is off by up to 0.4 %, and the updates of 24 steps add such errors up."""


def trained(precision, root, folder):
    encoders = {"audio": {"name": "mlp", "hidden": [16]}, "image": {"name": "cnn", "width": 4}}
    recipe = Recipe.model_validate(
        {
            "data": {"dataset": "fake"},
            "model": {"encoders": encoders},
            "method": "ogm",
            "train": {
                "epochs": 3,
                "batch_size": 8,
                "lr": 0.02,
                "precision": precision,
                "select": "last",
            },
        }
    )
    losses = []

    def emit(kind, **fields):
        if kind == "epoch":
            losses.append(fields["loss"])

    weights = train_here(recipe, data_root=root, checkpoints=folder / precision, emit=emit)
    flat = torch.cat([v.flatten() for _, v in sorted(weights.items()) if v.is_floating_point()])
    return flat, losses


def test_bf16_on_a_cpu_trains_to_within_a_tolerance_of_fp32(tmp_path):
    shapes = {
        "audio": FakeModality((6,), "spectrogram"),
        "image": FakeModality((1, 8, 8), "spectrogram"),
    }
    write_fake_store(tmp_path / "fake", shapes, splits={"train": 64, "val": 16, "test": 16})
    (full, losses), (half, half_losses) = (
        trained(precision, tmp_path, tmp_path) for precision in ("fp32", "bf16")
    )

    assert not torch.equal(full, half)
    assert ((full - half).norm() / full.norm()).item() < TOLERANCE
    assert half_losses == pytest.approx(losses, abs=TOLERANCE)
    assert losses[-1] < losses[0]
