"""What every balancing method must hold, whoever wrote it.

Two gloo ranks with two micro-batches each must equal one process on the same global batch, replicas
must stay equal, and a run that was stopped in the middle of an epoch must continue bit for bit.
"""

from functools import cache
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from mmtool import registry
from mmtool.config.schema import Recipe
from mmtool.engine.distributed import Ranks
from mmtool.testing.fakes import FakeModality, write_fake_store
from mmtool.testing.ranks import run_ranks
from mmtool.testing.training import train_here

METHODS = registry.names("methods")
# The contract's encoders have layers that OGM's default, convolutions only, would not select.
OPTIONS = {"ogm": {"params": "matrix"}}
SHAPES = ("alternating", "per_term", "epochal")
FIXED = Path(__file__).with_name("control_shapes.py")
# float32 sums in another order; learning rates here move weights by about 1e-1.
TOLERANCE = 2e-5


def recipe_for(method: str, **train: object) -> Recipe:
    """A three-modality recipe with dropout-free encoders and a split into uneven batches."""
    name = f"{FIXED}" if method in SHAPES else method
    options = {"shape": method} if method in SHAPES else OPTIONS.get(method, {})
    return Recipe.model_validate(
        {
            "data": {"dataset": "fake"},
            "model": {
                "encoders": {
                    "audio": {"name": "mlp", "hidden": (12,)},
                    "image": {"name": "mlp", "hidden": (8,)},
                    "motion": {"name": "series"},
                }
            },
            "method": {"name": name, **options},
            "train": {"epochs": 2, "batch_size": 20, "lr": 0.05, "accumulate": 1, **train},
        }
    )


@cache
def store_root() -> Path:
    import tempfile

    root = Path(tempfile.mkdtemp(prefix="mmtool-contract-"))
    modalities = {
        "audio": FakeModality((6,), "spectrogram", signal=3.0),
        "image": FakeModality((1, 8, 8), "frames", signal=1.0),
        "motion": FakeModality((3,), "series", signal=1.0, missing=0.2),
    }
    write_fake_store(root / "fake", modalities)
    return root


def train_all(ranks: Ranks, root: str, out: str) -> None:
    """Train every method on these ranks; called in each rank process."""
    for method in (*METHODS, *SHAPES):
        folder = Path(out) / method
        recipe = recipe_for(method, accumulate=2)
        weights = train_here(recipe, data_root=Path(root), checkpoints=folder, ranks=ranks)
        save_file(weights, f"{out}/{method}.rank{ranks.rank}.safetensors")


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory):
    out = tmp_path_factory.mktemp("ranks")
    run_ranks(2, f"{Path(__file__)}:train_all", str(store_root()), str(out))
    return out


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_the_walk_finds_the_methods():
    assert {"none", "ogm", "opm", "modality_dropout", "multi_loss"} <= set(METHODS)


@pytest.mark.parametrize("method", [*METHODS, *SHAPES])
def test_two_ranks_equal_one_process(method, two_ranks, tmp_path):
    alone = train_here(recipe_for(method), data_root=store_root(), checkpoints=tmp_path)
    first, second = (load_file(two_ranks / f"{method}.rank{rank}.safetensors") for rank in range(2))

    for name, value in alone.items():
        assert torch.equal(first[name], second[name]), f"replicas differ in {name}"
        assert torch.allclose(first[name], value, atol=TOLERANCE), name


@pytest.mark.parametrize("method", [*METHODS, *SHAPES])
def test_a_stopped_run_continues_bit_for_bit(method, tmp_path):
    recipe = recipe_for(method)
    whole = train_here(recipe, data_root=store_root(), checkpoints=tmp_path / "whole")

    train_here(recipe, data_root=store_root(), checkpoints=tmp_path / "parts", stop_after=6)
    rest = train_here(
        recipe, data_root=store_root(), checkpoints=tmp_path / "parts", is_resumed=True
    )

    assert [name for name in whole if not torch.equal(whole[name], rest[name])] == []


@pytest.mark.parametrize("method", [*METHODS, *SHAPES])
def test_training_moves_every_encoder(method, tmp_path):
    recipe = recipe_for(method, epochs=1)
    untrained = train_here(
        recipe, data_root=store_root(), checkpoints=tmp_path / "zero", stop_after=1
    )
    trained = train_here(recipe, data_root=store_root(), checkpoints=tmp_path / "one")

    for modality in ("audio", "image", "motion"):
        names = [n for n in trained if n.startswith(f"encoders.{modality}.")]
        assert names
        assert any(not torch.equal(trained[n], untrained[n]) for n in names)


def test_numbers_do_not_depend_on_whether_probes_are_trained(tmp_path):
    with_probes = recipe_for("none")
    log = with_probes.log.model_copy(update={"probes": False})
    without = with_probes.model_copy(update={"log": log})

    a = train_here(with_probes, data_root=store_root(), checkpoints=tmp_path / "a")
    b = train_here(without, data_root=store_root(), checkpoints=tmp_path / "b")

    shared = [name for name in a if not name.startswith("probes.")]
    assert len(shared) < len(a)
    assert all(torch.equal(a[name], b[name]) for name in shared)
