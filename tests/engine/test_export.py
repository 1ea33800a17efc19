"""Exported weights know what they are and give the model back without run or dataset."""

import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors import safe_open

from mmtool.config.dump import to_toml
from mmtool.config.schema import Recipe
from mmtool.data.samplers import rank_share, shuffled
from mmtool.engine.build import build_job
from mmtool.engine.distributed import Ranks
from mmtool.engine.export import export_weights, load_exported
from mmtool.engine.manifest import newest_first
from mmtool.errors import CheckpointError, MmtoolError, RequestError
from mmtool.testing.fakes import FakeModality, write_fake_store
from mmtool.testing.training import train_here


def recipe(checkpoint: str = "gathered") -> Recipe:
    return Recipe.model_validate(
        {
            "data": {"dataset": "fake", "modalities": ("audio", "image")},
            "model": {
                "encoders": {"audio": {"name": "mlp", "hidden": (12,)}, "image": {"name": "cnn"}}
            },
            "train": {"epochs": 2, "batch_size": 16, "lr": 0.05, "checkpoint": checkpoint},
            "log": {"probes": True},
        }
    )


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    shapes = {
        "audio": FakeModality((6,), "spectrogram"),
        "image": FakeModality((3, 8, 8), "frames"),
    }
    write_fake_store(folder / "fake", shapes, splits={"train": 48, "val": 12, "test": 9})
    return folder


@pytest.fixture(scope="module", params=["gathered", "sharded"])
def run(request, root, tmp_path_factory):
    """A finished run directory as far as export looks at it."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "log").mkdir()
    config = recipe(request.param)
    (folder / "resolved.toml").write_text(to_toml(config), encoding="utf-8")
    train_here(config, data_root=root, checkpoints=folder / "ckpt")
    return folder


def test_the_model_comes_back_and_gives_the_same_logits(run, root, tmp_path):
    done = export_weights(run, tmp_path / "w.safetensors", last=True)
    exported = load_exported(done.path)
    job = build_job(recipe(), Ranks(), data_root=root)
    job.model.load_state_dict(exported.model.state_dict())
    job.model.eval()
    share = rank_share(shuffled(job.train_visits(), seed=0, epoch=0), 0, batch_size=16)
    (loaded,) = job.loader.run([share], epoch=None)
    with torch.no_grad():
        expected = job.model.fuse(job.model.encode(loaded.batches[0]))
        found = exported.model.fuse(exported.model.encode(loaded.batches[0]))
    job.close()

    assert (done.step, done.checkpoint) == (6, "step00000006")
    assert not exported.model.training
    assert found.shape == (16, 3)
    assert torch.equal(found, expected)


def test_the_file_says_what_it_is(run, tmp_path):
    target = tmp_path / "w.safetensors"
    export_weights(run, target)
    with safe_open(target, "pt") as file:
        about = file.metadata()
    exported = load_exported(target)

    assert exported.classes == ("class0", "class1", "class2")
    assert exported.recipe.train.lr == 0.05
    assert exported.recipe.model.encoders["image"].name == "cnn"
    assert tuple(exported.modalities) == ("audio", "image")
    image = exported.modalities["image"]
    assert (image["kind"], image["shape"], image["dtype"]) == ("frames", [3, 8, 8], "uint8")
    assert (image["mean"], image["std"]) == ([0.5] * 3, [0.25] * 3)
    assert about["recipe"] == to_toml(exported.recipe)
    assert {"mmtool", "dataset", "dataset_hash", "protocol", "step", "epoch"} <= about.keys()


def test_the_best_weights_are_the_default_and_damaged_ones_are_refused(run, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    best = newest_first(copy / "ckpt", "best")[0]
    done = export_weights(copy, tmp_path / "w.safetensors")
    weights = max((p for p in best.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 4
    weights.write_bytes(data)

    assert done.checkpoint == best.name
    with pytest.raises(CheckpointError, match="no usable checkpoint") as caught:
        export_weights(copy, tmp_path / "bad.safetensors")
    assert caught.value.exit_code == 65
    assert not (tmp_path / "bad.safetensors").exists()


def test_a_run_without_best_weights_asks_for_last(run, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    for path in newest_first(copy / "ckpt", "best"):
        shutil.rmtree(path)

    with pytest.raises(RequestError, match="no best weights yet") as caught:
        export_weights(copy, tmp_path / "w.safetensors")
    assert "--last" in caught.value.fix


def test_other_files_are_refused(tmp_path):
    (tmp_path / "no.safetensors").write_bytes(os.urandom(100))

    with pytest.raises(MmtoolError, match="cannot be read"):
        load_exported(tmp_path / "no.safetensors")


def test_the_command_prints_the_file(run, tmp_path):
    target = tmp_path / "deep" / "w.safetensors"
    command = [sys.executable, "-m", "mmtool", "export", str(run), "--to", str(target), "--json"]
    found = subprocess.run(command, capture_output=True, text=True, check=True)

    document = json.loads(found.stdout)
    assert document["schema"] == "mmtool.export/1"
    assert document["file"] == str(target)
    assert document["checkpoint"].startswith("best")
    assert target.is_file()
