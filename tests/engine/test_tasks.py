"""Several labels per sample, and regression, from the store to the weights and the log."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from mmtool.data.dataset import open_dataset
from mmtool.engine.build import build_job
from mmtool.engine.distributed import Ranks
from mmtool.engine.epoch_statistics import collect
from mmtool.engine.evaluate import evaluate
from mmtool.engine.export import export_weights, load_exported
from mmtool.engine.rank import run_facts
from mmtool.errors import RequestError
from mmtool.testing.cases import contract_recipe, write_contract_store
from mmtool.testing.fakes import FakeModality, write_fake_store
from mmtool.testing.ranks import run_ranks
from mmtool.testing.training import train_here

METHODS = ("none", "multi_loss", "ogm", "opm", "modality_dropout")
TASKS = ("multi_label", "regression")
CELLS = [(method, task) for task in TASKS for method in METHODS]
TOLERANCE = 2e-5


def train_cells(ranks: Ranks, root: str, out: str) -> None:
    """Train every method on every task; called in each rank process."""
    for method, task in CELLS:
        name = f"{method}-{task}"
        recipe = contract_recipe(method, task=task, accumulate=2)
        trained = train_here(
            recipe, data_root=Path(root) / task, checkpoints=Path(out) / name, ranks=ranks
        )
        save_file(trained, f"{out}/{name}.rank{ranks.rank}.safetensors")


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for task in (*TASKS, "single_label"):
        write_contract_store(folder / task / "fake", task)
    return folder


@pytest.fixture(scope="module")
def two_ranks(root, tmp_path_factory):
    out = tmp_path_factory.mktemp("two")
    run_ranks(2, f"{Path(__file__)}:train_cells", str(root), str(out), timeout_s=300.0)
    return out


def train(root, task, checkpoints, method="none", events=None, **arguments):
    def emit(kind, **fields):
        if events is not None and kind == "epoch":
            events.append(fields)

    stops = {k: arguments.pop(k) for k in ("stop_after", "is_resumed") if k in arguments}
    recipe = contract_recipe(method, task=task, **arguments)
    return train_here(recipe, data_root=root / task, checkpoints=checkpoints, emit=emit, **stops)


@pytest.mark.parametrize(("method", "task"), CELLS)
def test_two_ranks_with_micro_batches_equal_one_process(method, task, root, two_ranks, tmp_path):
    one = train(root, task, tmp_path, method)
    first, second = (
        load_file(two_ranks / f"{method}-{task}.rank{rank}.safetensors") for rank in range(2)
    )

    assert [n for n in first if not torch.equal(first[n], second[n])] == [], "replicas differ"
    assert [n for n in one if not torch.allclose(one[n], first[n], atol=TOLERANCE)] == []


@pytest.mark.parametrize(("method", "task"), CELLS)
def test_a_stopped_run_continues_bit_for_bit(method, task, root, tmp_path):
    whole = train(root, task, tmp_path / "whole", method)
    train(root, task, tmp_path / "cut", method, stop_after=6)
    rest = train(root, task, tmp_path / "cut", method, is_resumed=True)

    assert [n for n in whole if not torch.equal(whole[n], rest[n])] == []


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("task", TASKS)
def test_every_method_learns_the_task(method, task, root, tmp_path):
    events = []
    # A quarter of the time of an epoch of this size is its evaluation; fewer epochs, larger steps.
    lr = 0.01 if task == "regression" else 0.1
    train(root, task, tmp_path, method, events, epochs=10, clip_norm=1.0, lr=lr)

    dataset = open_dataset(contract_recipe(method, task=task).data, root / task)
    chance = dataset.constant_score("val")
    dataset.store.close()
    best = max(e["acc"] for e in events if e["split"] == "val")
    assert best > chance + 0.1


def test_an_epoch_of_several_labels_says_what_its_score_is(root, tmp_path):
    events = []
    train(root, "multi_label", tmp_path, events=events)

    for event in events:
        assert event["metric"] == "label_accuracy"
        assert 0 <= event["acc"] <= 1
        assert {"f1_macro", "map"} <= event.keys()
        assert {"acc", "nll", "alone", "drop", "flip", "probe"} <= event["m"]["audio"].keys()


def test_an_epoch_of_a_regression_has_no_flips_but_standard_errors(root, tmp_path):
    events = []
    train(root, "regression", tmp_path, events=events)

    for event in events:
        assert event["metric"] == "r2"
        assert {"mae", "pearson", "acc_se"} <= event.keys()
        row = event["m"]["motion"]
        assert "flip" not in row
        assert all(row[f"{k}_se"] > 0 for k in ("acc", "alone", "drop", "shift", "probe"))
        assert row["shift"] >= 0


def test_r2_of_the_log_is_that_of_the_predictions(root, tmp_path):
    job = build_job(
        contract_recipe("none", task="regression"), Ranks(), data_root=root / "regression"
    )
    rows = job.dataset.rows("val")
    found = evaluate(job, "val", rows)
    features = collect(job, "features", "val")
    with torch.no_grad():
        said = job.model.fuse({m: features[m] for m in job.dataset.modalities})[:, 0].double()
    job.close()
    value = torch.from_numpy(job.dataset.store.index.value[rows])

    wrong = (said - value).square().sum()
    assert found["acc"] == pytest.approx(
        float(1 - wrong / (value - value.mean()).square().sum()), rel=1e-5
    )
    assert found["loss"] == pytest.approx(float(wrong) / len(rows), rel=1e-5)
    assert found["mae"] == pytest.approx(float((said - value).abs().mean()), rel=1e-5)


def test_the_best_epoch_of_a_regression_is_kept_even_where_all_are_worse_than_the_mean(
    root, tmp_path
):
    events = []
    train(root, "regression", tmp_path, events=events, epochs=2, lr=1e-6)

    scores = [e["acc"] for e in events if e["split"] == "val"]
    assert max(scores) < 0
    (test,) = [e for e in events if e["split"] == "test"]
    assert test["epoch"] == int(np.argmax(scores))


def test_outputs_and_labels_have_the_shape_of_the_task(root):
    for task, num_outputs in (("multi_label", 3), ("regression", 1)):
        recipe = contract_recipe("none", task=task)
        job = build_job(recipe, Ranks(), data_root=root / task)
        label = job.dataset.labels(job.dataset.rows("train")[:4])
        head = run_facts(job)
        job.close()

        assert job.model.num_classes == num_outputs
        assert (label.shape, label.dtype) == ((4, num_outputs), np.float32)
        assert head["task"] == task
        assert len(head["classes"]) == (3 if task == "multi_label" else 0)


def test_chance_is_the_score_of_the_best_constant_answer(root):
    job = build_job(
        contract_recipe("none", task="multi_label"), Ranks(), data_root=root / "multi_label"
    )
    label = job.dataset.labels(job.dataset.rows("val"))
    head = run_facts(job)
    job.close()
    constant = (label.mean(0) > 0.5).astype(np.float32)
    assert head["chance"] == pytest.approx(float((label == constant).mean()))

    job = build_job(
        contract_recipe("none", task="regression"), Ranks(), data_root=root / "regression"
    )
    assert run_facts(job)["chance"] == 0.0
    job.close()


def test_samples_without_a_value_are_left_out_and_counted(tmp_path):
    shape = FakeModality((6,), "spectrogram")
    modalities = dict.fromkeys(("audio", "image", "motion"), shape)
    write_fake_store(tmp_path / "fake", modalities, task="regression", without_value=0.3)
    encoders = {m: {"name": "mlp", "hidden": (8,)} for m in modalities}
    recipe = contract_recipe("none", task="regression")
    recipe = recipe.model_copy(
        update={"model": recipe.model.model_validate({"encoders": encoders})}
    )
    job = build_job(recipe, Ranks(), data_root=tmp_path)
    values = job.dataset.store.index.value
    counts = {split: len(job.dataset.rows(split)) for split in ("train", "val", "test")}
    facts = run_facts(job)
    job.close()

    lacking = int(np.isnan(values).sum())
    assert 0 < lacking == len(values) - sum(counts.values())
    assert {s: facts[f"num_{s}"] for s in counts} == counts
    (said,) = [w for w in job.warnings if "without a value" in w]
    assert f"train {61 - counts['train']}" in said


def refusal(root, store, task):
    with pytest.raises(RequestError) as caught:
        open_dataset(contract_recipe("none", task=task).data, root / store)
    return str(caught.value)


def test_a_task_that_the_store_cannot_give_is_refused_with_the_one_it_can(root):
    said = refusal(root, "single_label", "regression")
    assert "has no values" in said
    assert "data.task=single_label" in said
    assert "data.task=multi_label" in refusal(root, "multi_label", "regression")
    said = refusal(root, "multi_label", "single_label")
    assert "any number of classes" in said
    assert "-s data.task=multi_label" in said


def test_one_class_per_sample_can_be_learnt_one_against_the_rest_and_it_says_so(root, tmp_path):
    recipe = contract_recipe("none", task="multi_label", epochs=30)
    job = build_job(recipe, Ranks(), data_root=root / "single_label")
    rows = job.dataset.rows("train")
    label = job.dataset.labels(rows)
    job.close()

    assert (label.sum(1) == 1).all()
    assert np.array_equal(label.argmax(1), job.dataset.store.index.label[rows])
    assert any("one against the rest" in warning for warning in job.warnings)
    events = []
    train_here(
        recipe,
        data_root=root / "single_label",
        checkpoints=tmp_path,
        emit=lambda kind, **f: events.append(f) if kind == "epoch" else None,
    )
    assert events[-1]["map"] > 0.8


def test_the_value_of_a_classified_store_changes_nothing_for_its_classes(root):
    dataset = open_dataset(contract_recipe("none").data, root / "regression")
    rows = dataset.rows("train")
    assert dataset.labels(rows).dtype == np.int64
    assert dataset.num_classes == 2
    dataset.store.close()


def test_exported_weights_of_a_task_are_read_back(root, tmp_path):
    for task, num_outputs in (("multi_label", 3), ("regression", 1)):
        run = tmp_path / task
        train(root, task, run / "ckpt")
        export_weights(run, run / "weights.safetensors")
        exported = load_exported(run / "weights.safetensors")

        assert exported.model.num_classes == num_outputs
        assert exported.metadata["task"] == task
        assert len(exported.classes) == (3 if task == "multi_label" else 0)


def test_class_means_count_a_sample_in_each_of_its_classes(root):
    recipe = contract_recipe("none", task="multi_label")
    job = build_job(recipe, Ranks(), data_root=root / "multi_label")
    means = collect(job, "class_means", "val")
    features = collect(job, "features", "val")
    job.close()

    has = features["present"][:, job.dataset.modalities.index("motion")]
    for c in range(3):
        members = has & (features["label"][:, c] > 0.5)
        assert int(means["motion.count"][c]) == int(members.sum())
        assert torch.allclose(means["motion"][c], features["motion"][members].mean(0), atol=1e-5)


def test_no_score_is_a_number_where_a_split_is_too_small_to_permute(tmp_path):
    shape = FakeModality((6,), "spectrogram")
    write_fake_store(
        tmp_path / "fake",
        dict.fromkeys(("audio", "image"), shape),
        task="regression",
        splits={"train": 20, "val": 1, "test": 2},
    )
    recipe = contract_recipe("none", task="regression")
    encoders = {m: {"name": "mlp", "hidden": (8,)} for m in ("audio", "image")}
    recipe = recipe.model_copy(
        update={"model": recipe.model.model_validate({"encoders": encoders})}
    )
    job = build_job(recipe, Ranks(), data_root=tmp_path)
    found = evaluate(job, "val", job.dataset.rows("val"))
    job.close()
    assert math.isnan(found["m"]["audio"]["shift"])
    assert math.isfinite(found["acc"])
