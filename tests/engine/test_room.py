"""A run says before its first step that its checkpoints will not fit on the disk."""

import json
import shutil
from collections import namedtuple

import pytest

from mmtool.config.schema import Recipe
from mmtool.engine.build import build_job
from mmtool.engine.distributed import Ranks
from mmtool.engine.room import check_room, checkpoint_bytes
from mmtool.errors import NotWritable
from mmtool.testing.training import train_here

MB = 2**20
Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def with_free(monkeypatch):
    def set_free(number):
        monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**12, 0, number))

    return set_free


def test_enough_room_is_not_worth_a_word(with_free, tmp_path):
    with_free(300 * MB)

    assert check_room(tmp_path, 100 * MB) is None


def test_room_for_less_than_three_checkpoints_is_a_warning_with_numbers(with_free, tmp_path):
    with_free(250 * MB)
    words = check_room(tmp_path, 100 * MB)

    assert str(tmp_path) in words
    assert "--runs-dir" in words
    assert all(number in words for number in ("250.0 MiB", "300.0 MiB", "100.0 MiB", "50.0 MiB"))


def test_room_for_none_stops_the_run_before_it_begins(with_free, tmp_path):
    with_free(99 * MB)

    with pytest.raises(NotWritable, match="no room for a checkpoint") as caught:
        check_room(tmp_path, 100 * MB)
    assert caught.value.exit_code == 74


def test_checkpoints_that_are_there_already_need_no_more_room(with_free, tmp_path):
    (tmp_path / "step00000001").mkdir()
    (tmp_path / "step00000001" / "model").write_bytes(bytes(2 * MB))
    with_free(MB)

    assert check_room(tmp_path, MB) is None


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_the_estimate_is_near_what_a_checkpoint_takes(optimizer, tiny, tmp_path):
    root = tiny.home / "data"
    wide = {"name": "mlp", "hidden": (500, 500)}
    recipe = Recipe.model_validate(
        {
            "data": {"dataset": "fake"},
            "model": {"encoders": dict.fromkeys(("audio", "image"), wide)},
            "train": {"epochs": 1, "batch_size": 32, "lr": 0.01, "optimizer": optimizer},
        }
    )
    job = build_job(recipe, Ranks(), data_root=root)
    estimate = checkpoint_bytes(job)
    job.close()
    train_here(recipe, data_root=root, checkpoints=tmp_path)
    newest = max(tmp_path.glob("step[0-9]*"))
    found = sum(p.stat().st_size for p in newest.iterdir())

    assert 0.8 * found < estimate < 1.2 * found


FULL = """
import shutil
_real = shutil.disk_usage
shutil.disk_usage = lambda path: _real(path)._replace(free=1000)
"""


@pytest.mark.slow
@pytest.mark.parametrize("gpus", ["1", "2"])
def test_a_full_disk_ends_a_run_with_74_before_its_first_step(gpus, tiny, launching, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(FULL, encoding="utf-8")
    found = tiny.train(tmp_path / "runs", "--gpus", gpus, PYTHONPATH=str(tmp_path))
    run = launching.the_run(tmp_path / "runs")
    lines = (run / "log" / "rank0.jsonl").read_text(encoding="utf-8").splitlines()

    assert found.code == 74, found.stderr
    assert "no room for a checkpoint" in found.stderr
    assert "--runs-dir" in found.stderr
    assert not [line for line in lines if json.loads(line)["k"] == "step"]
    assert launching.status(run)["exit_code"] == 74
