"""Arithmetic counted on the meta device beside what it is by hand."""

from pathlib import Path

import pytest

from mmtool.config.load import load_recipe
from mmtool.engine.build import build_job
from mmtool.engine.distributed import Ranks
from mmtool.profile.flops import PartCost, count_costs
from mmtool.testing.fakes import FakeModality, write_fake_store

RECIPE = """data.dataset = "fake"

[model]
encoders.audio = {name = "mlp", hidden = [5]}
encoders.image = {name = "mlp", hidden = [7, 3]}
fusion = "concat"

[train]
epochs = 1
batch_size = 8

[log]
probes = false
"""
NUM_CLASSES = 4


@pytest.fixture
def costs(tmp_path: Path) -> dict[str, PartCost]:
    modalities = {
        "audio": FakeModality((6,), "wave"),
        "image": FakeModality((2, 10), "spectrogram"),
    }
    write_fake_store(tmp_path / "fake", modalities, num_classes=NUM_CLASSES)
    (tmp_path / "recipe.toml").write_text(RECIPE, encoding="utf-8")
    recipe = load_recipe(str(tmp_path / "recipe.toml")).recipe
    job = build_job(recipe, Ranks(), data_root=tmp_path)
    try:
        return count_costs(job)
    finally:
        job.close()


def test_an_encoder_costs_two_operations_per_weight(costs: dict[str, PartCost]) -> None:
    assert costs["audio"].forward_flops == 2 * 6 * 5
    assert costs["image"].forward_flops == 2 * (20 * 7 + 7 * 3)


def test_backward_costs_the_weights_again_and_the_inputs_where_something_is_before_them(
    costs: dict[str, PartCost],
) -> None:
    assert costs["audio"].step_flops == 2 * (2 * 6 * 5)
    assert costs["image"].step_flops == 2 * (2 * 20 * 7 + 3 * 7 * 3)


def test_parameters_are_counted_by_part(costs: dict[str, PartCost]) -> None:
    assert costs["audio"].num_parameters == 6 * 5 + 5
    assert costs["image"].num_parameters == 20 * 7 + 7 + 7 * 3 + 3
    assert costs["fusion"].num_parameters == (5 + 3) * NUM_CLASSES + NUM_CLASSES
