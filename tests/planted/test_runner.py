"""Planted problems reach the engine as ordinary stores, recipes and runs."""

import numpy as np
import pytest

from mmtool.config.load import load_recipe
from mmtool.config.schema import DataConfig
from mmtool.data.dataset import open_dataset
from mmtool.runlog.deep import deep_path
from mmtool.testing.planted.grid import PROBLEMS, all_cells
from mmtool.testing.planted.problem import Sizes
from mmtool.testing.planted.recipe import FUSION_KINDS, Setup, recipe_text, truth_for
from mmtool.testing.planted.runner import measured_run, verdict_of
from mmtool.testing.planted.store import ENCODER_KINDS, waves, write_problem

TINY = Sizes(train=60, val=40)


@pytest.mark.parametrize("kind", ENCODER_KINDS)
def test_a_store_holds_the_problem_in_the_shape_its_encoder_reads(kind, tmp_path):
    problem = PROBLEMS["missing_balanced"](TINY, 0)
    write_problem(tmp_path / "planted", problem, kind)
    dataset = open_dataset(DataConfig(dataset="planted"), tmp_path)
    rows = dataset.rows("val")
    specs = dataset.input_specs()
    labels, present = dataset.labels(rows), dataset.store.index.present[rows]
    dataset.store.close()

    assert np.array_equal(rows, np.arange(60, 100)), "training rows come first"
    assert np.array_equal(labels, problem.labels[problem.val])
    assert np.array_equal(present[:, 1], problem.present["video"][problem.val])
    assert specs["audio"].kind == ("spectrogram" if kind == "cnn" else "series")
    assert not specs["audio"].ragged


def test_images_of_a_problem_hold_what_its_values_held():
    basis = waves()

    assert np.allclose(basis @ basis.T, np.eye(len(basis)), atol=1e-9)


@pytest.mark.parametrize("name", ["regression_weak", "multi_label_weak"])
def test_other_tasks_keep_their_answers(name, tmp_path):
    problem = PROBLEMS[name](TINY, 0)
    write_problem(tmp_path / "planted", problem)
    config = DataConfig(dataset="planted", task=problem.task)
    dataset = open_dataset(config, tmp_path)
    answers = dataset.labels(dataset.rows("train"))
    dataset.store.close()

    expected = problem.values[:, None] if problem.values is not None else problem.label_sets
    assert np.allclose(answers, expected[problem.train])


def test_the_recipe_of_every_cell_is_valid(tmp_path):
    for cell in all_cells():
        problem = cell.make(0, TINY)
        path = tmp_path / "recipe.toml"
        path.write_text(recipe_text(problem, Setup(cell.encoder, cell.fusion, 5), "planted"))
        recipe = load_recipe(str(path)).recipe

        assert set(recipe.model.encoders) == set(problem.inputs)
        assert recipe.train.seed == 5
        assert recipe.train.select == "last"


def test_a_patch_replaces_what_the_recipe_says(tmp_path):
    setup = Setup(patch={"method.name": "multi_loss", "train.lr": 1e-3})
    path = tmp_path / "recipe.toml"
    path.write_text(recipe_text(PROBLEMS["speed"](TINY, 0), setup, "planted"))
    recipe = load_recipe(str(path)).recipe

    assert recipe.method.name == "multi_loss"
    assert recipe.train.lr == 1e-3


def test_what_is_right_may_depend_on_the_fusion():
    problem = PROBLEMS["xor"](TINY, 0)

    assert truth_for(problem, "concat").codes == {"no-signal"}
    assert truth_for(problem, "attention").codes == {"synergy"}
    assert {truth_for(PROBLEMS["speed"](TINY, 0), f).codes for f in FUSION_KINDS} == {
        frozenset({"under-trained", "neglected"})
    }


def test_a_measured_run_keeps_what_diagnosis_reads_and_is_not_made_again(tmp_path):
    problem = PROBLEMS["balanced"](Sizes(train=128, val=40), 0)
    setup = Setup("transformer", "attention", 0, {"train.epochs": 1})
    run = measured_run(problem, tmp_path, setup)
    written = deep_path(run, "val").stat().st_mtime_ns

    assert verdict_of(run)["code"] == "inconclusive", "one epoch and 40 samples say nothing"
    assert not (run / "ckpt").exists()
    assert not any((tmp_path / "stores").iterdir())
    assert measured_run(problem, tmp_path, setup) == run
    assert deep_path(run, "val").stat().st_mtime_ns == written
