"""What every run measures of its modalities, in real runs of a tiny recipe."""

import json
import math
from pathlib import Path

import pytest
import torch

from mmtool.config.schema import Recipe
from mmtool.engine.build import build_job
from mmtool.engine.checkpoint import load_checkpoint, take_snapshot, write_snapshot
from mmtool.engine.choose import choose_checkpoint
from mmtool.engine.distributed import Ranks
from mmtool.engine.evaluate import encode_rows, measure
from mmtool.engine.norms import is_due
from mmtool.testing.cases import contract_recipe, write_contract_store
from mmtool.testing.fakes import FakeModality, write_fake_store
from mmtool.testing.ranks import run_ranks
from mmtool.testing.training import train_here

DEAD = Path(__file__).with_name("dead_encoder.py")
WAYS = ("explicit", "fsdp")
NUM_VAL = 60


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    modalities = {
        "audio": FakeModality((6,), "spectrogram"),
        "image": FakeModality((1, 4, 4), "frames", missing=0.2),
    }
    write_fake_store(folder / "fake", modalities, splits={"train": 50, "val": NUM_VAL, "test": 40})
    return folder


def recipe_for(encoder="mlp", way="explicit", log=None, **train) -> Recipe:
    image = {"name": encoder, **({"hidden": (8,)} if encoder == "mlp" else {})}
    return Recipe.model_validate(
        {
            "data": {"dataset": "fake"},
            "model": {"encoders": {"audio": {"name": "mlp", "hidden": (12,)}, "image": image}},
            "train": {"epochs": 2, "batch_size": 12, "lr": 0.01, "optimizer": "sgd", **train},
            "launch": {"shard_from": 0, "sync": way},
            "log": {"norms_every_steps": 2, **(log or {})},
        }
    )


def events_of(recipe, root, folder, ranks=None, **stops):
    found = []
    weights = train_here(
        recipe,
        data_root=root,
        checkpoints=folder,
        ranks=ranks,
        emit=lambda kind, **fields: found.append({"k": kind, **fields}),
        **stops,
    )
    return found, weights


def steps_of(events):
    return [e for e in events if e["k"] == "step"]


def evaluations(events, split="val"):
    return [e for e in events if e["k"] == "epoch" and e["split"] == split]


def norms(events):
    """Give the norms of each step, by (step, modality, name)."""
    return {
        (e["step"], m, name): row[name]
        for e in steps_of(events)
        for m, row in e["m"].items()
        for name in ("pnorm", "unorm")
        if name in row
    }


def emit_cells(ranks: Ranks, root: str, out: str) -> None:
    """Train in every way and keep the events; called in each rank process."""
    for way in WAYS:
        recipe = recipe_for(way=way, accumulate=2)
        events, _ = events_of(recipe, Path(root), Path(out) / way, ranks)
        (Path(out) / f"{way}.rank{ranks.rank}.json").write_text(json.dumps(events, default=float))


@pytest.fixture(scope="module")
def on_two_ranks(root, tmp_path_factory):
    out = tmp_path_factory.mktemp("two")
    run_ranks(2, f"{Path(__file__)}:emit_cells", str(root), str(out), timeout_s=300.0)
    return {
        (way, rank): json.loads((out / f"{way}.rank{rank}.json").read_text())
        for way in WAYS
        for rank in range(2)
    }


def test_norms_are_those_of_the_encoder_and_of_what_the_step_added(root, tmp_path):
    recipe = recipe_for(select="last", epochs=1, batch_size=50, log={"norms_every_steps": 1})
    job = build_job(recipe, Ranks(), data_root=root)
    before = {n: p.detach().clone() for n, p in job.model.encoders.named_parameters()}
    job.close()
    events, after = events_of(recipe, root, tmp_path)

    (step,) = steps_of(events)
    for modality in ("audio", "image"):
        names = [n for n in before if n.startswith(f"{modality}.")]
        now = torch.cat([after[f"encoders.{n}"].flatten() for n in names])
        old = torch.cat([before[n].flatten() for n in names])
        assert step["m"][modality]["pnorm"] == pytest.approx(float(now.norm()), rel=1e-5)
        assert step["m"][modality]["unorm"] == pytest.approx(float((now - old).norm()), rel=1e-4)
        assert step["m"][modality]["unorm"] > 0


def test_norms_are_taken_in_every_so_many_steps(root, tmp_path):
    events, _ = events_of(recipe_for(log={"norms_every_steps": 3}), root, tmp_path)

    logged = {step for step, *_ in norms(events)}
    assert [e["step"] for e in steps_of(events)] == list(range(10))
    assert logged == {0, 3, 6, 9}


def test_taking_norms_changes_nothing_that_is_trained(root, tmp_path):
    _, often = events_of(recipe_for(log={"norms_every_steps": 1}), root, tmp_path / "often")
    _, never = events_of(recipe_for(log={"norms_every_steps": 999}), root, tmp_path / "never")

    assert [n for n in often if not torch.equal(often[n], never[n])] == []


@pytest.mark.parametrize("method", ["ogm", "mla", "mmpareto"])
def test_norms_come_with_every_control_shape(method, root, tmp_path):
    write_contract_store(tmp_path / "data" / "fake")
    recipe = contract_recipe(method)
    recipe = recipe.model_copy(
        update={"log": recipe.log.model_copy(update={"norms_every_steps": 1})}
    )
    events, _ = events_of(recipe, tmp_path / "data", tmp_path / "ckpt")

    found = norms(events)
    assert {m for _, m, _ in found} == {"audio", "image", "motion"}
    assert all(math.isfinite(value) for value in found.values())
    assert max(value for (_, _, name), value in found.items() if name == "unorm") > 0


@pytest.mark.parametrize("way", WAYS)
def test_two_ranks_measure_what_one_does(way, root, on_two_ranks, tmp_path):
    one, _ = events_of(recipe_for(accumulate=2), root, tmp_path)
    two = on_two_ranks[way, 0]

    expected, found = norms(one), norms(two)
    assert found.keys() == expected.keys()
    assert len(found) == 5 * 2 * 2
    assert found == pytest.approx(expected, rel=1e-3, abs=1e-7)
    assert norms(on_two_ranks[way, 1]) == found
    for ours, theirs in zip(evaluations(two), evaluations(one), strict=True):
        for modality, row in theirs["m"].items():
            measured = {k: row[k] for k in ("flip", "drop", "drop_nll", "flip_n", "erank")}
            other = {k: ours["m"][modality][k] for k in measured}
            assert other == pytest.approx(measured, rel=1e-2, abs=2e-3)


def test_both_ranks_tell_the_same_overhead(on_two_ranks):
    first, second = (
        [e["share"] for e in on_two_ranks["explicit", rank] if e.get("what") == "overhead"]
        for rank in range(2)
    )

    assert first == second
    assert len(first) == 2


def test_a_resumed_run_goes_on_with_the_same_norms_and_tells_no_epoch_twice(root, tmp_path):
    whole, weights = events_of(recipe_for(), root, tmp_path / "whole")
    begun, _ = events_of(recipe_for(), root, tmp_path / "cut", stop_after=7)
    rest, resumed = events_of(recipe_for(), root, tmp_path / "cut", is_resumed=True)

    assert [n for n in weights if not torch.equal(weights[n], resumed[n])] == []
    assert norms(begun).keys().isdisjoint(norms(rest))
    assert norms(begun) | norms(rest) == norms(whole)
    epochs = [e["epoch"] for e in begun + rest if e.get("what") == "overhead"]
    assert epochs == [0, 1]
    assert evaluations(whole) == evaluations(begun + rest)


def test_how_much_norms_were_thinned_outlives_a_restart(root, tmp_path):
    recipe = recipe_for(log={"norms_every_steps": 1})
    job = build_job(recipe, Ranks(), data_root=root)
    job.progress.norms_factor = 4
    write_snapshot(take_snapshot(job), tmp_path)
    job.progress.norms_factor = 1
    load_checkpoint(job, choose_checkpoint(tmp_path)[0])
    job.close()

    assert job.progress.norms_factor == 4


def test_a_dead_encoder_has_no_rank_and_never_moves(root, tmp_path):
    recipe = recipe_for(encoder=str(DEAD), log={"norms_every_steps": 1}, weight_decay=0.0)
    events, weights = events_of(recipe, root, tmp_path)

    rows = [e["m"] for e in evaluations(events)]
    assert [row["image"]["erank"] for row in rows] == [0.0, 0.0]
    assert min(row["audio"]["erank"] for row in rows) > 1.5
    assert {v for (_, m, n), v in norms(events).items() if (m, n) == ("image", "unorm")} == {0.0}
    assert min(v for (_, m, n), v in norms(events).items() if (m, n) == ("audio", "unorm")) > 0
    assert float(weights["encoders.image.layer.bias"].max()) == -50.0
    assert [row["image"]["flip"] for row in rows] == [0.0, 0.0]


def test_weight_decay_moves_a_dead_encoder_but_no_gradient_does(root, tmp_path):
    recipe = recipe_for(encoder=str(DEAD), log={"norms_every_steps": 1}, weight_decay=0.01)
    events, _ = events_of(recipe, root, tmp_path)

    assert {e["m"]["image"]["gnorm"] for e in steps_of(events)} == {0.0}
    assert min(v for (_, m, n), v in norms(events).items() if (m, n) == ("image", "unorm")) > 0


@pytest.fixture
def job(root):
    made = build_job(recipe_for(log={"flip_samples": 25}), Ranks(), data_root=root)
    yield made
    made.close()


def test_norms_that_were_thinned_come_in_fewer_steps(job):
    job.progress.norms_factor = 3

    assert [step for step in range(13) if is_due(job, step)] == [0, 6, 12]


def measured(job, split="val"):
    encoded = encode_rows(job, job.dataset.rows(split), isolated=True)
    return encoded, measure(job, encoded, split)


def test_some_validation_samples_are_permuted_and_all_are_scored(job):
    encoded, fields = measured(job)

    assert fields["n"] == NUM_VAL
    assert fields["m"]["audio"]["flip_n"] == 25
    has_image = int(encoded.present[:, 1].sum())
    assert has_image < NUM_VAL
    assert 25 * 0.5 < fields["m"]["image"]["flip_n"] < 25
    # A rate over all samples with the modality, whose number 25 does not divide.
    right = fields["m"]["image"]["acc"] * has_image
    assert right == pytest.approx(round(right))


def test_the_same_samples_are_permuted_every_time(job):
    assert measured(job)[1] == measured(job)[1]


def test_on_test_all_samples_are_permuted(job):
    assert measured(job, "test")[1]["m"]["audio"]["flip_n"] == 40


def test_with_room_for_all_the_flips_are_of_all(root):
    job = build_job(recipe_for(log={"flip_samples": NUM_VAL}), Ranks(), data_root=root)
    assert measured(job)[1]["m"]["audio"]["flip_n"] == NUM_VAL
    job.close()


@pytest.mark.parametrize("task", ["single_label", "multi_label", "regression"])
def test_every_task_has_the_default_columns(task, tmp_path):
    write_contract_store(tmp_path / "data" / "fake", task)
    recipe = contract_recipe("none", task=task, epochs=3)
    events, _ = events_of(recipe, tmp_path / "data", tmp_path / "ckpt")

    for split in ("train", "val"):
        for row in evaluations(events, split)[-1]["m"].values():
            how_far = "shift" if task == "regression" else "flip"
            names = ("nll", "probe_nll", "drop", "drop_nll", how_far, "erank")
            assert all(math.isfinite(row[name]) for name in names)
            assert row["flip_n"] >= 2
            assert row["erank"] > 0


def test_what_a_trained_model_loses_of_its_log_score_is_of_the_modality_it_needs(root, tmp_path):
    events, _ = events_of(recipe_for(epochs=6, lr=0.1), root, tmp_path)

    last = evaluations(events)[-1]["m"]
    assert last["audio"]["drop_nll"] > 0.02
    # A loss cut off at log(1e6) cannot grow by more than that.
    assert all(row["drop_nll"] < -math.log(1e-6) for row in last.values())


def test_a_long_run_evaluates_its_training_sample_at_its_ends_and_between(root, tmp_path):
    events, _ = events_of(recipe_for(epochs=30, select="last"), root, tmp_path)

    assert [e["epoch"] for e in evaluations(events, "train")] == [*range(0, 30, 3), 29]
    assert [e["epoch"] for e in evaluations(events)] == list(range(30))


def test_the_recipe_may_fix_when_the_training_sample_is_evaluated(root, tmp_path):
    recipe = recipe_for(epochs=5, log={"train_every_epochs": 3})
    events, _ = events_of(recipe, root, tmp_path)

    assert [e["epoch"] for e in evaluations(events, "train")] == [0, 3, 4]
