"""G2D: distillation from unimodal teachers, and one modality at a time leads."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from mmtool.errors import RequestError
from mmtool.methods import g2d
from mmtool.methods._base import ModelFacts, StepContext
from mmtool.methods._scores import mean_scores
from mmtool.types import Batch, Outputs

NAMES = ("audio", "image", "text")
FACTS = ModelFacts(NAMES, 2, dict.fromkeys(NAMES, 3), "concat", torch.device("cpu"))


class Recorded:
    """Remembers factors instead of scaling gradients."""

    def __init__(self):
        self.factors = {}
        self.kinds = set()

    def scale(self, group, factor, kind="all"):
        self.factors[group] = float(factor)
        self.kinds.add(kind)


def context(epoch=0, epochs=4, **stats):
    return StepContext(NAMES, 2, epoch, 0, epochs, 1, torch.Generator(), stats=stats)


def made(**options):
    method = g2d.Method(g2d.Options(**options))
    method.setup(FACTS)
    return method


def sample(present=None):
    kept = torch.ones(2, 3, dtype=torch.bool) if present is None else torch.tensor(present)
    return Batch({}, {}, kept, torch.tensor([0, 1]), torch.arange(2), NAMES)


def outputs():
    torch.manual_seed(0)
    return Outputs(
        {m: torch.randn(2, 3) for m in NAMES},
        torch.randn(2, 2),
        teacher_features={m: torch.randn(2, 3) for m in NAMES},
        teacher_logits={m: torch.randn(2, 2) for m in NAMES},
    )


def test_the_weakest_leads_and_then_the_next():
    scores = torch.tensor([0.7, 0.2, 0.4])

    assert g2d.leading(scores, 0).tolist() == [0, 1, 0]
    assert g2d.leading(scores, 1).tolist() == [0, 0, 1]


def test_equal_scores_go_by_name_and_absent_ones_come_last():
    assert g2d.leading(torch.tensor([0.5, 0.5]), 0).tolist() == [1, 0]
    assert g2d.leading(torch.tensor([torch.nan, 0.9]), 0).tolist() == [0, 1]


@given(st.lists(st.floats(0, 1, width=32), min_size=2, max_size=5), st.randoms())
def test_who_leads_depends_on_scores_and_not_on_their_order_or_scale(values, random):
    scores = torch.tensor(sorted(set(values)))
    if len(scores) < 2:
        return
    order = list(range(len(scores)))
    random.shuffle(order)

    led = g2d.leading(scores, 0)
    shuffled = g2d.leading(scores[order] * 0.5, 0)

    assert float(led.sum()) == 1.0
    assert torch.equal(led[order], shuffled)


def test_two_modalities_are_the_released_rule():
    # The teacher with the higher score is put to zero.
    assert g2d.leading(torch.tensor([0.6, 0.3]), 0).tolist() == [0, 1]
    assert [g2d.leading_turn(e, 300, 1, 0.5) for e in (0, 149, 150)] == [0, 0, None]


def test_turns_divide_the_first_share_of_the_epochs():
    turns = [g2d.leading_turn(e, 12, 2, 0.5) for e in range(12)]

    assert turns == [0, 0, 0, 1, 1, 1] + [None] * 6
    assert g2d.leading_turn(0, 4, 2, 0.0) is None
    assert [g2d.leading_turn(e, 4, 2, 1.0) for e in range(4)] == [0, 0, 1, 1]


@given(st.integers(1, 40), st.integers(1, 4), st.floats(0, 1))
def test_a_turn_always_names_a_modality(epochs, num_turns, share):
    for epoch in range(epochs):
        turn = g2d.leading_turn(epoch, epochs, num_turns, share)
        assert turn is None or 0 <= turn < num_turns


def test_the_encoders_that_do_not_lead_get_no_gradient():
    stats = {
        "teacher_score": torch.tensor([1.5, 0.4, 0.9]),
        "teacher_score_count": torch.tensor([2.0, 2.0, 1.0]),  # 0.75, 0.2, 0.9
    }
    first, last, conv = Recorded(), Recorded(), Recorded()

    made().edit_grads(first, context(0, **stats))
    made().edit_grads(last, context(3, **stats))
    made(parameters="conv").edit_grads(conv, context(0, **stats))

    assert first.factors == {"audio": 0.0, "image": 1.0, "text": 0.0}
    assert first.kinds == {"all"}
    assert last.factors == {}
    assert conv.kinds == {"conv"}


def test_scores_are_the_teachers_and_add_up_over_parts_of_a_batch():
    method, found, whole = made(), outputs(), sample([[True, True, True], [True, False, True]])
    stats = method.statistics(found, whole, context())

    scores = mean_scores({n.removeprefix("teacher_"): s for n, s in stats.items()})
    expected = found.teacher_logits["image"].softmax(1)[0, 0]  # the one sample that has it
    assert float(scores[1]) == pytest.approx(float(expected))
    assert stats["teacher_score_count"].tolist() == [2, 1, 2]


def test_the_loss_is_the_weighted_sum_of_its_three_kinds():
    method, found = made(features=2.0, logits=3.0), outputs()
    terms = method.losses(found, sample(), context())
    total = method.compose({n: t.sum() for n, t in terms.items()}, context())

    features = sum(
        ((found.features[m] - found.teacher_features[m]) ** 2).mean(1).sum() for m in NAMES
    )
    p, q = found.logits.softmax(1), {m: found.teacher_logits[m].softmax(1) for m in NAMES}
    logits = sum((q[m] * (q[m] / p).log()).sum() for m in NAMES)
    fused = -p[torch.arange(2), torch.tensor([0, 1])].log().sum()
    assert float(total) == pytest.approx(float(fused + 2 * features + 3 * logits), rel=1e-5)


def test_a_missing_modality_teaches_nothing():
    terms = made().losses(outputs(), sample([[True, False, True]] * 2), context())

    assert terms["feature.image"].tolist() == [0.0, 0.0]
    assert terms["logit.image"].tolist() == [0.0, 0.0]
    assert bool((terms["feature.audio"] > 0).all())


def test_what_is_weighted_zero_is_not_computed():
    terms = made(features=0.0, logits=0.0).losses(outputs(), sample(), context())

    assert list(terms) == ["fused"]
    assert made(features=0.0).asked().teachers
    assert not made(features=0.0).asked().teacher_width
    assert made().asked().teacher_width


def test_options_that_make_no_sense_are_refused():
    for wrong in ({"share": 1.5}, {"temperature": 0.0}, {"features": -1.0}, {"parameters": "no"}):
        with pytest.raises(ValidationError):
            g2d.Options(**wrong)


def test_a_recipe_may_say_who_leads():
    stats = {
        "teacher_score": torch.tensor([1.5, 0.4, 0.9]),
        "teacher_score_count": torch.tensor([2.0, 2.0, 2.0]),
    }
    first, second = Recorded(), Recorded()
    method = made(order=("text", "audio"), share=1.0)

    method.edit_grads(first, context(0, 2, **stats))
    method.edit_grads(second, context(1, 2, **stats))

    assert first.factors == {"audio": 0.0, "image": 0.0, "text": 1.0}
    assert second.factors == {"audio": 1.0, "image": 0.0, "text": 0.0}


@pytest.mark.parametrize("order", [("audio", "audio"), ("smell",)])
def test_an_order_of_other_modalities_is_refused(order):
    with pytest.raises(RequestError, match="no order of modalities") as caught:
        made(order=order)
    assert "method.order=audio" in caught.value.fix
