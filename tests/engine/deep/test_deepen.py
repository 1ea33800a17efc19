"""A finished run is opened again, measured, and left as it was."""

import json
import shutil

import numpy as np
import pytest
import torch

from mmtool.config.dump import to_toml
from mmtool.config.schema import Recipe
from mmtool.engine.build import build_job
from mmtool.engine.deep.api import deepen
from mmtool.engine.deep.reopen import reopen
from mmtool.engine.distributed import Ranks
from mmtool.engine.manifest import newest_first
from mmtool.errors import CheckpointError, DatasetNotPrepared, RequestError, RunDirectoryError
from mmtool.runlog.deep import deep_path, read_deep
from mmtool.runlog.predictions import read_predictions
from mmtool.runlog.rundir import RunDir, make_run
from mmtool.testing.cases import contract_recipe, write_contract_store
from mmtool.testing.fakes import FakeModality, write_fake_store
from mmtool.testing.training import weights


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def write_store(folder, seed=0):
    shape = FakeModality((6,), "spectrogram", signal=1.5)
    splits = {"train": 40, "val": 24, "test": 8}
    write_fake_store(folder / "fake", {"audio": shape, "image": shape}, splits=splits, seed=seed)


def recipe(**train):
    return Recipe.model_validate(
        {
            "data": {"dataset": "fake"},
            "model": {"encoders": {m: {"name": "mlp", "hidden": (8,)} for m in ("audio", "image")}},
            "train": {"epochs": 3, "batch_size": 10, "lr": 0.05, **train},
            "launch": {"device": "cpu"},
        }
    )


def train_run(path, data_root, config):
    from mmtool.engine.rank import run_rank
    from mmtool.engine.stop import StopRequest

    run = make_run(path)
    run.write_recipe("", to_toml(config))
    run.write_launch({"data_root": str(data_root), "attempt": 1, "is_resumed": False})
    run_rank(run, StopRequest())
    run.write_status(state="done")
    return run.path


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A data root and a finished run, made once."""
    folder = tmp_path_factory.mktemp("deepen")
    write_store(folder / "data")
    return folder / "data", train_run(folder / "runs" / "done", folder / "data", recipe())


@pytest.fixture
def run(trained, tmp_path):
    """A copy of the finished run."""
    return shutil.copytree(trained[1], tmp_path / "runs" / "done")


def test_the_selected_weights_are_measured(run):
    sentences = []
    folder = deepen(run, headroom=False, tell=sentences.append)
    val, kept = read_deep(run, "val"), read_predictions(run, "val")
    (best,) = newest_first(run / "ckpt", "best")

    assert folder == deep_path(run, "val").parent
    assert val.head["run"] == "done"
    assert best.name == f"best{val.head['step']:08d}"
    assert val.head["epoch"] == kept.head["epoch"]
    assert val.arrays["id"].tolist() == kept.id.tolist()
    assert val.arrays["fused.answer"].tolist() == kept.answer.tolist()
    assert read_deep(run, "train").n == 24


def test_weights_kept_in_parts_are_measured_too(trained, tmp_path):
    config = recipe(checkpoint="sharded")
    run = train_run(tmp_path / "runs" / "parts", trained[0], config)
    deepen(run, headroom=False)

    said = read_deep(run, "val").arrays["fused.answer"].tolist()
    assert said == read_predictions(run, "val").answer.tolist()


def test_the_last_weights_are_measured_where_the_run_selects_them(trained, tmp_path):
    run = train_run(tmp_path / "runs" / "last", trained[0], recipe(select="last"))
    deepen(run, headroom=False)

    val = read_deep(run, "val")
    assert (val.head["step"], val.head["epoch"]) == (12, 2)
    assert val.arrays["fused.answer"].tolist() == read_predictions(run, "val").answer.tolist()


def test_the_model_of_before_the_first_step_comes_back_too(run, trained):
    opened = reopen(run)
    job = build_job(recipe(), Ranks(), data_root=trained[0])
    began = weights(job)
    job.close()
    try:
        now = weights(opened.job)
        found = opened.initial.state_dict()
    finally:
        opened.close()

    assert all(torch.equal(found[name], value) for name, value in began.items())
    assert not torch.equal(now["fusion.classifier.weight"], began["fusion.classifier.weight"])


@pytest.mark.parametrize("method", ["arl", "aug", "di_mml", "mla", "reconboost"])
def test_a_method_predicts_as_it_did_in_its_run(method, tmp_path):
    write_contract_store(tmp_path / "data" / "fake")
    config = contract_recipe(method)
    run = train_run(tmp_path / "runs" / method, tmp_path / "data", config)
    deepen(run, headroom=False, samples=20)

    val, kept = read_deep(run, "val"), read_predictions(run, "val")
    same = np.isin(kept.row, val.arrays["row"])
    assert val.arrays["fused.answer"].tolist() == kept.answer[same].tolist()


def test_what_was_measured_is_kept_until_more_is_asked(run):
    deepen(run, headroom=False, samples=12)
    path = deep_path(run, "val")
    first = path.stat().st_mtime_ns
    sentences = []

    deepen(run, headroom=False, samples=12, tell=sentences.append)
    assert path.stat().st_mtime_ns == first
    assert sentences[0].startswith("measured before: 12 samples of best")

    deepen(run, samples=12)
    assert "headroom/audio.right" in read_deep(run, "val").arrays
    second = path.stat().st_mtime_ns
    assert second != first
    deepen(run, headroom=False, samples=12)
    assert path.stat().st_mtime_ns == second
    deepen(run, headroom=False, samples=13)
    assert read_deep(run, "val").n == 13


def test_another_checkpoint_is_measured_again(run):
    deepen(run, headroom=False)
    (best,) = newest_first(run / "ckpt", "best")
    other = next(p for p in newest_first(run / "ckpt", "step"))
    recorded = read_deep(run, "val").head["step"]
    resolved = run / "resolved.toml"
    text = resolved.read_text(encoding="utf-8")
    resolved.write_text(text.replace('"best"', '"last"'), encoding="utf-8")

    deepen(run, headroom=False)
    assert f"step{read_deep(run, 'val').head['step']:08d}" == other.name
    assert recorded == int(best.name.removeprefix("best"))


def test_a_damaged_record_is_measured_again(run):
    deepen(run, headroom=False)
    deep_path(run, "train").write_bytes(b"torn")

    deepen(run, headroom=False)
    assert read_deep(run, "train").n == 24


def test_stopping_in_the_middle_loses_nothing(run):
    deepen(run, headroom=False, samples=12)
    before = {p.name: p.read_bytes() for p in deep_path(run, "val").parent.iterdir()}

    def interrupt(message):
        if message.startswith("removing"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        deepen(run, headroom=False, tell=interrupt)
    assert {p.name: p.read_bytes() for p in deep_path(run, "val").parent.iterdir()} == before
    assert RunDir(run).read_status()["state"] == "done"
    assert not (run / "lock.json").exists()


def test_a_modality_alone_is_trained_once_and_found_by_the_next(run):
    sentences = []
    deepen(run, solo=True, headroom=False, tell=sentences.append)
    val = read_deep(run, "val")
    teachers = sorted(p.name for p in (run.parent / "teachers").iterdir())

    assert sum("alone, link" in sentence for sentence in sentences) == 2
    assert sorted(val.head["solo"].values()) == teachers
    assert np.isfinite(val.arrays["solo_joint.gain"]).all()
    assert val.arrays["solo/audio.right"].shape == (24,)
    assert RunDir(run).read_status()["state"] == "done"
    assert RunDir(run).read_status().get("reason", "") == ""

    other = shutil.copytree(run, run.parent / "other")
    shutil.rmtree(other / "deep")
    sentences.clear()
    deepen(other, headroom=False, tell=sentences.append)
    assert not any("alone, link" in sentence for sentence in sentences)
    found = read_deep(other, "val")
    np.testing.assert_array_equal(found.arrays["solo/image.gain"], val.arrays["solo/image.gain"])


def test_a_run_of_one_modality_can_be_named(run, trained):
    from mmtool.config.links import alone

    audio = train_run(run.parent / "audio-only", trained[0], alone(recipe(), "audio"))
    deepen(run, solo_from=[audio], headroom=False)

    val = read_deep(run, "val")
    assert val.head["solo"] == {"audio": "audio-only"}
    np.testing.assert_array_equal(val.arrays["solo_joint.right"], val.arrays["solo/audio.right"])
    assert "solo/image.right" not in val.arrays


def test_a_run_of_several_modalities_stands_for_none(run):
    with pytest.raises(RequestError, match="is not a run of one modality"):
        deepen(run, solo_from=[run], headroom=False)


def test_a_run_that_is_being_trained_is_left_alone(run):
    # Another process holds it; a lock of this process stands for that.
    with RunDir(run).lock(), pytest.raises(RunDirectoryError, match="is being written by process"):
        deepen(run)
    assert not deep_path(run, "val").exists()


def test_a_run_without_checkpoint_says_what_to_do(run):
    shutil.rmtree(run / "ckpt")

    with pytest.raises(CheckpointError, match="has no checkpoint") as refused:
        deepen(run)
    assert "mmtool train --resume" in refused.value.fix


def test_a_damaged_checkpoint_is_refused(run):
    (best,) = newest_first(run / "ckpt", "best")
    weights_file = best / "model.safetensors"
    weights_file.write_bytes(weights_file.read_bytes()[:-8])

    with pytest.raises(CheckpointError, match="no usable checkpoint"):
        deepen(run)


def test_a_store_that_is_gone_is_named(run, tmp_path):
    launch = json.loads((run / "launch.json").read_text())
    RunDir(run).write_launch({**launch, "data_root": str(tmp_path / "nowhere")})

    with pytest.raises(DatasetNotPrepared, match="nowhere"):
        deepen(run)


def test_another_store_of_the_same_name_is_refused(run, tmp_path):
    write_store(tmp_path / "data", seed=1)
    launch = json.loads((run / "launch.json").read_text())
    RunDir(run).write_launch({**launch, "data_root": str(tmp_path / "data")})

    with pytest.raises(RequestError, match="not the one that run done was trained on"):
        deepen(run)


@pytest.mark.parametrize("missing", ["resolved.toml", "launch.json"])
def test_a_directory_without_what_opening_takes_says_so(run, missing):
    (run / missing).unlink()

    with pytest.raises(RunDirectoryError) as refused:
        deepen(run)
    assert missing in refused.value.where
    assert "without --deep" in refused.value.fix
