"""What only a GPU can show; skipped where there is none."""

import pytest
import torch

from mmtool.config.schema import Recipe
from mmtool.engine.distributed import Ranks
from mmtool.testing.fakes import FakeModality, write_fake_store
from mmtool.testing.training import train_here

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


def recipe(method: str) -> Recipe:
    return Recipe.model_validate(
        {
            "data": {"dataset": "fake"},
            "model": {"encoders": {"audio": {"name": "mlp"}, "image": {"name": "cnn", "width": 8}}},
            "method": {"name": method},
            "train": {"epochs": 1, "batch_size": 20, "lr": 0.05},
        }
    )


@pytest.fixture
def root(tmp_path):
    modalities = {
        "audio": FakeModality((6,), "spectrogram"),
        "image": FakeModality((1, 8, 8), "frames"),
    }
    write_fake_store(tmp_path / "fake", modalities)
    return tmp_path


# Without ogm: its noise comes from another generator on a GPU.
@pytest.mark.parametrize("method", ["none", "opm", "modality_dropout", "multi_loss"])
def test_a_gpu_trains_to_the_weights_of_the_cpu(method, root):
    cpu = train_here(recipe(method), data_root=root, checkpoints=root / "cpu")
    ranks = Ranks(device=torch.device("cuda", 0))
    gpu = train_here(recipe(method), data_root=root, checkpoints=root / "gpu", ranks=ranks)

    for name, value in cpu.items():
        assert torch.allclose(gpu[name].cpu().float(), value.float(), atol=2e-3), name
