import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mmtool.cli.app import app
from mmtool.cli.seeds import parse_seeds, seed_spread
from mmtool.errors import RequestError


def call(*arguments):
    return CliRunner().invoke(app, ["train", *map(str, arguments)])


def test_a_recipe_or_a_run_to_resume_is_needed():
    found = call()

    assert found.exit_code == 2
    assert "there is nothing to train" in found.stderr
    assert "mmtool list recipes" in found.stderr


@pytest.mark.parametrize(
    "useless",
    [
        ("demo.toml",),
        ("--gpus", "2"),
        ("--device", "cpu"),
        ("-s", "train.lr=1"),
        ("--seed", "0"),
        ("--seeds", "0,1"),
        ("--name", "again"),
        ("--dry-run",),
    ],
    ids=lambda words: words[0],
)
def test_a_resumed_run_takes_no_other_wishes(useless):
    found = call("--resume", "latest", *useless)

    assert found.exit_code == 2
    assert "no effect with --resume" in found.stderr


def test_seed_and_seeds_are_refused_together(recipe):
    found = call(recipe, "--seed", "0", "--seeds", "0,1")

    assert found.exit_code == 2
    assert "--seed and --seeds cannot be given together" in found.stderr


@pytest.mark.parametrize(
    ("option", "key"),
    [
        (("--gpus", "2"), "launch.gpus"),
        (("--device", "cpu"), "launch.device"),
        (("--seed", "1"), "train.seed"),
        (("--seeds", "1,2"), "train.seed"),
    ],
)
def test_one_value_is_not_set_in_two_ways(recipe, option, key):
    found = call(recipe, *option, "-s", f"{key}=1")

    assert found.exit_code == 2
    assert f"-s {key} and {option[0]} cannot be given together" in found.stderr


@pytest.mark.parametrize("useless", [("--name", "x"), ("--runs-dir", "r"), ("--seeds", "0,1")])
def test_a_dry_run_makes_no_run_to_name(recipe, useless):
    found = call(recipe, "--dry-run", *useless)

    assert found.exit_code == 2
    assert f"{useless[0]} has no effect with --dry-run" in found.stderr


@pytest.mark.parametrize(
    ("useless", "words"),
    [
        (("--nodes", "2"), "--nodes has no effect without --slurm"),
        (("--time", "1:00"), "--time has no effect without --slurm"),
        (("--jobs", "2"), "--jobs has no effect without --seeds"),
        (("--gpus", "0"), "--gpus 0 is no number of GPUs"),
        (("--gpus", "all"), "--gpus all is no number of GPUs"),
        (("--slurm", "--gpus", "auto"), "--gpus auto has no meaning with --slurm"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_an_option_without_effect_is_an_error(recipe, useless, words):
    found = call(recipe, *useless)

    assert found.exit_code == 2
    assert words in found.stderr


def test_more_gpus_than_there_are_stop_with_a_way_out(prepared, monkeypatch):
    from mmtool.engine import devices

    monkeypatch.setattr(devices, "visible_gpus", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    found = call(prepared, "--gpus", "4")

    assert found.exit_code == 2
    assert "asked for 4 GPUs, 2 visible (CUDA_VISIBLE_DEVICES=0,1)" in found.stderr
    assert "--gpus 2, or --gpus auto" in found.stderr
    assert not Path("runs").exists()


def test_auto_takes_what_is_visible_and_one_process_without(prepared, monkeypatch):
    from mmtool.engine import devices

    monkeypatch.setattr(devices, "visible_gpus", lambda: 0)
    document = json.loads(call(prepared, "--gpus", "auto", "--json", "--name", "auto").stdout)
    resolved = Path(document["runs"][0]["run"], "resolved.toml").read_text(encoding="utf-8")

    assert "gpus = 1" in resolved


def test_a_machine_without_slurm_says_so(prepared, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda _: None)
    found = call(prepared, "--slurm")

    assert found.exit_code == 4
    assert "there is no sbatch on this machine" in found.stderr
    assert not Path("runs").exists()


def test_a_broken_recipe_is_refused_before_anything_starts(recipe, tmp_path):
    found = call(recipe, "--seed", "0", "-s", "train.lr=fast")

    assert found.exit_code == 2
    assert "command line: -s train.lr=fast" in found.stderr
    assert not (tmp_path / "runs").exists()


def test_data_that_is_not_there_is_the_environment(recipe, tmp_path):
    found = call(recipe, "--data-root", tmp_path / "nowhere")

    assert found.exit_code == 4
    assert "'tiny' is not prepared" in found.stderr
    assert found.stdout == ""
    assert not (tmp_path / "runs").exists()


def test_seeds_are_read_in_order():
    assert parse_seeds("3, 1,2") == [3, 1, 2]


@pytest.mark.parametrize("text", ["", "1,", "1;2", "-1", "a", "1,1"])
def test_seeds_that_are_no_list_of_different_numbers_are_refused(text):
    with pytest.raises(RequestError):
        parse_seeds(text)


def test_the_spread_over_seeds_is_the_sample_deviation():
    spread = seed_spread([{"val": 0.1, "test": 0.5}, {"val": 0.3}, {"val": 0.5, "test": 0.7}])

    assert set(spread) == {"val"}
    assert spread["val"] == pytest.approx((0.3, 0.2))
    assert seed_spread([{"val": 0.4}]) == {"val": (0.4, 0.0)}


REAL = """data.dataset = "tiny"

[model]
fusion = "concat"
encoders.text = {name = "tokens", num_tokens = 300, embedding_dim = 4, dim = 4}

[train]
epochs = 2
batch_size = 8
"""


@pytest.fixture
def prepared(preparer, monkeypatch):
    """A recipe in the current folder whose dataset is prepared."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    Path("real.toml").write_text(REAL, encoding="utf-8")
    made = CliRunner().invoke(app, ["prepare", "./tiny.py", "-s", "num_clips=32"])
    assert made.exit_code == 0, made.stderr
    return "real.toml"


def test_a_dry_run_tells_what_would_happen_and_writes_nothing(prepared):
    document = json.loads(call(prepared, "--dry-run", "--json").stdout)
    told = call(prepared, "--dry-run").stdout

    assert document["dry_run"] is True
    assert document["splits"] == {"train": 16, "val": 8, "test": 8}
    assert document["steps_per_epoch"] == 2
    assert "train 16, val 8, test 8" in told
    assert "train.epochs" in told
    assert not Path("runs").exists()


def test_training_prints_the_path_of_the_run_alone(prepared):
    found = call(prepared, "--name", "first")

    run = Path(found.stdout.strip())
    assert found.exit_code == 0, found.stderr
    assert len(found.stdout.splitlines()) == 1
    assert json.loads((run / "status.json").read_text())["state"] == "done"
    assert "first" in run.name
    assert "4/4" in found.stderr
    assert "mmtool diagnose" in found.stderr.splitlines()[-1]


def test_seeds_run_one_after_the_other_and_are_summarised(prepared):
    found = call(prepared, "--seeds", "0,1", "--json")

    document = json.loads(found.stdout)
    accuracies = [run["accuracy"]["val"] for run in document["runs"]]
    assert found.exit_code == 0, found.stderr
    assert [run["seed"] for run in document["runs"]] == [0, 1]
    assert document["seeds"]["val"]["mean"] == pytest.approx(sum(accuracies) / 2)
    assert "val accuracy over 2 seeds" in found.stderr


@pytest.mark.slow
def test_seeds_run_side_by_side_give_the_same_runs(prepared):
    one_by_one = json.loads(call(prepared, "--seeds", "0,1", "--json").stdout)
    options = ("--seeds", "0,1", "--jobs", "2", "-s", "train.lr=0.001")
    together = call(prepared, *options, "--json")

    document = json.loads(together.stdout)
    assert together.exit_code == 0, together.stderr
    assert [run["seed"] for run in document["runs"]] == [0, 1]
    assert [run["accuracy"] for run in document["runs"]] == [
        run["accuracy"] for run in one_by_one["runs"]
    ]
    assert document["seeds"] == one_by_one["seeds"]


@pytest.mark.slow
def test_a_seed_that_fails_beside_others_says_why(prepared):
    found = call(prepared, "--seeds", "0,1", "--jobs", "2", "--data-root", "nowhere")

    assert found.exit_code == 4
    assert "is not prepared" in found.stderr


def test_a_finished_run_is_not_resumed(prepared):
    call(prepared)

    found = call("--resume", "latest")

    assert found.exit_code == 2
    assert "already done" in found.stderr


def test_a_stopped_run_exits_with_75_and_is_continued(prepared, monkeypatch):
    from mmtool.engine.stop import StopRequest

    with monkeypatch.context() as patch:
        patch.setattr(StopRequest, "is_set", True)
        stopped = call(prepared, "-q", "--json")
    document = json.loads(stopped.stdout)
    resumed = call("--resume", "latest")

    assert stopped.exit_code == 75
    assert document["runs"][0]["state"] == "stopped"
    assert "mmtool train --resume" in stopped.stderr
    assert resumed.exit_code == 0, resumed.stderr
    assert Path(resumed.stdout.strip()).name == Path(document["runs"][0]["run"]).name
