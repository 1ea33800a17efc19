"""Taking modalities away: which subsets, who swaps with whom, and what is left."""

import numpy as np
import pytest
import torch

from mmtool.engine.build import build_job
from mmtool.engine.deep.record import Judge, target_variance
from mmtool.engine.deep.removals import NUM_ORDERS, Removals, subsets, swap_partners
from mmtool.engine.distributed import Ranks
from mmtool.engine.evaluate import encode_rows, evaluation_mode
from mmtool.testing.cases import contract_recipe, write_contract_store


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_contract_store(folder / "fake")
    return folder


@pytest.fixture
def job(root):
    job = build_job(contract_recipe("none"), Ranks(), data_root=root)
    yield job
    job.close()


def removed(job, kept):
    encoded = encode_rows(job, job.dataset.rows("val"), isolated=True)
    label = encoded.label
    judge = Judge(label, "single_label", target_variance(label, "single_label"))
    with evaluation_mode(job.model):
        return encoded, Removals(job, encoded, judge).measure(np.array(kept))


def test_up_to_four_modalities_every_subset_is_measured():
    two, orders = subsets(2, seed=0)

    assert two.tolist() == [[True, True], [True, False], [False, True], [False, False]]
    assert orders.shape == (0, 2)
    four, _ = subsets(4, seed=0)
    assert len(np.unique(four, axis=0)) == len(four) == 16
    assert four[0].all()
    assert not four[-1].any()


def test_above_four_every_step_of_every_sampled_order_is_measured_once():
    kept, orders = subsets(6, seed=3)
    known = {tuple(row) for row in kept.tolist()}

    assert orders.shape == (NUM_ORDERS, 6)
    assert len(known) == len(kept) < 2**6
    assert kept[0].all()
    assert not kept[-1].any()
    assert {sum(row) for row in known} == set(range(7))
    assert sum(sum(row) == 1 for row in known) == sum(sum(row) == 5 for row in known) == 6
    for order in orders:
        entered = np.zeros(6, dtype=bool)
        for modality in order:
            entered[modality] = True
            assert tuple(entered.tolist()) in known


def test_nobody_keeps_its_own_feature_and_everybody_is_taken_once():
    has = torch.tensor([True, False, True, True, True, False, True])
    partners = swap_partners(has, 0, 0, 1)

    assert (partners[has] != has.nonzero().squeeze(1)).all()
    assert sorted(partners[has].tolist()) == has.nonzero().squeeze(1).tolist()
    assert partners[~has].tolist() == [1, 5]


def test_draws_and_modalities_swap_apart_but_always_alike():
    has = torch.ones(50, dtype=torch.bool)
    first, again = swap_partners(has, 0, 0, 0), swap_partners(has, 0, 0, 0)

    assert torch.equal(first, again)
    for keys in ((0, 1), (1, 0), (2, 0)):
        assert not torch.equal(first, swap_partners(has, 0, *keys))
    assert not torch.equal(first, swap_partners(has, 1, 0, 0))


def test_a_sample_alone_in_having_a_modality_has_nobody_to_swap_with():
    has = torch.tensor([False, True, False])

    assert swap_partners(has, 0, 0, 0).tolist() == [0, 1, 2]


def test_a_modality_that_the_fusion_ignores_makes_no_difference(job):
    classifier = job.model.fusion.classifier
    width = job.model.feature_dims["audio"]  # the first of the concatenated ones
    with torch.no_grad():
        classifier.weight[:, :width] = 0.0
    _, found = removed(job, [[True, True, True], [False, True, True], [True, False, True]])

    for way in ("permute", "mean"):
        gain = found[f"{way}.gain"]
        np.testing.assert_array_equal(gain[1], gain[0])
        assert not np.allclose(gain[2], gain[0])


def test_keeping_all_is_the_answer_of_the_model(job):
    encoded, found = removed(job, [[True, True, True]])
    with evaluation_mode(job.model):
        logits = job.model.fuse(encoded.features)

    assert found["mean.answer"][0].tolist() == logits.argmax(1).tolist()
    assert found["permute.answer"][0].tolist() == [logits.argmax(1).tolist()] * 5
    log_p = logits.log_softmax(1).gather(1, encoded.label[:, None]).squeeze(1)
    np.testing.assert_allclose(found["mean.gain"][0], log_p.numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found["conf"][0], logits.softmax(1).amax(1).numpy(), rtol=1e-5)


def test_a_subset_swaps_each_removed_modality_apart_from_the_others(job):
    encoded, found = removed(job, [[True, False, False]])
    seed = job.recipe.train.seed
    features = dict(encoded.features)
    for at, modality in ((1, "image"), (2, "motion")):
        partners = swap_partners(encoded.present[:, at], seed, 3, at)
        features[modality] = features[modality][partners]
    with evaluation_mode(job.model):
        expected = job.model.fuse(features).argmax(1)

    assert found["permute.answer"][0, 3].tolist() == expected.tolist()


def test_without_any_modality_everybody_gets_the_same_answer(job):
    _, found = removed(job, [[False, False, False]])

    assert len(set(found["mean.answer"][0].tolist())) == 1
    assert np.ptp(found["conf"][0]) < 1e-6


def test_the_method_predicts_with_what_is_present(root):
    job = build_job(contract_recipe("ume"), Ranks(), data_root=root)
    try:
        encoded, found = removed(job, [[True, False, False]])
        with evaluation_mode(job.model):
            own = job.model.unimodal(encoded.features)["audio"]
    finally:
        job.close()

    assert found["mean.answer"][0].tolist() == own.argmax(1).tolist()
