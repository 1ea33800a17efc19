"""DI-MML: stages, effective dimensions, one-way transfer and fusion by certainty."""

import math
from unittest.mock import create_autospec

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from mmtool.errors import RequestError
from mmtool.methods._base import EpochContext, ModelFacts, StepContext
from mmtool.methods.di_mml import Method, Options, certainty_weights, stages
from mmtool.testing.cases import Case, contract_recipe, write_contract_store
from mmtool.testing.training import train_here
from mmtool.types import Batch, GradGroups, Outputs

NAMES = ("audio", "image")
FACTS = ModelFacts(NAMES, 3, dict.fromkeys(NAMES, 4), "concat", torch.device("cpu"))


def method_with(**options):
    torch.manual_seed(0)
    method = Method(Options(**{"negatives": 8, "fusion_share": 0.25, **options}))
    (shared,) = method.setup(FACTS).values()
    return method, shared


def context(epoch, epochs=8):
    return StepContext(NAMES, 3, epoch, 0, epochs, 1, torch.Generator())


def between(epoch, collected=None, epochs=8):
    ctx = create_autospec(EpochContext, instance=True)
    ctx.epoch, ctx.epochs, ctx.modalities, ctx.num_classes = epoch, epochs, NAMES, 3
    ctx.collect.return_value = collected
    return ctx


def sample(present=None):
    torch.manual_seed(2)
    has = torch.ones(4, 2, dtype=torch.bool) if present is None else torch.tensor(present)
    batch = Batch({}, {}, has, torch.tensor([0, 1, 2, 1]), torch.tensor([3, 4, 5, 6]), NAMES)
    features = {m: torch.randn(4, 4, requires_grad=True) for m in NAMES}
    own = {m: torch.randn(4, 3) for m in NAMES}
    return Outputs(features, torch.randn(4, 3), own), batch


def test_a_run_has_a_warm_up_a_transfer_and_a_stage_for_the_fusion():
    assert stages(170, 20 / 170, 20 / 170) == (20, 150)
    assert stages(12, 0.17, 0.17) == (2, 10)
    assert stages(2, 0.0, 0.0) == (0, 1)


def test_encoders_are_trained_first_and_stand_still_while_the_fusion_is_trained():
    method, _ = method_with()
    (apart,), (fusion,) = (method.plan_step(context(epoch)) for epoch in (5, 6))

    assert apart.groups == (*NAMES, "fusion")
    assert apart.frozen == ()
    assert fusion.groups == ("fusion",)
    assert fusion.frozen == fusion.modalities == NAMES


def test_the_fusion_is_trained_on_features_without_gradient():
    outputs, batch = sample()
    method, _ = method_with()

    kept = method.edit_features(outputs.features, batch, context(5))
    assert all(f.requires_grad for f in kept.values())
    cut = method.edit_features(outputs.features, batch, context(6))
    assert not any(f.requires_grad for f in cut.values())
    terms = method.losses(outputs, batch, context(6))
    assert list(terms) == ["fused"]
    expected = cross_entropy(outputs.logits, batch.label, reduction="none")
    torch.testing.assert_close(terms["fused"], expected)


def test_encoders_learn_from_their_own_classifier_and_from_the_shared_one():
    outputs, batch = sample([[True, True], [True, False], [True, True], [False, True]])
    method, shared = method_with(shared=0.5, warmup_share=0.5)
    terms = method.losses(outputs, batch, context(0))

    assert list(terms) == list(NAMES)
    for position, m in enumerate(NAMES):
        own = cross_entropy(outputs.unimodal[m], batch.label, reduction="none")
        common = shared.classifier(outputs.features[m])
        expected = own + 0.5 * cross_entropy(common, batch.label, reduction="none")
        torch.testing.assert_close(terms[m], expected * batch.present[:, position])


def test_the_transfer_begins_after_the_warm_up():
    outputs, batch = sample()
    method, _ = method_with(warmup_share=0.25)

    assert "transfer" not in method.losses(outputs, batch, context(1))
    assert "transfer" in method.losses(outputs, batch, context(2))
    off, _ = method_with(warmup_share=0.25, transfer=0.0)
    assert "transfer" not in off.losses(outputs, batch, context(2))
    assert off.statistics(outputs, batch, context(2)) == {}


def test_a_modality_learns_only_what_the_other_is_good_at_and_it_is_not():
    outputs, batch = sample()
    method, _ = method_with(warmup_share=0.0)
    state = method.state_dict()
    masks = torch.tensor([[True, True, False, False], [True, False, True, False]])
    memory, filled = torch.randn(2, 8, 4), torch.full((2, 8), 90)
    method.load_state_dict({**state, "effective": masks, "memory": memory, "filled": filled})

    method.losses(outputs, batch, context(0))["transfer"].sum().backward()

    reached = {m: outputs.features[m].grad.abs().sum(0) > 0 for m in NAMES}
    assert reached["audio"].tolist() == [False, False, True, False]  # image alone knows it
    assert reached["image"].tolist() == [False, True, False, False]


def test_a_sample_is_not_told_apart_from_itself_nor_where_it_lacks_a_modality():
    outputs, batch = sample([[True, True], [True, False], [True, True], [False, True]])
    method, _ = method_with(warmup_share=0.0)
    masks = torch.tensor([[True, True, False, False], [True, False, True, False]])
    filled = torch.full((2, 8), -1)
    filled[:, 0] = 3  # the first sample of the batch
    state = {"effective": masks, "memory": torch.randn(2, 8, 4), "filled": filled}
    method.load_state_dict(state)

    found = method.losses(outputs, batch, context(0))["transfer"]
    assert [bool(v) for v in found] == [False, False, True, False]


def step_of(method, epoch=3, skipped=False):
    outputs, batch = sample()
    ctx = context(epoch)
    method.plan_step(ctx)
    halves = [
        method.statistics(
            Outputs({m: f[part] for m, f in outputs.features.items()}, outputs.logits[part]),
            Batch({}, {}, batch.present[part], batch.label[part], batch.index[part], NAMES),
            ctx,
        )
        for part in (slice(0, 1), slice(1, 4))
    ]
    ctx.stats = {name: halves[0][name] + halves[1][name] for name in halves[0]}
    grads = create_autospec(GradGroups, instance=True)
    method.edit_grads(grads, ctx)
    ctx.is_skipped = torch.tensor(skipped)
    method.end_step(ctx)
    return outputs, grads


def test_the_samples_of_a_step_are_remembered_for_the_next():
    method, _ = method_with()
    outputs, _ = step_of(method)
    state = method.state_dict()

    assert state["filled"][0].tolist() == [-1, -1, -1, 3, 4, 5, 6, -1]
    assert torch.equal(state["memory"][1, 3:7], outputs.features["image"].detach())


def test_a_skipped_step_is_not_remembered():
    method, _ = method_with()
    step_of(method, skipped=True)
    assert bool((method.state_dict()["filled"] == -1).all())


def test_dimensions_are_found_once_where_the_warm_up_ends():
    features = torch.tensor([[0.0, 0.0], [0.0, 6.0], [10.0, 0.0], [10.0, 4.0]])
    wide = torch.cat([features, torch.zeros(4, 2)], 1)
    collected = {
        "audio": torch.cat([wide, torch.full((1, 4), 99.0)]),
        "image": torch.cat([wide.flip(1), torch.full((1, 4), 99.0)]),
        "label": torch.tensor([0, 0, 1, 1, 0]),
        "present": torch.tensor([[True, True]] * 4 + [[False, False]]),
    }
    method, _ = method_with(warmup_share=0.25)
    method.begin_epoch(between(1, collected))
    assert not method.state_dict()["effective"].any()

    method.begin_epoch(between(2, collected))
    found = method.state_dict()["effective"]
    assert bool(found[0, 0])
    assert bool(found[1, 3])
    assert not found[0, 3]


def test_shares_that_leave_no_epoch_for_the_transfer_are_refused():
    method, _ = method_with(warmup_share=0.75, fusion_share=0.25)
    with pytest.raises(RequestError, match="no epoch for the transfer"):
        method.begin_epoch(between(0))


def test_the_fusion_has_a_learning_rate_of_its_own():
    method, _ = method_with(fusion_lr=5.0)
    grads = create_autospec(GradGroups, instance=True)
    method.edit_grads(grads, context(6))
    (group, factor), _ = grads.scale_update.call_args

    assert group == "fusion"
    assert float(factor) == 5.0


def test_weights_follow_the_largest_probabilities_of_an_example():
    logits = torch.tensor([[[math.log(3.0), 0.0]], [[0.0, 0.0]]])  # 3/4 and 1/2
    found = certainty_weights(logits, torch.ones(2, 1, dtype=torch.bool), 0.25)

    assert float(found[0, 0]) == pytest.approx(1 / (1 + math.exp(-1.0)))


@settings(deadline=None)
@given(st.integers(0, 100), st.floats(0.1, 50.0))
def test_weights_add_up_to_one_over_what_counts(seed, temperature):
    torch.manual_seed(seed)
    logits, counts = torch.randn(3, 6, 4), torch.rand(3, 6) < 0.5
    found = certainty_weights(logits, counts, temperature)

    torch.testing.assert_close(found.sum(0), torch.ones(6))
    assert not found[~counts & counts.any(0)].any()
    order = [2, 0, 1]
    torch.testing.assert_close(
        certainty_weights(logits[order], counts[order], temperature), found[order]
    )


def test_the_fusion_is_part_of_the_prediction_once_it_is_trained():
    outputs, _ = sample()
    method, shared = method_with(temperature=1e6)
    own = sum(outputs.unimodal.values())
    torch.testing.assert_close(method.predict(outputs), own / 2, atol=1e-5, rtol=1e-4)

    skipped = context(6)
    skipped.is_skipped = torch.tensor(True)
    method.end_step(skipped)
    assert not shared.is_fused
    method.end_step(context(6))
    assert shared.is_fused
    expected = (own + outputs.logits) / 3
    torch.testing.assert_close(method.predict(outputs), expected, atol=1e-5, rtol=1e-4)

    has = torch.tensor([[True, False]] * 4)
    found = method.predict(Outputs(outputs.features, outputs.logits, outputs.unimodal, present=has))
    expected = (outputs.unimodal["audio"] + outputs.logits) / 2
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_features_of_different_widths_are_refused():
    facts = ModelFacts(NAMES, 3, {"audio": 4, "image": 5}, "concat", torch.device("cpu"))
    with pytest.raises(RequestError, match="equal width"):
        Method(Options()).setup(facts)


def test_batch_norm_stands_still_while_the_fusion_is_trained(tmp_path):
    root = tmp_path / "data"
    write_contract_store(root / "fake")
    encoders = {
        "audio": {"name": "mlp", "hidden": (16,)},
        "image": {"name": "cnn", "width": 4, "norm": "batch"},
    }
    train = {"select": "last"}
    case = Case({"negatives": 8}, "concat", ("audio", "image"), encoders, train)
    recipe = contract_recipe("di_mml", case)
    early = train_here(recipe, data_root=root, checkpoints=tmp_path / "a", stop_after=4)
    late = train_here(recipe, data_root=root, checkpoints=tmp_path / "b")

    moved = {n.split(".")[0] for n in late if not torch.equal(early[n], late[n])}
    assert any(n.endswith("running_var") for n in late)
    assert not {"encoders", "heads"} & moved
    assert {"fusion", "extra"} <= moved  # of `extra` the mark that the fusion is trained
    assert torch.equal(
        early["extra.fusion.classifier.weight"], late["extra.fusion.classifier.weight"]
    )
