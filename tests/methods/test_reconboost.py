"""ReconBoost: stages, the residual loss, agreement, and who is part of a prediction."""

import math
from unittest.mock import create_autospec

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy, one_hot

from mmtool.methods._base import EpochContext, ModelFacts, StepContext
from mmtool.methods.reconboost import (
    Method,
    Options,
    disagreement,
    phase_of,
    residual_loss,
    summed,
)
from mmtool.types import Batch, Outputs

NAMES = ("audio", "image", "motion")


def method_with(**options):
    method = Method(Options(**{"boost_epochs": 2, "joint_epochs": 1, **options}))
    device = torch.device("cpu")
    method.setup(ModelFacts(NAMES, 3, dict.fromkeys(NAMES, 4), "concat", device))
    return method


def context(epoch):
    return StepContext(NAMES, 3, epoch, 0, 20, 1, torch.Generator())


def sample(present=None):
    torch.manual_seed(1)
    has = torch.ones(4, 3, dtype=torch.bool) if present is None else torch.tensor(present)
    batch = Batch({}, {}, has, torch.tensor([0, 1, 2, 1]), torch.arange(4), NAMES)
    logits = {m: torch.randn(4, 3, requires_grad=True) for m in NAMES}
    return Outputs({}, torch.randn(4, 3), logits), batch


def test_a_stage_trains_one_modality_and_then_all_that_were_picked():
    method = method_with()
    plan = [method.plan_step(context(epoch))[0] for epoch in range(12)]

    assert [s.groups for s in plan] == [
        ("audio",),
        ("audio",),
        ("audio",),
        ("image",),
        ("image",),
        ("audio", "image"),
        ("motion",),
        ("motion",),
        NAMES,
        ("audio",),
        ("audio",),
        NAMES,
    ]
    assert plan[3].modalities == ("audio", "image")
    assert plan[9].modalities == NAMES


def test_momentum_is_forgotten_where_a_phase_begins():
    for how, expected in (("forget", [0, 2, 3, 5]), ("keep", [])):
        method, forgotten = method_with(momentum=how), []
        for epoch in range(6):
            ctx = create_autospec(EpochContext, instance=True)
            ctx.epoch, ctx.modalities = epoch, NAMES
            method.begin_epoch(ctx)
            if ctx.forget_momentum.called:
                ctx.forget_momentum.assert_called_once_with(NAMES)
                forgotten.append(epoch)
        assert forgotten == expected


def test_without_a_joint_phase_modalities_take_turns():
    phases = [phase_of(epoch, NAMES, 1, 0) for epoch in range(4)]

    assert [p.modality for p in phases] == ["audio", "image", "motion", "audio"]
    assert [p.previous for p in phases] == [None, "audio", "image", "motion"]
    assert all(p.is_first and not p.is_joint for p in phases)


def test_the_residual_loss_of_an_example():
    # p = (3, 1)/4, q = (1, 1)/2, label 0: -log 3/4 + 0.2 (log 3/4 + log 1/4) / 2
    logits = torch.tensor([[math.log(3.0), 0.0]])
    label = torch.tensor([0])
    log_p = [math.log(0.75), math.log(0.25)]

    paper = residual_loss(logits, torch.zeros(1, 2), label, 0.2)
    assert float(paper) == pytest.approx(-log_p[0] + 0.2 * (log_p[0] + log_p[1]) / 2)
    released = residual_loss(logits, torch.zeros(1, 2), label, 0.2, "released")
    assert float(released) == pytest.approx(-log_p[0] * (1 - 0.2 * 0.5))


@settings(deadline=None)
@given(st.integers(0, 200), st.floats(0, 1), st.integers(2, 5))
def test_the_gradient_is_that_of_labels_without_what_others_say(seed, lam, num_classes):
    torch.manual_seed(seed)
    logits = torch.randn(6, num_classes, dtype=torch.float64, requires_grad=True)
    others = torch.randn(6, num_classes, dtype=torch.float64) * 3
    label = torch.randint(num_classes, (6,))
    residual_loss(logits, others, label, lam).sum().backward()

    target = one_hot(label, num_classes) - lam * others.softmax(1)
    expected = (1 - lam) * logits.detach().softmax(1) - target
    torch.testing.assert_close(logits.grad, expected)


@settings(deadline=None)
@given(st.integers(0, 200), st.sampled_from(["paper", "released"]))
def test_without_residual_it_is_the_cross_entropy(seed, variant):
    torch.manual_seed(seed)
    logits, others, label = torch.randn(5, 3), torch.randn(5, 3), torch.randint(3, (5,))

    torch.testing.assert_close(
        residual_loss(logits, others, label, 0.0, variant),
        cross_entropy(logits, label, reduction="none"),
    )


@settings(deadline=None)
@given(st.integers(0, 100))
def test_the_released_residual_is_the_published_line_with_a_weight_of_five_over_classes(seed):
    torch.manual_seed(seed)
    logits, others, label = torch.randn(5, 4), torch.randn(5, 4), torch.randint(4, (5,))
    hot, log_p = one_hot(label, 4), logits.log_softmax(1)
    line = -5 * (hot * log_p).mean(1) + (hot * others.softmax(1) * log_p).mean(1)

    found = 5 / 4 * residual_loss(logits, others, label, 0.2, "released")
    torch.testing.assert_close(found, line)


def test_the_first_stage_knows_of_no_other():
    outputs, batch = sample()
    terms = method_with().losses(outputs, batch, context(0))

    assert list(terms) == ["boost"]
    own = cross_entropy(outputs.unimodal["audio"], batch.label, reduction="none")
    torch.testing.assert_close(terms["boost"], own)


def test_others_are_constants_and_the_agreement_reaches_the_modality_that_is_trained():
    outputs, batch = sample()
    terms = method_with().losses(outputs, batch, context(3))
    assert list(terms) == ["boost", "align"]
    audio, image = (outputs.unimodal[m].detach() for m in NAMES[:2])

    expected = 0.5 * (image.softmax(1) - audio.softmax(1)).square().mean(1)
    torch.testing.assert_close(terms["align"], expected)
    torch.testing.assert_close(terms["boost"], residual_loss(image, audio, batch.label, 0.2))
    terms["align"].sum().backward()
    assert outputs.unimodal["image"].grad.abs().sum() > 0
    assert outputs.unimodal["audio"].grad is None

    assert "align" not in method_with(align=0.0).losses(outputs, batch, context(3))


def test_the_joint_phase_is_the_loss_of_the_sum():
    outputs, batch = sample()
    terms = method_with().losses(outputs, batch, context(5))

    total = outputs.unimodal["audio"] + outputs.unimodal["image"]  # motion was not picked yet
    torch.testing.assert_close(terms["joint"], cross_entropy(total, batch.label, reduction="none"))


def test_a_sample_counts_where_it_has_what_is_trained():
    has = [[True, True, True], [True, False, True], [False, True, True], [False, False, True]]
    outputs, batch = sample(has)
    method = method_with()

    boost = method.losses(outputs, batch, context(3))
    assert [bool(v) for v in boost["boost"]] == [True, False, True, False]
    assert [bool(v) for v in boost["align"]] == [True, False, False, False]
    alone = cross_entropy(outputs.unimodal["image"], batch.label, reduction="none")
    torch.testing.assert_close(boost["boost"][2], alone[2])  # audio is absent: nothing said
    assert float(method.statistics(outputs, batch, context(3))["weight"]) == 2.0
    assert float(method.statistics(outputs, batch, context(5))["weight"]) == 3.0
    joint = method.losses(outputs, batch, context(5))["joint"]
    assert [bool(v) for v in joint] == [True, True, True, False]


def test_a_sum_leaves_out_what_a_sample_lacks():
    outputs, batch = sample([[True, False, True]] * 4)
    found = summed(outputs.unimodal, batch, NAMES)
    torch.testing.assert_close(found, outputs.unimodal["audio"] + outputs.unimodal["motion"])


@settings(deadline=None)
@given(st.integers(0, 100))
def test_agreement_is_symmetric_and_zero_for_equals(seed):
    torch.manual_seed(seed)
    one, other = torch.randn(4, 3), torch.randn(4, 3)
    torch.testing.assert_close(disagreement(one, other), disagreement(other, one))
    assert not disagreement(one, one + 2.0).gt(1e-12).any()


def test_only_trained_modalities_are_part_of_the_prediction():
    outputs, _ = sample()
    method = method_with()
    z = outputs.unimodal
    torch.testing.assert_close(method.predict(outputs), sum(z.values()))  # before training

    skipped = context(0)
    skipped.is_skipped = torch.tensor(True)
    method.end_step(skipped)
    torch.testing.assert_close(method.predict(outputs), sum(z.values()))

    method.end_step(context(0))
    torch.testing.assert_close(method.predict(outputs), z["audio"])
    method.end_step(context(3))
    torch.testing.assert_close(method.predict(outputs), z["audio"] + z["image"])

    has = torch.tensor([[True, False, True]] * 4)
    lacking = Outputs({}, outputs.logits, z, present=has)
    torch.testing.assert_close(method.predict(lacking), z["audio"])


def test_who_was_trained_is_saved_with_the_weights():
    method = method_with()
    device = torch.device("cpu")
    facts = ModelFacts(NAMES, 3, dict.fromkeys(NAMES, 4), "concat", device)
    (module,) = method.setup(facts).values()
    method.end_step(context(0))

    assert module.state_dict()["mask"].tolist() == [True, False, False]
    assert list(module.parameters()) == []


def test_a_phase_of_no_epochs_is_refused():
    with pytest.raises(ValueError, match="boost_epochs"):
        Options(boost_epochs=0)
