"""mses: encoders stop one by one."""

import math
from unittest.mock import create_autospec

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmtool.methods._base import EpochContext, ModelFacts, StepContext
from mmtool.methods.mses import Method, Options, watch
from mmtool.testing.cases import Case, contract_recipe, write_contract_store
from mmtool.testing.training import train_here
from mmtool.types import GradGroups

NAMES = ("audio", "image")
FACTS = ModelFacts(NAMES, 3, dict.fromkeys(NAMES, 4), "concat", torch.device("cpu"))


def step():
    return StepContext(NAMES, 3, 0, 0, 1, 1, torch.Generator())


def method_with(*rows, **options):
    """An mses that has seen epochs with these validation losses."""
    method = Method(Options(**options))
    method.setup(FACTS)
    for row in rows:
        ctx = create_autospec(EpochContext, instance=True)
        ctx.modalities = NAMES
        ctx.metrics = {f"val.loss.{m}": a for m, a in zip(NAMES, row, strict=True)}
        method.end_epoch(ctx)
    return method


def groups_of(method):
    steps = method.plan_step(step())
    return [sub.groups for sub in steps]


def test_every_modality_trains_until_its_loss_stops_falling():
    falling = [(1.0, 1.0), (0.9, 0.9), (0.8, 0.8)]
    assert groups_of(method_with(*falling, patience=2)) == []

    one_worse = [*falling, (0.7, 0.9)]
    assert groups_of(method_with(*one_worse, patience=2)) == []
    two_worse = [*one_worse, (0.6, 0.85)]
    assert groups_of(method_with(*two_worse, patience=2)) == [("audio", "fusion")]


def test_all_encoders_of_a_batch_run_though_one_has_stopped():
    (sub,) = method_with((1.0, 1.0), (0.5, 1.0), patience=1).plan_step(step())

    assert sub.modalities == NAMES
    assert sub.frozen == ("image",)


def test_a_new_best_starts_the_wait_afresh():
    rows = [(1.0, 1.0), (0.9, 1.1), (0.8, 0.9), (0.7, 1.0)]

    assert groups_of(method_with(*rows, patience=2)) == []


def test_a_modality_that_stopped_stays_so():
    rows = [(1.0, 1.0), (0.9, 1.1), (0.8, 0.1), (0.7, 0.05)]

    assert groups_of(method_with(*rows, patience=1)) == [("audio", "fusion")]


def test_too_small_an_improvement_is_none():
    rows = [(1.0, 1.0), (0.95, 0.8)]

    assert groups_of(method_with(*rows, patience=1, min_delta=0.1)) == [("image", "fusion")]


def test_a_modality_without_validation_samples_never_stops():
    nan = math.nan
    method = method_with((nan, 1.0), (nan, 1.0), (nan, 1.0), patience=1)

    assert groups_of(method) == [("audio", "fusion")]


def test_gradients_can_be_set_to_zero_instead():
    method = method_with((1.0, 1.0), (0.5, 1.0), patience=1, apply="gradient")
    grads, ctx = create_autospec(GradGroups, instance=True), step()

    method.edit_grads(grads, ctx)

    assert method.plan_step(ctx) == ()
    asked = [(call.args[0], float(call.args[1])) for call in grads.scale.call_args_list]
    assert asked == [("audio", 1.0), ("image", 0.0)]
    assert float(ctx.metrics["coef.image"]) == 0.0


@settings(deadline=None)
@given(
    st.lists(st.lists(st.floats(0.0, 9.0) | st.just(math.nan), min_size=3, max_size=3), max_size=8),
    st.permutations(range(3)),
)
def test_the_best_loss_and_the_wait_are_those_of_each_column(rows, order):
    best, stale = torch.full((3,), math.inf, dtype=torch.float64), torch.zeros(3).long()
    shuffled_best, shuffled_stale = best, stale
    for row in rows:
        loss = torch.tensor(row, dtype=torch.float64)
        best, stale = watch(loss, best, stale, 0.0)
        shuffled_best, shuffled_stale = watch(loss[order], shuffled_best, shuffled_stale, 0.0)

    assert torch.equal(shuffled_best, best[order])
    assert torch.equal(shuffled_stale, stale[order])
    for column in range(3):
        seen = [row[column] for row in rows if not math.isnan(row[column])]
        assert float(best[column]) == min(seen, default=math.inf)
        since_best = len(seen) - 1 - seen.index(min(seen)) if seen else 0
        assert int(stale[column]) == since_best


def test_a_resumed_run_keeps_who_has_stopped():
    method = method_with((1.0, 1.0), (0.5, 1.0), patience=1)
    other = method_with(patience=1)

    other.load_state_dict(method.state_dict())

    assert groups_of(other) == [("audio", "fusion")]


def test_a_stopped_encoder_stands_still_in_a_real_run(tmp_path):
    write_contract_store(tmp_path / "fake")

    def encoders(method, epochs, **options):
        case = Case(options, train={"select": "last", "weight_decay": 0.1, "epochs": epochs})
        state = train_here(
            contract_recipe(method, case), data_root=tmp_path, checkpoints=tmp_path / "run"
        )
        names = [n for n in state if n.startswith("encoders.")]
        return {n: state[n] for n in names}, state["fusion.classifier.weight"]

    # Nothing improves by 1000 after the first epoch, so all stop after the second.
    two, two_fusion = encoders("mses", 2, patience=1, min_delta=1000.0)
    four, four_fusion = encoders("mses", 4, patience=1, min_delta=1000.0)
    joint, _ = encoders("none", 4)

    assert all(torch.equal(two[n], four[n]) for n in two)
    assert not torch.equal(two_fusion, four_fusion)
    assert any(not torch.equal(joint[n], four[n]) for n in four)
