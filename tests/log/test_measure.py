"""Flip, drop and alone of features whose truth is known."""

import numpy as np
import pytest
import torch
from torch import nn

from mmtool.errors import RequestError
from mmtool.log.measure import effective_rank, measure
from mmtool.log.probes import Probes, pooled


def one_hot(labels, classes=4):
    return np.eye(classes)[labels]


LABELS = np.arange(200) % 4
INDEPENDENT = np.random.default_rng(0).integers(0, 4, 200)


def test_a_modality_that_decides_alone_has_every_flip():
    features = {"audio": one_hot(LABELS), "video": one_hot(INDEPENDENT)}
    found = measure(features, LABELS, lambda f: 5 * f["audio"] + 0 * f["video"])

    assert found["acc"] == 1.0
    unheard = {key: found["m"]["video"][key] for key in ("flip", "drop", "drop_nll", "alone")}
    assert unheard == {"flip": 0.0, "drop": 0.0, "drop_nll": 0.0, "alone": 0.25}
    assert found["m"]["audio"]["drop_nll"] > 1
    assert 0.65 < found["m"]["audio"]["flip"] < 0.85
    assert found["m"]["audio"]["drop"] == pytest.approx(found["m"]["audio"]["flip"])
    assert found["m"]["audio"]["alone"] == 1.0
    assert found["chance"] == 0.25


def test_arrays_of_both_libraries_give_the_same_numbers():
    features = {"audio": one_hot(LABELS), "video": one_hot(INDEPENDENT)}
    tensors = {m: torch.from_numpy(z) for m, z in features.items()}

    def fuse(f):
        return 2 * f["audio"] + 1.5 * f["video"]

    assert measure(features, LABELS, fuse) == measure(tensors, torch.from_numpy(LABELS), fuse)


def test_three_modalities_are_measured_one_by_one():
    features = {name: one_hot(LABELS) for name in "abc"}
    found = measure(features, LABELS, lambda f: f["a"] + f["b"] + f["c"])

    assert set(found["m"]) == {"a", "b", "c"}
    assert all(row["flip"] == 0.0 for row in found["m"].values())


def test_a_fusion_with_dropout_answers_as_in_evaluation_and_stays_in_training():
    torch.manual_seed(0)
    head = nn.Sequential(nn.Dropout(0.9), nn.Linear(4, 4))
    features = {"a": torch.from_numpy(one_hot(LABELS)).float()}

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = head

        def fuse(self, f):
            assert not torch.is_grad_enabled()
            return self.head(f["a"])

    model = Model()
    first = measure(features, LABELS, model.fuse)

    assert first == measure(features, LABELS, model.fuse)
    assert head.training
    assert head[0].training


@pytest.mark.parametrize(
    ("labels", "fuse", "words"),
    [
        (LABELS[:10], lambda f: f["a"], "10 labels"),
        (LABELS, lambda f: f["a"][:, 0], "shape"),
        (LABELS - 100, lambda f: f["a"], "a label is -100"),
    ],
)
def test_what_does_not_fit_is_refused(labels, fuse, words):
    with pytest.raises(RequestError, match=words):
        measure({"a": one_hot(LABELS)}, labels, fuse)


def test_an_empty_split_has_no_numbers():
    found = measure({"a": np.zeros((0, 3))}, np.zeros(0), lambda f: f["a"])
    assert found == {"n": 0, "chance": None, "m": {"a": {}}}


def test_the_effective_rank_tells_a_dead_encoder():
    random = np.random.default_rng(0)
    assert effective_rank(np.full((300, 8), 3.0)) == 0.0
    assert effective_rank(random.normal(size=(300, 1)) @ np.ones((1, 8))) == pytest.approx(1.0)
    assert 7.5 < effective_rank(random.normal(size=(300, 8))) <= 8
    assert effective_rank(torch.randn(300, 5, 8)) > 6
    assert effective_rank(torch.randn(300, 8, 3, 3)) > 6
    assert np.isnan(effective_rank(np.full((3, 2), np.nan)))


def test_a_probe_learns_what_is_in_features_of_any_scale():
    random = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 3, (3000,), generator=random)
    rows = 1000 + 1e-3 * (3 * torch.eye(8)[labels] + torch.randn(3000, 8, generator=random))
    probes = Probes(3)
    for at in range(0, 2000, 50):
        probes.train("a", rows[at : at + 50], labels[at : at + 50])
    judged = probes.judge({"a": rows[2000:], "unseen": rows[2000:]}, labels[2000:])

    assert set(judged) == {"a"}
    assert judged["a"]["probe"] > 0.9
    trained = probes.take_trained()["a"]
    assert 0.5 < trained["acc"] <= 1
    assert probes.take_trained() == {}


def test_a_probe_sends_no_gradient_and_works_without_gradients():
    features = torch.randn(4, 5, requires_grad=True)
    probes = Probes(2)
    with torch.inference_mode():
        probes.train("a", features * 2, torch.tensor([0, 1, 0, 1]))
    probes.train("a", features * 2, torch.tensor([0, 1, 0, 1]))

    assert features.grad is None


def test_tokens_and_places_are_averaged_to_one_vector():
    assert pooled(torch.zeros(2, 7, 5)).shape == (2, 5)
    assert pooled(torch.zeros(2, 5, 3, 3)).shape == (2, 5)
    assert pooled(torch.zeros(2, 5)).shape == (2, 5)


def test_a_probe_steps_as_autograd_and_adam_would():
    random = torch.Generator().manual_seed(0)
    rows = torch.randn(64, 5, generator=random, dtype=torch.float32)
    labels = torch.randint(0, 3, (64,), generator=random)
    reference = nn.Linear(5, 3)
    nn.init.zeros_(reference.weight)
    nn.init.zeros_(reference.bias)
    optimizer = torch.optim.Adam(reference.parameters(), 5e-3)
    probes = Probes(3)
    scaled = (rows - rows.mean(0)) / (rows.var(0, correction=0) * (1 + 1e-5)).sqrt()
    for _ in range(20):
        said = probes.train("a", rows, labels)
        loss = nn.functional.cross_entropy(reference(scaled), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert float(said["nll"]) == pytest.approx(loss.item(), abs=1e-4)


def test_a_probe_outlives_a_batch_that_is_not_finite():
    probes = Probes(2)
    probes.train("a", torch.full((4, 3), float("nan")), torch.tensor([0, 1, 0, 1]))
    random = torch.Generator().manual_seed(0)
    for _ in range(300):
        labels = torch.randint(0, 2, (64,), generator=random)
        rows = torch.randn(64, 3, generator=random) + 4 * labels[:, None]
        probes.train("a", rows, labels)
    assert probes.judge({"a": rows}, labels)["a"]["probe"] > 0.9
