import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from mmtool.engine.build import build_job
from mmtool.engine.distributed import Ranks
from mmtool.methods._base import ModelFacts, StepContext
from mmtool.methods._separate import own_factors
from mmtool.methods.ume import Method, Options, combined
from mmtool.testing.cases import Case, contract_recipe, write_contract_store
from mmtool.testing.training import train_here, weights
from mmtool.types import Batch, Outputs

NAMES = ("audio", "image")
EVERYONE = torch.ones(2, 4, dtype=torch.bool)


def context():
    return StepContext(NAMES, 3, 0, 0, 1, 1, torch.Generator())


def made(task="single_label", **options):
    method = Method(Options(**options))
    dims = dict.fromkeys(NAMES, 4)
    method.setup(ModelFacts(NAMES, 3, dims, "concat", torch.device("cpu"), task))
    return method


def sample():
    torch.manual_seed(2)
    present = torch.tensor([[True, True], [True, False], [False, True], [True, True]])
    batch = Batch({}, {}, present, torch.tensor([0, 1, 2, 1]), torch.arange(4), NAMES)
    unimodal = {m: torch.randn(4, 3) for m in NAMES}
    return Outputs({}, torch.randn(4, 3), unimodal, present=present), batch


def test_the_prediction_adds_log_probabilities():
    audio = torch.tensor([[math.log(0.7), math.log(0.2), math.log(0.1)]])
    image = torch.tensor([[math.log(0.2), math.log(0.6), math.log(0.2)]]) + 5.0

    found = combined(torch.stack([audio, image]), torch.ones(2, 1).bool(), "single_label")

    products = [0.7 * 0.2, 0.2 * 0.6, 0.1 * 0.2]
    assert found[0].exp().tolist() == pytest.approx(products)
    assert int(found.argmax()) == 0


def test_probabilities_or_logits_can_be_averaged_instead():
    logits = torch.tensor([[[0.0, math.log(3)]], [[math.log(3), 0.0]]])
    everyone = torch.ones(2, 1).bool()

    by_probability = combined(logits, everyone, "single_label", "probabilities")
    by_logit = combined(logits, everyone, "single_label", "logits")

    assert by_probability[0].exp().tolist() == pytest.approx([0.5, 0.5])
    assert by_logit[0].tolist() == pytest.approx([math.log(3) / 2] * 2)


@pytest.mark.parametrize("task", ["multi_label", "regression"])
def test_other_tasks_average_the_outputs_of_what_a_sample_has(task):
    logits = torch.tensor([[[1.0, 2.0], [1.0, 2.0]], [[3.0, 6.0], [3.0, 6.0]]])
    present = torch.tensor([[True, True], [True, False]])

    assert combined(logits, present, task).tolist() == [[2.0, 4.0], [1.0, 2.0]]


@settings(deadline=None)
@given(st.sampled_from(["log_probabilities", "probabilities", "logits"]), st.integers(1, 4))
def test_a_sample_is_answered_by_what_it_has_alone(combine, count):
    torch.manual_seed(count)
    logits = torch.randn(count, 5, 3)
    present = torch.zeros(count, 5, dtype=torch.bool)
    present[0] = True

    found = combined(logits, present, "single_label", combine)

    torch.testing.assert_close(found.softmax(1), logits[0].softmax(1))


def test_a_sample_with_nothing_gets_no_opinion():
    for combine in ("log_probabilities", "probabilities", "logits"):
        found = combined(torch.randn(2, 1, 3), torch.zeros(2, 1).bool(), "single_label", combine)
        assert (found == found[0, 0]).all()
        assert bool(found.isfinite().all())


@settings(deadline=None)
@given(st.permutations(range(3)))
def test_the_order_of_modalities_does_not_matter(order):
    torch.manual_seed(0)
    logits, present = torch.randn(3, 4, 5), torch.rand(3, 4) > 0.4

    torch.testing.assert_close(
        combined(logits[order], present[order], "single_label"),
        combined(logits, present, "single_label"),
    )


def test_the_fused_logits_are_not_used():
    outputs, batch = sample()
    method = made()

    assert set(method.losses(outputs, batch, context())) == set(NAMES)
    assert method.plan_step(context())[0].groups == NAMES
    changed = Outputs({}, outputs.logits + 9, outputs.unimodal, present=outputs.present)
    assert torch.equal(method.predict(changed), method.predict(outputs))


def test_without_a_word_about_presence_every_modality_is_there():
    outputs, _ = sample()
    everything = Outputs({}, outputs.logits, outputs.unimodal)
    total = sum(z.log_softmax(1) for z in outputs.unimodal.values())

    torch.testing.assert_close(made().predict(everything), total)


def test_a_sample_counts_in_the_loss_of_the_modalities_it_has():
    outputs, batch = sample()
    terms = made().losses(outputs, batch, context())

    for position, modality in enumerate(NAMES):
        full = cross_entropy(outputs.unimodal[modality], batch.label, reduction="none")
        torch.testing.assert_close(terms[modality], full * batch.present[:, position])


def test_gradients_become_means_over_the_samples_that_have_the_modality():
    factors = own_factors(torch.tensor([20.0, 5.0, 0.0]), torch.tensor(20.0))

    assert factors.tolist() == [1.0, 4.0, 1.0]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    path = tmp_path_factory.mktemp("store")
    write_contract_store(path / "fake")
    return path


def trained(name, root, folder, **options):
    case = Case(options, train={"select": "last", "epochs": 1})
    return train_here(contract_recipe(name, case), data_root=root, checkpoints=folder)


@pytest.mark.parametrize("modality", ["audio", "image", "motion"])
def test_one_run_is_the_same_as_a_run_per_modality(modality, root, tmp_path):
    together = trained("ume", root, tmp_path / "ume")
    alone = trained("unimodal", root, tmp_path / "one", modality=modality)

    names = [n for n in together if n.startswith((f"encoders.{modality}.", f"heads.{modality}."))]
    assert names
    for name in names:
        torch.testing.assert_close(alone[name], together[name], atol=1e-6, rtol=1e-5)


def test_the_fusion_keeps_its_first_weights(root, tmp_path):
    after = trained("ume", root, tmp_path)
    job = build_job(contract_recipe("ume"), Ranks(), data_root=root)
    before = weights(job)
    job.close()

    names = [n for n in before if n.startswith("fusion.")]
    assert names
    assert all(torch.equal(before[n], after[n]) for n in names)
