import pytest
import torch
from torch.nn.functional import cross_entropy

from mmtool.engine.build import build_job
from mmtool.engine.distributed import Ranks
from mmtool.errors import RequestError
from mmtool.methods._base import ModelFacts, StepContext
from mmtool.methods.unimodal import Method, Options
from mmtool.testing.cases import Case, contract_recipe, write_contract_store
from mmtool.testing.training import train_here, weights
from mmtool.types import Batch, Outputs

NAMES = ("audio", "image")


def made(modality):
    method = Method(Options(modality=modality))
    facts = ModelFacts(NAMES, 3, dict.fromkeys(NAMES, 4), "concat", torch.device("cpu"))
    method.setup(facts)
    return method


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    path = tmp_path_factory.mktemp("store")
    write_contract_store(path / "fake")
    return path


def test_only_the_chosen_encoder_and_classifier_run_and_step():
    (step,) = made("image").plan_step(StepContext(NAMES, 3, 0, 0, 1, 1, torch.Generator()))

    assert (step.modalities, step.groups) == (("image",), ("image",))


def test_loss_and_prediction_are_those_of_the_one_classifier():
    torch.manual_seed(1)
    present = torch.tensor([[True, True], [True, False]])
    batch = Batch({}, {}, present, torch.tensor([0, 2]), torch.arange(2), NAMES)
    outputs = Outputs({}, torch.randn(2, 3), {m: torch.randn(2, 3) for m in NAMES})
    ctx = StepContext(NAMES, 3, 0, 0, 1, 1, torch.Generator())

    terms = made("image").losses(outputs, batch, ctx)

    full = cross_entropy(outputs.unimodal["image"], batch.label, reduction="none")
    assert list(terms) == ["image"]
    torch.testing.assert_close(terms["image"], full * present[:, 1])
    assert torch.equal(made("image").predict(outputs), outputs.unimodal["image"])


def test_everything_else_keeps_its_first_weights(root, tmp_path):
    case = Case({"modality": "motion"}, train={"epochs": 1, "select": "last"})
    recipe = contract_recipe("unimodal", case)
    after = train_here(recipe, data_root=root, checkpoints=tmp_path)
    job = build_job(recipe, Ranks(), data_root=root)
    before = weights(job)
    job.close()

    moved = {
        n
        for n in before
        if not torch.equal(before[n], after[n])
        and not n.startswith(("probes.", "feature_mean.", "feature_count"))
    }
    assert moved
    assert all(n.startswith(("encoders.motion.", "heads.motion.")) for n in moved)


def test_an_unknown_modality_is_refused_with_the_closest_one():
    with pytest.raises(RequestError, match="'imge'") as caught:
        made("imge")
    assert caught.value.where == "method.modality"
    assert "image" in str(caught.value.fix)


def test_among_several_the_modality_has_to_be_named():
    with pytest.raises(RequestError) as caught:
        made(None)

    assert caught.value.fix == "-s method.modality=audio"
