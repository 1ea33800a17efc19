"""Encoders on streams of their own train to the same weights; without CUDA nothing changes."""

import pytest
import torch

from mmtool.config.schema import Recipe
from mmtool.engine.distributed import Ranks
from mmtool.engine.streams import EncoderStreams
from mmtool.testing.fakes import FakeModality, write_fake_store
from mmtool.testing.training import train_here

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.fixture
def root(tmp_path):
    modalities = {
        "audio": FakeModality((6,), "spectrogram"),
        "image": FakeModality((3, 16, 16), "frames"),
        "motion": FakeModality((3,), "series", missing=0.2),
    }
    write_fake_store(tmp_path / "fake", modalities)
    return tmp_path


def recipe(**launch):
    encoders = {"audio": "mlp", "image": {"name": "cnn", "width": 8}, "motion": "series"}
    return Recipe.model_validate(
        {
            "data": {"dataset": "fake"},
            "model": {"encoders": encoders},
            "method": {"name": "ogm", "params": "matrix"},
            "train": {"epochs": 2, "batch_size": 20, "lr": 0.05, "accumulate": 2},
            "launch": launch,
        }
    )


def trained(root, device, **launch):
    folder = root / "-".join(launch) / device.type
    ranks = Ranks(device=device)
    return train_here(recipe(**launch), data_root=root, checkpoints=folder, ranks=ranks)


def test_without_cuda_the_option_changes_nothing(root):
    cpu = torch.device("cpu")
    plain, asked = trained(root, cpu), trained(root, cpu, streams=True)

    assert not EncoderStreams(("audio", "image"), cpu, is_used=True).is_active
    assert plain.keys() == asked.keys()
    assert all(torch.equal(plain[name], asked[name]) for name in plain)


@pytest.mark.gpu
@needs_gpu
def test_encoders_side_by_side_train_to_the_same_weights(root):
    device = torch.device("cuda", 0)
    plain, aside = trained(root, device), trained(root, device, streams=True)

    assert EncoderStreams(("audio", "image"), device, is_used=True).is_active
    for name, value in plain.items():
        assert torch.allclose(aside[name].float(), value.float(), atol=1e-4), name
