"""`mmtool diagnose --deep` on tiny runs that the command line trained."""

import json
import shutil

import pytest
from typer.testing import CliRunner

from mmtool.cli.app import app
from mmtool.runlog.deep import deep_path, read_deep
from mmtool.runlog.rundir import run_names
from mmtool.testing.fakes import FakeModality, write_fake_store

RECIPE = """data.dataset = "fake"

[model]
encoders.audio = {name = "mlp", hidden = [8]}
encoders.image = {name = "mlp", hidden = [8]}

[train]
epochs = 2
batch_size = 10
lr = 0.05

[launch]
device = "cpu"
threads = 1
"""


def call(*arguments):
    return CliRunner().invoke(app, [str(word) for word in arguments])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with one finished run."""
    home = tmp_path_factory.mktemp("deep")
    shape = FakeModality((6,), "spectrogram")
    splits = {"train": 30, "val": 20, "test": 6}
    write_fake_store(home / "data" / "fake", {"audio": shape, "image": shape}, splits=splits)
    (home / "tiny.toml").write_text(RECIPE, encoding="utf-8")
    where = ("--data-root", home / "data", "--runs-dir", home / "runs")
    assert call("train", home / "tiny.toml", "-q", *where).exit_code == 0
    return home / "runs"


@pytest.fixture
def runs(trained, tmp_path):
    folder = tmp_path / "runs"
    for name in run_names(trained):
        shutil.copytree(trained / name, folder / name)
    return folder


@pytest.fixture
def run(runs):
    return runs / run_names(runs)[0]


def test_the_run_is_measured_and_then_reported(run):
    ended = call("diagnose", run, "--deep", "--no-headroom", "--samples", 15, "--device", "cpu")

    assert ended.exit_code == 0
    assert read_deep(run, "val").n == 15
    assert f"measuring {run.name}" in ended.stderr
    assert "encoding 15 samples of val" in ended.stderr
    assert "encoding" not in ended.stdout
    assert run.name in ended.stdout


def test_what_was_measured_is_not_measured_again(run):
    call("diagnose", run, "--deep", "--no-headroom", "-q")
    ended = call("diagnose", run, "--deep", "--no-headroom")

    assert "measured before: 20 samples" in ended.stderr
    assert "encoding" not in ended.stderr


def test_the_report_as_json_is_one_document(run):
    ended = call("diagnose", run, "--deep", "--no-headroom", "--json")

    assert json.loads(ended.stdout)["ok"] is True


def test_each_run_of_a_folder_is_measured(runs, run):
    shutil.copytree(run, runs / "zweiter")
    ended = call("diagnose", runs, "--deep", "--no-headroom")

    assert ended.exit_code == 0
    assert "measuring zweiter, 2 of 2" in ended.stderr
    assert deep_path(run, "val").is_file()
    assert deep_path(runs / "zweiter", "val").is_file()


@pytest.mark.parametrize(
    "words",
    [
        ("--solo",),
        ("--solo-run", "latest"),
        ("--no-headroom",),
        ("--samples", "20"),
        ("--device", "cpu"),
    ],
)
def test_options_of_measuring_mean_nothing_without_deep(run, words):
    ended = call("diagnose", run, *words)

    assert ended.exit_code == 2
    assert f"{words[0]} has no effect without --deep" in ended.stderr
    assert not (run / "deep").exists()


def test_an_unknown_device_is_a_wrong_request(run):
    ended = call("diagnose", run, "--deep", "--device", "tpu")

    assert ended.exit_code == 2
    assert "'tpu'" in ended.stderr


def test_a_solo_run_that_does_not_exist_is_named_before_anything_is_measured(run):
    ended = call("diagnose", run, "--deep", "--solo-run", "nobody", "--runs-dir", run.parent)

    assert ended.exit_code == 2
    assert "'nobody'" in ended.stderr
    assert not (run / "deep").exists()


def test_a_run_without_checkpoints_cannot_be_measured(run):
    shutil.rmtree(run / "ckpt")
    ended = call("diagnose", run, "--deep")

    assert ended.exit_code == 65
    assert "has no checkpoint to open" in ended.stderr


def test_modalities_alone_are_trained_when_asked(run):
    ended = call("diagnose", run, "--deep", "--solo", "--no-headroom")

    assert ended.exit_code == 0
    assert "audio alone, link 1 of 2" in ended.stderr
    assert set(read_deep(run, "val").head["solo"]) == {"audio", "image"}
