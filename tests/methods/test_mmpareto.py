"""mmpareto: fused and unimodal gradients, combined where they conflict."""

import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from mmtool.engine.build import build_job
from mmtool.engine.distributed import Ranks
from mmtool.methods._base import StepContext
from mmtool.methods.mmpareto import Method, Options, combined, fused_weight, shared_weight
from mmtool.testing.cases import contract_recipe, write_contract_store
from mmtool.testing.training import train_here
from mmtool.types import Batch, Outputs

NAMES = ("audio", "image")
vectors = st.lists(st.floats(-5, 5), min_size=4, max_size=4).map(
    lambda v: torch.tensor(v, dtype=torch.float64)
)


def weight_of(fused, unimodal):
    return fused_weight(fused @ fused, fused @ unimodal, unimodal @ unimodal)


def assume_direction(fused, unimodal):
    """Leave out gradients that cancel: what is left of them has no direction to lengthen."""
    c = weight_of(fused, unimodal)
    size = float(fused.norm() + unimodal.norm())
    assume(float((c * fused + (1 - c) * unimodal).norm()) > 1e-3 * size)


def combine(fused, unimodal, group="audio", **options):
    ctx = StepContext(NAMES, 3, 0, 0, 1, 1, torch.Generator())
    gradients = {"fused": fused, "unimodal": unimodal}
    return Method(Options(**options)).combine(group, gradients, ctx), ctx


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


def test_gradients_that_agree_are_added_and_lengthened():
    (found,), ctx = combine([tensor(1.0, 0.0)], [tensor(1.0, 1.0)])

    assert found.tolist() == pytest.approx([3.0, 1.5])  # 1.5 (g_f + g_u)
    assert float(ctx.metrics["fused_weight.audio"]) == 0.5


def test_gradients_in_conflict_are_combined_by_the_least_norm():
    (found,), ctx = combine([tensor(2.0, 0.0)], [tensor(-1.0, 1.0)])

    # |g_f|^2 = 4, g_f.g_u = -2, |g_u|^2 = 2: c = (2 + 2) / (4 + 2 + 4) = 0.4
    # h = 0.8 (2, 0) + 1.2 (-1, 1) = (0.4, 1.2), |h| = sqrt 1.6; |g_f + g_u| = |(1, 1)| = sqrt 2
    longer = math.sqrt(2 / 1.6)
    assert float(ctx.metrics["fused_weight.audio"]) == pytest.approx(0.4)
    assert found.tolist() == pytest.approx([1.5 * longer * 0.4, 1.5 * longer * 1.2])


def test_the_length_is_restored_tensor_by_tensor():
    fused = [tensor(2.0, 0.0), tensor(0.0, 0.1)]
    unimodal = [tensor(-1.0, 1.0), tensor(0.1, 0.0)]
    found, ctx = combine(fused, unimodal, gain=1.0)

    c = float(ctx.metrics["fused_weight.audio"])
    # over both: |g_f|^2 = 4.01, dot = -2, |g_u|^2 = 2.01
    assert c == pytest.approx((2.01 + 2) / (4.01 + 2.01 + 4))
    for f, u, g in zip(fused, unimodal, found, strict=True):
        h = 2 * c * f + 2 * (1 - c) * u
        assert float(g.norm()) == pytest.approx(max(float((f + u).norm()), float(h.norm())))


@settings(deadline=None)
@given(vectors, vectors)
def test_no_other_weight_gives_a_shorter_combination(fused, unimodal):
    c = float(weight_of(fused, unimodal))
    assert 0 < c <= 1
    if float(fused @ unimodal) > 0:
        assert c == 0.5
        return

    def square(weight):
        return float((weight * fused + (1 - weight) * unimodal).square().sum())

    others = [square(w) for w in torch.linspace(0.001, 0.999, 41).tolist()]
    assert square(c) <= min(others) + 1e-9 * (1 + min(others))


@settings(deadline=None)
@given(vectors, vectors, st.floats(1e-3, 1e3))
def test_the_loss_scale_does_not_matter(fused, unimodal, scale):
    assume_direction(fused, unimodal)
    (one,), _ = combine([fused], [unimodal])
    (other,), _ = combine([fused * scale], [unimodal * scale])

    torch.testing.assert_close(other, one * scale, rtol=1e-6, atol=1e-6 * scale)


@settings(deadline=None)
@given(vectors, vectors)
def test_the_step_is_never_shorter_than_the_plain_sum(fused, unimodal):
    found = combined(fused, unimodal, weight_of(fused, unimodal), 1.0)

    assert found.isfinite().all()
    assume_direction(fused, unimodal)
    assert float(found.norm()) >= float((fused + unimodal).norm()) * (1 - 1e-6)


@pytest.mark.parametrize(
    ("square_f", "dot", "square_u", "expected"),
    [(0, 0, 0, 0.5), (0, 0, 4, 0.999), (4, 0, 0, 0.001), (4, -4, 4, 0.5), (1, 0, 3, 0.75)],
)
def test_edges_of_the_weight(square_f, dot, square_u, expected):
    values = [torch.tensor(float(v)) for v in (square_f, dot, square_u)]

    assert float(fused_weight(*values)) == pytest.approx(expected)


def test_opposite_gradients_give_zero_and_not_nan():
    (found,), _ = combine([tensor(1.0, -2.0)], [tensor(-1.0, 2.0)])

    assert found.tolist() == [0.0, 0.0]


def test_rounding_errors_of_opposite_gradients_are_not_lengthened():
    fused = torch.tensor([0.1, -0.7, 0.3])
    unimodal = -3 * fused + torch.tensor([1e-8, 0.0, -1e-8])

    (found,), _ = combine([fused], [unimodal])

    assert found.tolist() == [0.0, 0.0, 0.0]


def test_a_tensor_that_one_loss_does_not_reach_keeps_the_sum_and_has_no_say():
    encoder_f, encoder_u = tensor(2.0, 0.0), tensor(-1.0, 1.0)
    head_f, head_u = tensor(0.0, 0.0), tensor(30.0, 40.0)

    found, ctx = combine([encoder_f, head_f], [encoder_u, head_u])

    assert found[1].tolist() == [30.0, 40.0]
    assert float(ctx.metrics["fused_weight.audio"]) == pytest.approx(0.4)
    none = shared_weight([head_f], [head_u], [torch.tensor(False)])
    assert float(none) == 0.5


def test_the_fusion_keeps_the_plain_sum():
    (found,), ctx = combine([tensor(2.0, 0.0)], [tensor(-1.0, 1.0)], group="fusion")

    assert found.tolist() == [1.0, 1.0]
    assert not ctx.metrics


def test_the_length_can_be_left_alone():
    (found,), _ = combine([tensor(2.0, 0.0)], [tensor(-1.0, 1.0)], gain=2.0, restore=False)

    assert found.tolist() == pytest.approx([0.8, 2.4])


def test_the_unimodal_term_sums_the_losses_of_what_a_sample_has():
    torch.manual_seed(0)
    present = torch.tensor([[True, True], [True, False]])
    batch = Batch({}, {}, present, torch.tensor([0, 1]), torch.arange(2), NAMES)
    outputs = Outputs({}, torch.randn(2, 3), {m: torch.randn(2, 3) for m in NAMES})
    ctx = StepContext(NAMES, 3, 0, 0, 1, 1, torch.Generator())

    terms = Method(Options()).losses(outputs, batch, ctx)

    audio, image = (
        cross_entropy(outputs.unimodal[m], batch.label, reduction="none") for m in NAMES
    )
    torch.testing.assert_close(terms["unimodal"], audio + image * torch.tensor([1.0, 0.0]))


@pytest.mark.parametrize("way", ["decompose", "head"])
def test_two_backward_passes_do_for_three_modalities(way, tmp_path, monkeypatch):
    write_contract_store(tmp_path / "fake")
    recipe = contract_recipe("mmpareto")
    model = recipe.model.model_copy(update={"unimodal": way})
    log = recipe.log.model_copy(update={"probes": False})
    recipe = recipe.model_copy(update={"model": model, "log": log})
    passes = []
    real = torch.autograd.grad
    monkeypatch.setattr(torch.autograd, "grad", lambda *a, **k: passes.append(1) or real(*a, **k))
    job = build_job(recipe, Ranks(), data_root=tmp_path)
    num_steps = job.steps_per_epoch()
    job.close()

    train_here(recipe, data_root=tmp_path, checkpoints=tmp_path / "run")

    assert len(passes) == 2 * num_steps * recipe.train.epochs


def test_two_passes_give_what_a_pass_for_each_loss_gives():
    torch.manual_seed(4)
    double = {"dtype": torch.float64}
    inputs = {m: torch.randn(7, 5, **double) for m in NAMES}
    label = torch.randint(3, (7,))
    encoders = {m: [torch.randn(4, 5, **double), torch.randn(4, **double)] for m in NAMES}
    heads = {m: torch.randn(3, 4, **double) for m in NAMES}
    fusion = torch.randn(3, 8, **double)
    for parameter in (*encoders["audio"], *encoders["image"], *heads.values(), fusion):
        parameter.requires_grad_()

    def forward():
        features = {m: torch.tanh(inputs[m] @ w.T + b) for m, (w, b) in encoders.items()}
        fused = cross_entropy(torch.cat(list(features.values()), 1) @ fusion.T, label)
        return fused, {m: cross_entropy(features[m] @ heads[m].T, label) for m in NAMES}

    fused, each = forward()
    for modality in NAMES:
        wanted = [*encoders[modality], heads[modality]]
        passes = (fused, sum(each.values()))
        gradients = [
            [
                torch.zeros_like(p) if g is None else g
                for p, g in zip(
                    wanted,
                    torch.autograd.grad(term, wanted, retain_graph=True, allow_unused=True),
                    strict=True,
                )
            ]
            for term in passes
        ]
        found, _ = combine(*gradients, group=modality)

        expected = by_a_pass_for_each(forward, encoders[modality], modality)
        for one, other in zip(found[:2], expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(found[2], gradients[1][2])


def by_a_pass_for_each(forward, parameters, modality):
    """The published procedure for one encoder, on the host, without its shortcuts."""
    fused, each = forward()
    f = torch.autograd.grad(fused, parameters, retain_graph=True)
    u = torch.autograd.grad(each[modality], parameters)
    whole_f, whole_u = (torch.cat([g.flatten() for g in gs]) for gs in (f, u))
    c = 0.5
    if float(whole_f @ whole_u) <= 0:
        trials = torch.linspace(0.001, 0.999, 200_001, dtype=torch.float64)
        squares = (
            trials.square() * (whole_f @ whole_f)
            + 2 * trials * (1 - trials) * (whole_f @ whole_u)
            + (1 - trials).square() * (whole_u @ whole_u)
        )
        c = float(trials[squares.argmin()])
    result = []
    for one, other in zip(f, u, strict=True):
        h = 2 * c * one + 2 * (1 - c) * other
        length = max(1.0, float((one + other).norm() / h.norm()))
        result.append(1.5 * length * h)
    return result
