"""How much is masked, of whom, and with which numbers."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mmtool.methods._base import ModelFacts, StepContext
from mmtool.methods.amco import Method, Options, mask, progress, share_sums, strength
from mmtool.types import Batch, Outputs

NAMES = ("audio", "image", "motion")
DIMS = {"audio": 10, "image": 6, "motion": 4}


def context(step=50, epoch=5, epochs=10, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return StepContext(NAMES, 3, epoch, step, epochs, 10, generator)


def batch_of(present=None, size=4):
    present = torch.ones(size, 3, dtype=torch.bool) if present is None else present
    return Batch({}, {}, present, torch.zeros(size, dtype=torch.int64), torch.arange(size), NAMES)


def method_of(shares=None, **options):
    method = Method(Options(**options))
    method.setup(ModelFacts(NAMES, 3, DIMS, "concat", torch.device("cpu")))
    if shares is not None:
        method.load_state_dict({"shares": torch.tensor(shares)})
    return method


def features_of(size=4):
    return {m: torch.ones(size, dim) for m, dim in DIMS.items()}


@pytest.mark.parametrize(
    ("length", "expected"),
    [(0.0, 0.0), (0.1, 0.5), (0.15, math.sqrt(0.5)), (0.3, 1.0), (7.0, 1.0)],
)
def test_masks_grow_as_a_sine_and_then_stay(length, expected):
    assert strength(length, 0.3) == pytest.approx(expected)


def test_progress_is_the_share_of_training_that_is_done():
    assert progress(context(step=25), "progress") == pytest.approx(0.25)


def test_the_released_pace_begins_again_every_epoch():
    assert progress(context(step=53, epoch=5), "released") == pytest.approx(3 * 5 / 10)
    assert progress(context(step=3, epoch=0), "released") == 0.0


def test_the_share_of_a_modality_is_its_mass_in_the_joint_softmax():
    # Two classes each: masses 1 + 3 against 2 + 2 in the first sample, 6 + 2 against 1 + 1 next.
    audio = torch.tensor([[1.0, 3.0], [6.0, 2.0]]).log()
    image = torch.tensor([[2.0, 2.0], [1.0, 1.0]]).log()

    sums = share_sums(torch.stack([audio, image]), torch.ones(2, 2, dtype=torch.bool))

    torch.testing.assert_close(sums["share"], torch.tensor([0.5 + 0.8, 0.5 + 0.2]))
    assert sums["share_count"].tolist() == [2, 2]


def test_a_sample_counts_for_what_it_has_and_only_if_there_is_something_to_share():
    logits = torch.zeros(3, 3, 2)
    has = torch.tensor([[True, True, True], [True, True, False], [True, False, False]])

    sums = share_sums(logits, has)

    torch.testing.assert_close(sums["share"], torch.tensor([1 / 3 + 1 / 2, 1 / 3 + 1 / 2, 1 / 3]))
    assert sums["share_count"].tolist() == [2, 2, 1]


def test_samples_without_any_modality_give_no_nan():
    sums = share_sums(torch.randn(2, 3, 4), torch.zeros(3, 2, dtype=torch.bool))

    assert not sums["share"].any()
    assert not sums["share_count"].any()


@given(st.integers(2, 5), st.integers(0, 1000), st.floats(-50.0, 50.0))
def test_shares_add_up_to_the_number_of_samples_whatever_is_added_to_all_logits(count, seed, plus):
    logits = torch.randn(count, 6, 4, generator=torch.Generator().manual_seed(seed))
    has = torch.ones(6, count, dtype=torch.bool)

    sums = share_sums(logits, has)["share"]

    assert sums.sum().item() == pytest.approx(6.0, abs=1e-4)
    torch.testing.assert_close(sums, share_sums(logits + plus, has)["share"], atol=1e-3, rtol=1e-3)


@given(st.integers(1, 40), st.integers(0, 40), st.integers(0, 100))
def test_a_mask_has_so_many_zeros_and_keeps_the_mean(dim, num_zeros, seed):
    found = mask(dim, num_zeros, context(seed=seed), 0, torch.device("cpu"))

    assert int((found == 0).sum()) == min(dim, num_zeros)
    if num_zeros <= 0.9 * dim:
        assert found.mean().item() == pytest.approx(1.0, abs=1e-5)
    assert float(found.max()) <= 10.0


def test_masks_differ_between_steps_and_modalities_but_not_between_ranks():
    here = torch.device("cpu")
    one = mask(64, 32, context(seed=1), 0, here)

    assert torch.equal(one, mask(64, 32, context(seed=1), 0, here))
    assert not torch.equal(one, mask(64, 32, context(seed=2), 0, here))
    assert not torch.equal(one, mask(64, 32, context(seed=1), 1, here))


def test_only_dependent_modalities_are_masked():
    # A tenth of the training of which masks are whole from 0.3 on: p = sin(pi/6) = 1/2.
    method = method_of([0.5, 0.3, 0.2])
    edited = method.edit_features(features_of(), batch_of(), context(step=10, epoch=1))

    assert torch.equal(edited["image"], features_of()["image"])
    assert torch.equal(edited["motion"], features_of()["motion"])
    assert sorted(edited["audio"][0].tolist()) == [0.0] * 5 + [2.0] * 5
    assert torch.equal(edited["audio"][0], edited["audio"][3])


def test_a_whole_mask_removes_the_modality():
    edited = method_of([0.5, 0.3, 0.2]).edit_features(features_of(), batch_of(), context(step=60))

    assert not edited["audio"].any()
    assert edited["image"].all()


def test_before_anything_is_known_and_outside_of_its_epochs_nothing_is_masked():
    fresh = method_of().edit_features(features_of(), batch_of(), context(step=60))
    late = method_of([0.9, 0.1, 0.0], end_epoch=4)
    after = late.edit_features(features_of(), batch_of(), context(step=60, epoch=5))

    assert all(bool(f.all()) for f in (fresh | after).values())


def test_sigma_is_what_all_would_have_in_equal_parts_unless_set():
    assert method_of()._sigma == pytest.approx(1 / 3)
    masked = method_of([0.5, 0.3, 0.2], sigma=0.6)
    edited = masked.edit_features(features_of(), batch_of(), context(step=60))

    assert edited["audio"].all()


def test_each_modality_keeps_a_loss_of_its_whole_features():
    torch.manual_seed(0)
    present = torch.tensor([[True, True, True], [False, True, True]])
    batch = batch_of(present, size=2)
    outputs = Outputs({}, torch.zeros(2, 3), {m: torch.randn(2, 3) for m in NAMES})

    terms = method_of().losses(outputs, batch, context())

    assert list(terms) == ["fused", *NAMES]
    assert terms["audio"][1] == 0
    torch.testing.assert_close(terms["fused"], torch.full((2,), math.log(3.0)))


def test_a_skipped_step_leaves_the_shares_as_they_were():
    method, ctx = method_of([0.5, 0.3, 0.2]), context()
    ctx.stats = {"share": torch.tensor([1.0, 2.0, 1.0]), "share_count": torch.full((3,), 4.0)}
    ctx.is_skipped = torch.tensor(True)
    method.end_step(ctx)
    kept = method.state_dict()["shares"].tolist()
    ctx.is_skipped = torch.tensor(False)
    method.end_step(ctx)

    assert kept == pytest.approx([0.5, 0.3, 0.2])
    assert method.state_dict()["shares"].tolist() == pytest.approx([0.25, 0.5, 0.25])
