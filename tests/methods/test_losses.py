"""Methods that only choose losses: none and multi_loss."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from mmtool.errors import RequestError
from mmtool.methods import multi_loss, none
from mmtool.methods._base import ModelFacts, StepContext
from mmtool.types import Batch, Outputs

NAMES = ("audio", "image")
CONTEXT = StepContext(NAMES, 3, 0, 0, 1, 1, torch.Generator())
FACTS = ModelFacts(NAMES, 3, dict.fromkeys(NAMES, 4), "concat", torch.device("cpu"))


def sample():
    torch.manual_seed(2)
    present = torch.tensor([[True, True], [True, False], [False, True], [True, True]])
    batch = Batch({}, {}, present, torch.tensor([0, 1, 2, 1]), torch.arange(4), NAMES)
    outputs = Outputs({}, torch.randn(4, 3), {m: torch.randn(4, 3) for m in NAMES})
    return outputs, batch


def multi(**options):
    method = multi_loss.Method(multi_loss.Options(**options))
    method.setup(FACTS)
    return method


def test_joint_training_is_the_cross_entropy_of_the_fused_logits():
    outputs, batch = sample()
    terms = none.Method(none.Options()).losses(outputs, batch, CONTEXT)

    assert list(terms) == ["fused"]
    expected = cross_entropy(outputs.logits, batch.label, reduction="none")
    torch.testing.assert_close(terms["fused"], expected)


def test_a_sample_counts_in_the_losses_of_the_modalities_it_has():
    outputs, batch = sample()
    terms = multi().losses(outputs, batch, CONTEXT)

    assert list(terms) == ["fused", "audio", "image"]
    for position, modality in enumerate(NAMES):
        full = cross_entropy(outputs.unimodal[modality], batch.label, reduction="none")
        torch.testing.assert_close(terms[modality], full * batch.present[:, position])


def test_the_loss_is_the_weighted_sum_of_the_terms():
    method = multi(weight=0.5, weights={"image": 2.0})
    terms = {"fused": torch.tensor(1.0), "audio": torch.tensor(3.0), "image": torch.tensor(5.0)}

    assert float(method.compose(terms, CONTEXT)) == 1.0 + 0.5 * 3.0 + 2.0 * 5.0


def test_a_weight_for_an_unknown_modality_is_refused():
    with pytest.raises(RequestError, match="'video'") as caught:
        multi(weights={"video": 1.0})
    assert caught.value.where == "method.weights"
