"""Linear readouts of cached features, on problems whose best answer is known."""

import math

import pytest
import torch

from mmtool.engine.deep.readouts import Lesson
from mmtool.engine.deep.record import LEAST_GAIN, Judge, masked, target_variance


def features(n=300, dim=4, seed=0):
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed))


def lesson(label, task="single_label", outputs=2, group=None):
    group = torch.arange(len(label)) if group is None else group
    return Lesson(label, group, task, outputs, seed=0)


def everybody(x):
    return torch.ones(len(x), dtype=torch.bool)


def test_separable_features_are_read_out_without_an_error():
    x = features()
    label = (x[:, 0] + x[:, 1] > 0).long()
    x[:, 0] += torch.where(label > 0, 1.0, -1.0)

    assert (lesson(label).fit(x, everybody(x))(x).argmax(1) == label).all()


def test_scale_and_offset_of_features_make_no_difference():
    x = features()
    label = (x[:, 0] > 0.3).long()
    plain = lesson(label).fit(x, everybody(x))(x)
    moved = 1e-3 * x + torch.tensor([5.0, -3.0, 0.0, 100.0]) * 1e-2
    other = lesson(label).fit(moved, everybody(x))(moved)

    assert (plain.argmax(1) == other.argmax(1)).float().mean() > 0.99


def test_features_that_say_nothing_give_the_share_of_each_class():
    generator = torch.Generator().manual_seed(1)
    label = (torch.rand(2000, generator=generator) < 0.2).long()
    x = features(2000, 3, seed=2)
    chance = lesson(label).fit(x, everybody(x))(x).softmax(1)[:, 1]

    assert chance.mean() == pytest.approx(float(label.float().mean()), abs=0.01)
    assert chance.std() < 0.05


def test_dead_features_are_no_trouble():
    x = torch.full((100, 3), 0.1)
    label = (torch.arange(100) % 4 == 0).long()
    logits = lesson(label).fit(x, everybody(x))(x)

    assert torch.isfinite(logits).all()
    assert logits.softmax(1)[:, 1].tolist() == pytest.approx([0.25] * 100, abs=0.01)


def test_a_linear_target_is_met_by_least_squares():
    x = features()
    label = (x @ torch.tensor([1.0, -2.0, 0.5, 0.0]) + 7.0)[:, None]
    said = lesson(label, "regression", 1).fit(x, everybody(x))(x)

    assert float((said - label).square().mean()) < 1e-4 * float(label.var())


def test_each_of_several_labels_is_read_out():
    x = features()
    label = torch.stack([x[:, 0] > 0, x[:, 1] > 0.5], 1).float()
    said = lesson(label, "multi_label").fit(x, everybody(x))(x) > 0

    assert (said == (label > 0.5)).float().mean() > 0.97


def test_samples_without_the_modality_teach_nothing():
    x = features()
    label = (x[:, 0] > 0).long()
    has = torch.arange(300) < 200
    wrong = torch.where(has, label, 1 - label)
    poisoned = torch.where(has[:, None], x, float("nan"))

    expected = lesson(label[:200], group=torch.arange(200)).fit(x[:200], everybody(x[:200]))
    found = lesson(wrong).fit(poisoned, has)
    assert torch.allclose(found(x), expected(x), atol=1e-5)
    assert lesson(label).fit(x, torch.arange(300) < 5) is None


def test_the_same_features_give_the_same_readout():
    x, label = features(), (features(seed=5)[:, 0] > 0).long()
    first, again = (lesson(label).fit(x, everybody(x)) for _ in range(2))

    assert torch.equal(first.weight, again.weight)


def test_noise_is_shrunk_more_strongly_than_a_signal():
    x = features(60, 40)
    clear, noise = (x[:, 0] > 0).long(), torch.arange(60) % 2
    norms = [float(lesson(y).fit(x, everybody(x)).weight.norm()) for y in (clear, noise)]

    assert norms[1] < 0.5 * norms[0]


def test_marks_are_those_of_the_contract():
    logits = torch.tensor([[2.0, 0.0], [0.0, 40.0]])
    judge = Judge(torch.tensor([0, 0]), "single_label", torch.ones(1))
    marks = judge.marks(logits)

    assert marks["right"].tolist() == [1.0, 0.0]
    assert marks["answer"].tolist() == [0, 1]
    assert marks["gain"][0] == pytest.approx(-math.log(1 + math.exp(-2)))
    assert marks["gain"][1] == pytest.approx(LEAST_GAIN)
    assert marks["conf"].tolist() == pytest.approx([1 / (1 + math.exp(-2)), 1.0])


def test_several_labels_are_right_by_their_share():
    judge = Judge(torch.tensor([[1.0, 0.0]]), "multi_label", torch.ones(1))
    marks = judge.marks(torch.tensor([[3.0, 1.0]]))

    assert marks["right"].tolist() == [0.5]
    assert set(marks) == {"right", "gain", "conf"}
    assert marks["gain"][0] == pytest.approx(
        -(math.log1p(math.exp(-3)) + math.log1p(math.exp(1))) / 2, rel=1e-5
    )


def test_a_regression_is_marked_by_squared_errors():
    label = torch.tensor([[1.0], [3.0]])
    judge = Judge(label, "regression", target_variance(label, "regression"))
    marks = judge.marks(torch.tensor([[1.5], [1.0]]))

    assert marks["right"].tolist() == [0.25, 4.0]
    assert marks["gain"].tolist() == [-0.25, -4.0]
    assert set(marks) == {"right", "gain"}


def test_what_is_not_known_is_marked_so():
    known = torch.tensor([True, False])
    found = masked(
        {"right": torch.ones(2), "answer": torch.tensor([1, 1], dtype=torch.int32)}, known
    )

    assert found["answer"].tolist() == [1, -1]
    assert found["answer"].dtype == torch.int32
    assert math.isnan(found["right"][1])
