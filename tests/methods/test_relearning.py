import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmtool.methods._base import ModelFacts
from mmtool.methods._clusters import k_means, purity, scaled
from mmtool.methods.relearning import Method, Options, cluster_purity, is_due, pull, set_back

NAMES = ("audio", "image")


def blobs(per_class=20, num_classes=3, width=0.1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    centres = 4 * torch.eye(num_classes)
    label = torch.arange(num_classes).repeat_interleave(per_class)
    noise = torch.randn(len(label), num_classes, generator=generator)
    return centres[label] + width * noise, label


def test_columns_reach_from_minus_one_to_one_and_constant_ones_stay_finite():
    found = scaled(torch.tensor([[0.0, 5.0], [1.0, 5.0], [4.0, 5.0]]))

    assert found.tolist() == [[-1.0, -1.0], [-0.5, -1.0], [1.0, -1.0]]


def test_purity_is_the_share_of_the_most_frequent_class_of_each_cluster():
    assigned = torch.tensor([0, 0, 0, 1, 1, 1, 1])
    label = torch.tensor([2, 2, 0, 1, 1, 0, 0])

    assert float(purity(assigned, label)) == pytest.approx((2 + 2) / 7)
    assert float(purity(label[:0], label[:0])) == 0.0


@pytest.mark.parametrize("seed", range(5))
def test_clusters_that_lie_apart_are_found(seed):
    features, label = blobs(seed=seed)

    assert float(purity(k_means(features, 3, seed=seed, num_starts=4), label)) == 1.0


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 12), st.integers(1, 5), st.integers(0, 3))
def test_any_rows_give_clusters_the_same_ones_every_time(rows, clusters, seed):
    features = torch.randn(rows, 2, generator=torch.Generator().manual_seed(seed))

    found = k_means(features, clusters)

    assert found.shape == (rows,)
    assert int(found.max()) < min(clusters, rows)
    assert torch.equal(found, k_means(features, clusters))


def test_rows_that_are_all_the_same_are_no_problem():
    found = k_means(torch.ones(6, 3), 4)

    assert len(set(found.tolist())) == 1


def test_lloyd_ends_where_each_row_is_nearest_to_the_mean_of_its_cluster():
    features, _ = blobs(width=2.0)
    found = k_means(features, 3)
    means = torch.stack([features[found == c].mean(0) for c in range(3)])

    # Rows on a border may still differ: centres stop moving before the last ones do.
    assert float((torch.cdist(features, means).argmin(1) == found).double().mean()) > 0.95


@settings(deadline=None)
@given(st.floats(0.0, 1.0), st.floats(0.1, 10.0))
def test_the_share_of_the_first_weights_grows_with_the_gap(gap, lam):
    found = float(set_back(torch.tensor(gap, dtype=torch.float64), lam))

    assert found == pytest.approx(math.tanh(lam * gap))
    assert 0 <= found <= 1
    assert found <= float(set_back(torch.tensor(gap + 0.1, dtype=torch.float64), lam))


def test_weights_go_a_share_of_the_way_back():
    values, first = [torch.tensor([4.0, 8.0])], [torch.tensor([0.0, 4.0])]

    pull(values, first, torch.tensor(0.25, dtype=torch.float64))

    assert values[0].tolist() == [3.0, 7.0]


def test_encoders_are_set_back_on_time_but_not_at_the_end():
    due = [done for done in range(1, 91) if is_due(done, 20, 3, 90)]

    assert due == [20, 40, 60]
    assert [done for done in range(1, 13) if is_due(done, 4, 3, 12)] == [4, 8]


def split(spoilt, present=None):
    """Audio clusters by class, image does so where it is not spoilt."""
    features, label = blobs()
    mixed = torch.randn(60, 3, generator=torch.Generator().manual_seed(5))
    found = {"audio": features, "image": mixed if spoilt else features, "label": label}
    return {**found, "present": torch.ones(60, 2) if present is None else present}


def context(epoch, forgotten=None):
    splits = {"train": split(spoilt=False), "val": split(spoilt=True)}

    def collect(statistic, name="train", share=1.0):
        assert (statistic, share) == ("features", 1.0)
        return splits[name]

    return SimpleNamespace(
        modalities=NAMES,
        num_classes=3,
        epoch=epoch,
        epochs=10,
        collect=collect,
        forget_momentum=(forgotten if forgotten is not None else []).extend,
    )


def made(**options):
    method = Method(Options(**options))
    facts = ModelFacts(NAMES, 3, dict.fromkeys(NAMES, 3), "concat", torch.device("cpu"))
    method.setup(facts)
    return method


def parameters():
    names = (*NAMES, "fusion")
    now = {m: [torch.full((2, 2), 1.0), torch.full((3,), 1.0)] for m in names}
    first = {f"{m}@initial": [torch.zeros(2, 2), torch.zeros(3)] for m in names}
    return {**now, **first}


def test_the_encoder_that_fits_only_the_training_split_is_set_back():
    method, held = made(every=2, starts=4), parameters()
    method.edit_parameters(held, context(epoch=1))

    gap = 1.0 - float(cluster_purity(split(spoilt=True), "image", 1, 3, 4))
    assert gap > 0.2
    assert torch.equal(held["audio"][0], torch.ones(2, 2))
    left = 1 - math.tanh(3 * gap)
    assert held["image"][0].flatten().tolist() == pytest.approx([left] * 4, rel=1e-5)
    assert held["image"][1].tolist() == pytest.approx([left] * 3, rel=1e-5)
    assert torch.equal(held["fusion"][0], torch.ones(2, 2))
    found = method.state_dict()["found"]
    assert found[0].tolist() == pytest.approx([0.0, gap], abs=1e-6)


def test_between_diagnoses_nothing_changes():
    held = parameters()
    made(every=2).edit_parameters(held, context(epoch=0))

    assert torch.equal(held["image"][0], torch.ones(2, 2))


@pytest.mark.parametrize(("momentum", "groups"), [("keep", []), ("forget", list(NAMES))])
def test_the_optimiser_forgets_only_if_asked(momentum, groups):
    forgotten = []
    made(every=1, momentum=momentum).edit_parameters(parameters(), context(0, forgotten))

    assert forgotten == groups


def test_samples_without_the_modality_are_left_out_of_its_clusters():
    features, label = blobs()
    has = torch.rand(60, generator=torch.Generator().manual_seed(1)) > 0.5
    features[~has] = 0.0
    found = {"image": features, "label": label, "present": torch.stack([has, has], dim=1)}

    assert float(cluster_purity(found, "image", 1, 3, 4)) == 1.0
    nobody = {**found, "present": torch.zeros(60, 2)}
    assert float(cluster_purity(nobody, "image", 1, 3)) == 0.0


def test_what_was_found_is_kept_for_the_log_of_a_resumed_run():
    method, resumed = made(every=1), made(every=1)
    method.edit_parameters(parameters(), context(epoch=0))
    resumed.load_state_dict(method.state_dict())

    assert torch.equal(resumed.state_dict()["found"], method.state_dict()["found"])
