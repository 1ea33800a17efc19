"""Methods that drop features: draws per sample, opm and modality_dropout."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mmtool.errors import RequestError
from mmtool.methods import modality_dropout, opm
from mmtool.methods._base import ModelFacts, StepContext
from mmtool.methods._dropping import draws, step_draw
from mmtool.types import Batch, Outputs

NAMES = ("audio", "image", "motion", "text")


def context(num=2, epoch=9, seed=3):
    generator = torch.Generator().manual_seed(seed)
    return StepContext(NAMES[:num], 3, epoch, 0, 10, 10, generator)


def batch_of(index, num=2, present=None, weight=None):
    index = torch.as_tensor(index)
    size = len(index)
    ones = torch.ones(size, num, dtype=torch.bool)
    return Batch(
        {}, {}, ones if present is None else present, index % 3, index, NAMES[:num], weight
    )


def facts(num=2, dims=(4, 12, 4, 4)):
    names = NAMES[:num]
    return ModelFacts(names, 3, dict(zip(names, dims, strict=False)), "concat", torch.device("cpu"))


def features_of(size, num=2, dims=(4, 12, 4, 4)):
    return {m: torch.ones(size, d) for m, d in zip(NAMES[:num], dims, strict=False)}


def outputs_of(size, scores):
    """Two-class logits whose true-class probability is the given score for every modality."""
    unimodal = {}
    for m, score in zip(NAMES, scores, strict=False):
        unimodal[m] = torch.zeros(size, 3)
        unimodal[m][torch.arange(size), torch.arange(size) % 3] = math.log(2 * score / (1 - score))
    return Outputs({}, torch.zeros(size, 3), unimodal)


def opm_with(scores, size=200, seed=3, **options):
    """An opm that has seen one step with these scores, in a step that drops."""
    method = opm.Method(opm.Options(execute_probability=1.0, **options))
    method.setup(facts(len(scores)))
    ctx = context(len(scores), seed=seed)
    ctx.stats = method.statistics(outputs_of(size, scores), batch_of(range(size), len(scores)), ctx)
    method.end_step(ctx)
    return method


def test_draws_are_uniform_and_differ_by_sample_modality_and_step():
    found = draws(batch_of(range(20_000)), context())

    counts = torch.histc(found, 10, 0.0, 1.0)
    assert float(((counts - 4000) ** 2 / 4000).sum()) < 33.7  # chi-square, 9 degrees: p = 1e-4
    assert abs(float(torch.corrcoef(found.T)[0, 1])) < 0.03
    other_step = draws(batch_of(range(20_000)), context(seed=4))
    assert abs(float(torch.corrcoef(torch.stack([found[:, 0], other_step[:, 0]]))[0, 1])) < 0.03


@given(st.lists(st.integers(0, 10**12), min_size=2, max_size=30), st.data())
def test_a_draw_does_not_depend_on_how_samples_are_spread(index, data):
    cut = data.draw(st.integers(1, len(index) - 1))
    whole = draws(batch_of(index, 3), context(3))

    parts = [draws(batch_of(part, 3), context(3)) for part in (index[:cut], index[cut:])]

    assert torch.equal(torch.cat(parts), whole)


def test_the_draw_of_a_step_is_uniform():
    found = sorted(step_draw(context(seed=seed)) for seed in range(2000))
    worst = max(abs(value - at / 2000) for at, value in enumerate(found))
    assert worst < 0.05  # Kolmogorov-Smirnov, p < 1e-4


@given(st.lists(st.floats(1e-3, 1.0), min_size=1, max_size=5), st.floats(0, 1), st.floats(0, 1))
def test_only_modalities_ahead_are_dropped(values, q_base, lam):
    scores = torch.tensor(values, dtype=torch.float64)
    q = opm.drop_probabilities(scores, q_base, lam)

    assert ((q >= 0) & (q <= 1)).all()
    assert (q == 0).any()
    assert q[scores.argmin()] == 0


@given(st.floats(1.001, 50.0), st.floats(0, 1), st.floats(0, 1))
def test_drop_probabilities_follow_the_paper(rho, q_base, lam):
    q = opm.drop_probabilities(torch.tensor([rho, 1.0], dtype=torch.float64), q_base, lam)

    expected = min(max(q_base * (1 + lam * math.tanh(rho - 1)), 0.0), 1.0)
    assert q.tolist() == pytest.approx([expected, 0.0], abs=1e-9)


def test_opm_drops_the_modality_ahead_and_scales_up_the_rest():
    method = opm_with((0.8, 0.4))
    q = 0.5 * (1 + 0.5 * math.tanh(1.0))
    features = features_of(5000)

    edited = method.edit_features(features, batch_of(range(5000)), context())

    scale = 1 / (1 - 4 * q / 16)
    assert edited["audio"].unique().tolist() == [0.0, pytest.approx(scale)]
    assert float((edited["audio"] == 0).all(1).float().mean()) == pytest.approx(q, abs=0.03)
    torch.testing.assert_close(edited["image"], torch.full((5000, 12), scale))
    assert (features["audio"] == 1).all()


def test_opm_does_nothing_before_it_has_scores_or_while_warming_up():
    fresh = opm.Method(opm.Options(execute_probability=1.0, warmup_epochs=0))
    fresh.setup(facts())
    features = features_of(50)
    edited = fresh.edit_features(features, batch_of(range(50)), context())
    assert all(torch.equal(edited[m], features[m]) for m in features)

    warm = opm_with((0.8, 0.4), warmup_epochs=5)
    assert warm.edit_features(features, batch_of(range(50)), context(epoch=4)) is features
    assert warm.edit_features(features, batch_of(range(50)), context(epoch=5)) is not features


def test_opm_drops_in_the_given_share_of_steps():
    method = opm.Method(opm.Options(execute_probability=0.7))
    method.setup(facts())
    features = features_of(2)
    dropped = sum(
        method.edit_features(features, batch_of([0, 1]), context(seed=seed)) is not features
        for seed in range(2000)
    )
    assert 1330 < dropped < 1470


def test_a_sample_that_loses_everything_it_has_gets_no_loss_and_does_not_count():
    method = opm_with((0.8, 0.4))
    present = torch.tensor([[True, False]]).expand(400, 2)
    weight = torch.ones(400)
    weight[-1] = 0
    batch = batch_of(range(400), present=present, weight=weight)
    edited = method.edit_features(features_of(400), batch, context())

    lost = (edited["audio"] == 0).all(1)
    outputs = outputs_of(400, (0.8, 0.4))
    loss = method.losses(outputs, batch, context())["fused"]
    stats = method.statistics(outputs, batch, context())

    assert 50 < int(lost.sum()) < 350
    assert torch.equal(loss == 0, lost)
    assert float(stats["weight"]) == float((~lost[:-1]).sum())


def test_opm_continues_from_a_saved_state_as_if_never_stopped():
    method = opm_with((0.8, 0.4, 0.1))
    other = opm.Method(method.options)
    other.setup(facts(3))

    other.load_state_dict(method.state_dict())

    features, batch = features_of(64, 3), batch_of(range(64), 3)
    first = method.edit_features(features, batch, context(3))
    second = other.edit_features(features, batch, context(3))
    assert all(torch.equal(first[m], second[m]) for m in features)
    assert (first["audio"] == 0).any()


def test_opm_keeps_the_dtype_of_features():
    features = {m: f.bfloat16() for m, f in features_of(8).items()}
    edited = opm_with((0.8, 0.4)).edit_features(features, batch_of(range(8)), context())

    assert {f.dtype for f in edited.values()} == {torch.bfloat16}


def test_the_scale_stays_finite_when_everything_is_dropped():
    scale = opm.survivor_scale(torch.ones(2), torch.tensor([4.0, 4.0]))

    assert scale.isfinite()


def moddrop(num=2, **options):
    method = modality_dropout.Method(modality_dropout.Options(**options))
    method.setup(facts(num))
    return method


def test_modality_dropout_drops_each_modality_at_its_own_rate():
    method = moddrop(3, rate=0.1, rates={"image": 0.4})

    edited = method.edit_features(features_of(20_000, 3), batch_of(range(20_000), 3), context(3))

    shares = [float((edited[m] == 0).all(1).float().mean()) for m in NAMES[:3]]
    assert shares == pytest.approx([0.1, 0.4, 0.1], abs=0.012)
    assert all(f.unique().tolist() == [0, 1] for f in edited.values())


@given(st.integers(1, 4), st.floats(0, 1), st.integers(0, 1000))
def test_no_sample_loses_every_modality_it_has(num, rate, seed):
    generator = torch.Generator().manual_seed(seed)
    uniform = torch.rand(40, num, generator=generator)
    present = torch.rand(40, num, generator=generator) < 0.6
    present[:, 0] |= ~present.any(1)

    kept = modality_dropout.keep_one(uniform, torch.full((num,), rate), present)

    assert (kept & present).any(1).all()
    was_kept = uniform >= rate
    assert (kept >= was_kept).all()
    rescued = kept & ~was_kept
    assert (rescued.sum(1) <= 1).all()
    assert not (rescued & ~present).any()


def test_modality_dropout_of_one_keeps_exactly_one_modality():
    edited = moddrop(3, rate=1.0).edit_features(
        features_of(300, 3), batch_of(range(300), 3), context(3)
    )

    kept = torch.stack([f[:, 0] for f in edited.values()], 1)
    assert (kept.sum(1) == 1).all()
    assert (kept.sum(0) > 60).all()


def test_a_rate_for_an_unknown_modality_is_refused():
    with pytest.raises(RequestError, match="'imag'") as caught:
        moddrop(rates={"imag": 0.5})
    assert caught.value.fix == "did you mean 'image'?"
