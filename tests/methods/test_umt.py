"""UMT: each encoder's features are pulled towards those of a model of its modality alone."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from mmtool.methods import umt
from mmtool.methods._base import StepContext
from mmtool.methods._teachers import answer_distance, feature_distance
from mmtool.types import Batch, Outputs

NAMES = ("audio", "image")
CONTEXT = StepContext(NAMES, 2, 0, 0, 1, 1, torch.Generator())
finite = st.floats(-5, 5, width=32)


def batch(present):
    return Batch({}, {}, torch.tensor(present), torch.tensor([0, 1]), torch.arange(2), NAMES)


def terms_of(present, features, targets, **options):
    method = umt.Method(umt.Options(**options))
    outputs = Outputs(features, torch.zeros(2, 2), teacher_features=targets)
    terms = method.losses(outputs, batch(present), CONTEXT)
    return method, terms


def test_the_distance_is_the_mean_square_over_dimensions():
    student = torch.tensor([[1.0, 2.0], [0.0, 0.0]])
    teacher = torch.tensor([[0.0, 4.0], [3.0, 1.0]])

    # Squares 1 and 4, then 9 and 1, each halved.
    assert feature_distance(student, teacher).tolist() == [2.5, 5.0]


def test_the_loss_adds_weighted_distances_of_samples_that_have_the_modality():
    features = {"audio": torch.tensor([[1.0], [2.0]]), "image": torch.tensor([[0.0], [0.0]])}
    targets = {"audio": torch.zeros(2, 1), "image": torch.tensor([[2.0], [1.0]])}
    present = [[True, False], [True, True]]

    method, terms = terms_of(present, features, targets, weight=3.0)
    total = method.compose({name: term.sum() for name, term in terms.items()}, CONTEXT)

    assert terms["audio"].tolist() == [1.0, 4.0]
    assert terms["image"].tolist() == [0.0, 1.0]
    assert terms["fused"].tolist() == pytest.approx([0.693147, 0.693147])
    assert float(total) == pytest.approx(2 * 0.693147 + 3 * (1 + 4 + 0 + 1))


def test_only_the_student_gets_a_gradient():
    features = {m: torch.ones(2, 3, requires_grad=True) for m in NAMES}
    targets = {m: torch.zeros(2, 3) for m in NAMES}

    method, terms = terms_of([[True, True], [False, True]], features, targets, weight=1.0)
    method.compose({name: term.sum() for name, term in terms.items()}, CONTEXT).backward()

    # d/df mean (f - t)^2 = 2 f / 3 for three dimensions, nothing where the modality is missing
    assert torch.allclose(features["audio"].grad, torch.tensor([[2 / 3] * 3, [0.0] * 3]))
    assert torch.allclose(features["image"].grad, torch.full((2, 3), 2 / 3))


def test_a_student_that_has_arrived_pays_nothing_more():
    features = {m: torch.randn(2, 3) for m in NAMES}

    method, terms = terms_of([[True, True]] * 2, features, features)
    total = method.compose({name: term.sum() for name, term in terms.items()}, CONTEXT)

    assert float(total) == pytest.approx(float(terms["fused"].sum()))


def test_half_precision_features_are_compared_in_float32():
    student = torch.full((2, 4), 300.0, dtype=torch.float16)

    assert feature_distance(student, torch.zeros(2, 4)).tolist() == [90000.0, 90000.0]


def test_what_makes_no_sense_is_refused():
    with pytest.raises(ValidationError):
        umt.Options(weight=-1.0)
    assert umt.Options().teachers == {}
    assert umt.Method.needs.teachers
    assert umt.Method.needs.teacher_width


@given(st.lists(st.tuples(finite, finite), min_size=2, max_size=6), st.floats(0.5, 8))
def test_answers_equal_to_the_teachers_have_no_distance_and_others_have(pairs, temperature):
    logits = torch.tensor([[a for a, _ in pairs]])
    other = torch.tensor([[b for _, b in pairs]])

    for task in ("single_label", "multi_label", "regression"):
        same = answer_distance(logits, logits, task, temperature)
        assert float(same) == pytest.approx(0.0, abs=1e-5)
        assert float(answer_distance(logits, other, task, temperature)) >= -1e-5


def test_the_distance_of_answers_is_the_divergence_times_the_squared_temperature():
    student, teacher = torch.zeros(1, 2), torch.tensor([[2.0 * 1.0986123, 0.0]])  # 2 log 3

    # At T = 2 the teacher says 3/4, 1/4: 3/4 log(3/2) + 1/4 log(1/2), times 4
    found = answer_distance(student, teacher, "single_label", 2.0)
    assert float(found) == pytest.approx(4 * (0.75 * 0.405465 - 0.25 * 0.693147), abs=1e-5)


def test_answers_to_several_questions_are_compared_one_by_one():
    student, teacher = torch.zeros(1, 2), torch.tensor([[1.0986123, 0.0]])  # 3/4 and 1/2

    found = answer_distance(student, teacher, "multi_label")
    assert float(found) == pytest.approx((0.75 * 0.405465 - 0.25 * 0.693147) / 2, abs=1e-5)
    assert float(answer_distance(student, teacher, "regression")) == pytest.approx(1.206949 / 2)
