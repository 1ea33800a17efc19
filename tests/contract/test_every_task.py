"""Every method on several labels and on a regression: the same promises, or refused by name."""

from functools import cache
from pathlib import Path

import pytest
import torch

from mmtool import registry
from mmtool.engine.build import build_job
from mmtool.engine.distributed import Ranks
from mmtool.errors import RequestError
from mmtool.testing.cases import contract_recipe, write_contract_store
from mmtool.testing.training import train_here, weights

METHODS = registry.names("methods")
TASKS = ("multi_label", "regression")
TOLERANCE = 2e-5
ALLOWED = {m: registry.load("methods", m).Method.needs.tasks for m in METHODS}
SUITED = [(m, task) for m in METHODS for task in TASKS if task in ALLOWED[m]]
UNSUITED = [(m, task) for m in METHODS for task in TASKS if task not in ALLOWED[m]]


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    """Give the data root of each task."""
    found = {}
    for task in TASKS:
        found[task] = tmp_path_factory.mktemp(task)
        write_contract_store(found[task] / "fake", task)
    return found


@cache
def alone(method: str, task: str, root: Path, folder: Path):
    return train_here(contract_recipe(method, task=task), data_root=root, checkpoints=folder)


def differing(one, other):
    return [n for n, v in one.items() if not torch.allclose(v, other[n], atol=TOLERANCE)]


def test_every_method_is_either_suited_or_refused():
    assert len(SUITED) + len(UNSUITED) == 2 * len(METHODS)
    assert ("ogm", "multi_label") in SUITED
    assert ("none", "regression") in SUITED


@pytest.mark.parametrize(("method", "task"), SUITED)
def test_training_moves_weights_to_finite_values(method, task, roots, tmp_path):
    trained = alone(method, task, roots[task], tmp_path)
    job = build_job(contract_recipe(method, task=task), Ranks(), data_root=roots[task])
    try:
        untrained = weights(job)
    finally:
        job.close()

    assert all(bool(torch.isfinite(value).all()) for value in trained.values())
    assert any(
        not torch.equal(value, untrained[name])
        for name, value in trained.items()
        if name.startswith("encoders.")
    )


@pytest.mark.parametrize(("method", "task"), SUITED)
def test_micro_batches_do_not_change_the_result(method, task, roots, tmp_path):
    recipe = contract_recipe(method, task=task, accumulate=4)

    cut = train_here(recipe, data_root=roots[task], checkpoints=tmp_path / "cut")

    assert differing(alone(method, task, roots[task], tmp_path / "whole"), cut) == []


@pytest.mark.parametrize(("method", "task"), SUITED)
def test_a_stopped_run_continues_bit_for_bit(method, task, roots, tmp_path):
    recipe = contract_recipe(method, task=task)
    where = {"data_root": roots[task], "checkpoints": tmp_path / "stopped"}
    whole = alone(method, task, roots[task], tmp_path / "whole")

    train_here(recipe, **where, stop_after=6)
    rest = train_here(recipe, **where, is_resumed=True)

    assert [name for name in whole if not torch.equal(whole[name], rest[name])] == []


@pytest.mark.parametrize(("method", "task"), UNSUITED)
def test_what_a_method_cannot_learn_is_refused_with_the_reason(method, task, roots):
    with pytest.raises(RequestError) as refused:
        build_job(contract_recipe(method, task=task), Ranks(), data_root=roots[task])

    told = str(refused.value)
    assert method in told
    assert task in told
