"""Branches leave no trace in the run that tries them, however it ends."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from mmtool.config.schema import Recipe
from mmtool.engine.branches import keep, put_back
from mmtool.engine.build import build_job
from mmtool.engine.distributed import Ranks
from mmtool.engine.loop import fit
from mmtool.engine.stop import StopRequest
from mmtool.errors import StoppedResumable
from mmtool.registry import load_file as load_plugin
from mmtool.testing.cases import write_contract_store
from mmtool.testing.ranks import run_ranks
from mmtool.testing.training import StopAfter, ignore, train_here, weights

METHOD = Path(__file__).with_name("branching.py")
STEPS = 4
IN_BRANCHES = 3 * STEPS  # left for one epoch, right for two


def recipe(*, norm="batch", dropout=0.2, optimizer="sgd", train=None, **options):
    return Recipe.model_validate(
        {
            "data": {"dataset": "fake", "modalities": ("audio", "image")},
            "model": {
                "encoders": {
                    "audio": {"name": "mlp", "hidden": (12,), "dropout": dropout},
                    "image": {"name": "cnn", "width": 4, "norm": norm},
                }
            },
            "method": {"name": str(METHOD), **options},
            "train": {
                "epochs": 2,
                "batch_size": 20,
                "lr": 0.02,
                "optimizer": optimizer,
                "schedule": "cosine",
                **(train or {}),
            },
        }
    )


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("branches")
    write_contract_store(folder / "fake")
    return folder


def train(chosen, root, folder, **how):
    events = []
    trained = train_here(
        chosen,
        data_root=root,
        checkpoints=folder,
        emit=lambda kind, **fields: events.append((kind, fields)),
        **how,
    )
    return trained, events


def differing(one, other):
    return [name for name in one if not torch.equal(one[name], other[name])]


def steps_of(events):
    kept = ("step", "epoch", "n", "lr", "loss", "gnorm", "skipped")
    return [{k: fields[k] for k in kept} for kind, fields in events if kind == "step"]


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_run_is_bit_for_bit_what_it_is_without_its_branches(root, tmp_path, optimizer, precision):
    how = {"optimizer": optimizer, "train": {"precision": precision, "on_nonfinite": "skip"}}
    plain, of_plain = train(recipe(branches=False, **how), root, tmp_path / "plain")
    branched, of_branched = train(recipe(**how), root, tmp_path / "branched")

    assert differing(plain, branched) == []
    assert steps_of(of_plain) == steps_of(of_branched)
    evaluations = [
        [fields for kind, fields in events if kind == "epoch"] for events in (of_plain, of_branched)
    ]
    assert repr(evaluations[0]) == repr(evaluations[1])
    names = [sorted(p.name for p in (tmp_path / n).iterdir()) for n in ("plain", "branched")]
    assert names[0] == names[1]
    assert any(name.startswith("best") for name in names[0])


def test_the_log_names_the_branch_and_its_steps_stay_out_of_the_step_curve(root, tmp_path):
    _, events = train(recipe(), root, tmp_path)

    assert [f["step"] for kind, f in events if kind == "step"] == list(range(2 * STEPS))
    of_branches = [f for _, f in events if f.get("what") == "branch"]
    told = [(f["branch"], f["step"], f.get("branch_epoch")) for f in of_branches]
    once = [("left", 0), ("left", None), ("right", 0), ("right", 1), ("right", None)]
    assert told == [(name, step, epoch) for step in (0, STEPS) for name, epoch in once]
    assert set(of_branches[1]["before"]) == {
        f"{split}.{name}" for split in ("train", "val") for name in ("audio", "image", "fused")
    }
    assert "branch" not in {key for kind, f in events if kind == "step" for key in f}


def test_a_branch_sees_what_the_run_would_see_and_begins_where_it_is(root, tmp_path):
    seen = load_plugin(METHOD).SEEN
    seen.clear()
    train(recipe(norm="group"), root, tmp_path)

    own = {step: (epoch, rows) for branch, epoch, step, _, rows in seen if branch is None}
    first = {}
    for branch, epoch, step, weight, rows in seen:
        if step in own:
            assert own[step] == (epoch, rows)
        if step in (0, STEPS):
            first.setdefault(step, []).append((branch, weight))
    assert [name for name, _ in first[0]] == ["left", "right", None]
    # At step 4 the second epoch of the branch `right` that began at step 0 passes through as well.
    assert [name for name, _ in first[STEPS]] == ["right", "left", "right", None]
    assert len({weight for _, weight in first[0]}) == 1
    assert len({weight for _, weight in first[STEPS][1:]}) == 1


@pytest.mark.parametrize(
    "num_steps", [1, 3, STEPS, 9, IN_BRANCHES, 14, IN_BRANCHES + STEPS, 18, 30]
)
def test_a_run_that_is_stopped_anywhere_continues_bit_for_bit(root, tmp_path, num_steps):
    whole, _ = train(recipe(uses_results=True), root, tmp_path / "whole")

    _, before = train(recipe(uses_results=True), root, tmp_path / "cut", stop_after=num_steps)
    rest, after = train(recipe(uses_results=True), root, tmp_path / "cut", is_resumed=True)

    assert differing(whole, rest) == []
    steps = [f["step"] for events in (before, after) for kind, f in events if kind == "step"]
    assert steps == list(range(2 * STEPS))


def test_a_run_that_dies_in_a_branch_continues_from_before_it(root, tmp_path):
    whole, _ = train(recipe(uses_results=True), root, tmp_path / "whole")
    job = build_job(recipe(uses_results=True), Ranks(), data_root=root)
    left = iter(range(IN_BRANCHES + STEPS + 6))

    def beat(step):
        if next(left, None) is None:
            raise RuntimeError("planted")

    try:
        with pytest.raises(RuntimeError, match="planted"):
            fit(
                job,
                emit=ignore,
                checkpoints=tmp_path / "cut",
                stop=StopRequest(),
                is_resumed=False,
                beat=beat,
            )
    finally:
        job.close()
    rest, _ = train(recipe(uses_results=True), root, tmp_path / "cut", is_resumed=True)

    assert differing(whole, rest) == []


def test_a_stop_in_a_branch_gives_back_the_state_before_it(root, tmp_path):
    job = build_job(recipe(), Ranks(), data_root=root)
    try:
        untrained = weights(job)
        with pytest.raises(StoppedResumable) as told:
            fit(job, emit=ignore, checkpoints=tmp_path, stop=StopAfter(6), is_resumed=False)
        assert "after step 0" in told.value.what
        assert differing(untrained, weights(job)) == []
        assert (job.progress.step, job.progress.epoch, job.progress.step_in_epoch) == (0, 0, 0)
        assert not any(s for s in job.optimizer.state.values() if s["momentum_buffer"].any())
    finally:
        job.close()


def test_a_bad_step_of_a_branch_says_where_it_was_and_the_run_goes_on(root, tmp_path):
    chosen = recipe(spoils=True, train={"on_nonfinite": "skip", "max_bad_steps": 5})

    _, events = train(chosen, root, tmp_path)

    bad = [f for _, f in events if f.get("what") == "nonfinite"]
    assert [f["branch"] for f in bad] == ["left"] * (2 * STEPS)
    assert not any(fields["skipped"] for kind, fields in events if kind == "step")


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_kept_state_can_be_put_back_more_than_once(root, tmp_path, optimizer):
    job = build_job(recipe(optimizer=optimizer), Ranks(), data_root=root)
    try:
        kept, before = keep(job), weights(job)
        num_slots = len(job.optimizer.state)
        for _ in range(2):
            with torch.no_grad():
                for value in (*job.model.parameters(), *job.model.buffers()):
                    value.add_(1)
            for parameter in job.optimizer.param_groups[0]["params"]:
                parameter.grad = torch.ones_like(parameter)
            job.optimizer.step()
            job.progress.step = 7
            job.metrics["val.acc"] = 0.5
            put_back(job, kept)
            assert differing(before, weights(job)) == []
            assert (job.progress.step, job.metrics) == (0, {})
            assert len(job.optimizer.state) == num_slots
            slots = [v for s in job.optimizer.state.values() for v in s.values()]
            assert not any(bool(v.any()) for v in slots)
    finally:
        job.close()


def without_dropout():
    """Dropout differs between ranks, batch statistics are those of one."""
    return recipe(norm="group", dropout=0.0, uses_results=True, train={"accumulate": 2})


def train_on_ranks(ranks, root, out):
    """Train on these ranks; called in each rank process."""
    chosen, folder = without_dropout(), Path(out) / "ckpt"
    train_here(chosen, data_root=Path(root), checkpoints=folder, ranks=ranks, stop_after=7)
    trained = train_here(
        chosen, data_root=Path(root), checkpoints=folder, ranks=ranks, is_resumed=True
    )
    held = {name: value.contiguous() for name, value in trained.items()}
    save_file(held, f"{out}/rank{ranks.rank}.safetensors")


def test_two_ranks_that_stop_in_a_branch_end_as_one_process(root, tmp_path):
    alone, _ = train(without_dropout(), root, tmp_path / "alone")

    run_ranks(2, f"{Path(__file__)}:train_on_ranks", str(root), str(tmp_path))

    first, second = (load_file(tmp_path / f"rank{rank}.safetensors") for rank in range(2))
    assert differing(first, second) == []
    assert all(torch.allclose(alone[n].float(), first[n].float(), atol=2e-5) for n in alone)
