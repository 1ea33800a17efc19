"""Inner products between gradients: exact, the same on any number of ranks, and without a trace."""

from contextlib import closing
from pathlib import Path

import pytest
import torch

from mmtool.data.samplers import Visits, rank_share
from mmtool.engine.between_epochs import epoch_context
from mmtool.engine.build import build_job
from mmtool.engine.distributed import Ranks
from mmtool.errors import Bug, RequestError
from mmtool.methods.lfm import gap, mean_logits
from mmtool.testing.cases import Case, contract_recipe, write_contract_store
from mmtool.testing.fakes import FakeModality, write_fake_store
from mmtool.testing.ranks import run_ranks
from mmtool.testing.training import train_here, weights

ALL = 1000
LEARNED = Case({"schedule": "learned", "samples": 12})
WITH_NORM = {
    "audio": {"name": "mlp", "hidden": (4,)},
    "image": {"name": "cnn", "width": 4, "norm": "batch"},
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("products")
    write_contract_store(folder / "fake")
    return folder


def recipe(case=LEARNED, **train):
    return contract_recipe("lfm", case, **train)


def job_of(root, case=LEARNED, ranks=None, **train):
    job = build_job(recipe(case, **train), ranks or Ranks(), data_root=Path(root))
    take_trained(job)
    return job


def take_trained(job):
    """Move weights away from their start, where some gradients are nearly zero."""
    torch.manual_seed(5)
    with torch.no_grad():
        for name, parameter in sorted(job.model.named_parameters()):
            parameter.add_(0.2 * torch.randn_like(parameter))
            assert name


def numbers(found):
    return torch.cat([found.products.reshape(-1), found.first_norms, found.second_norms])


def losses_of_split(job, split):
    """Mean losses over a whole split, in one batch and written out."""
    rows = job.dataset.rows(split)
    share = rank_share(Visits(rows), 0, batch_size=len(rows))
    job.model.eval()
    with closing(job.loader.run([share], epoch=None)) as loaded:
        ((batch,),) = [share.batches for share in loaded]
        logits = list(job.model.unimodal(job.model.encode(batch), trained=True).values())
        mean = mean_logits(logits, batch.present)
        fused = torch.nn.functional.cross_entropy(mean, batch.label)
        return {"fused": fused, "gap": gap(logits, batch.present).mean()}


def gradient(loss, parameters):
    found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]


def inner(one, other):
    return sum(float((a.double() * b.double()).sum()) for a, b in zip(one, other, strict=True))


def test_products_are_those_of_the_mean_gradients_of_both_splits(root):
    job = job_of(root)
    found = epoch_context(job).gradient_products("train", "val", ALL)
    parameters = [p for g in job.gradients.names() for _, p in job.groups[g]]
    train, val = losses_of_split(job, "train"), losses_of_split(job, "val")
    first = {n: gradient(train[n], parameters) for n in train}
    second = {n: gradient(val[n], parameters) for n in val}
    job.close()

    assert found.names == ("fused", "gap")
    for j, one in enumerate(found.names):
        assert float(found.first_norms[j]) == pytest.approx(
            inner(first[one], first[one]) ** 0.5, rel=1e-4
        )
        assert float(found.second_norms[j]) == pytest.approx(
            inner(second[one], second[one]) ** 0.5, rel=1e-4
        )
        for k, other in enumerate(found.names):
            expected = inner(first[one], second[other])
            assert float(found.products[j, k]) == pytest.approx(expected, rel=1e-3, abs=1e-7)


def test_a_product_tells_what_one_step_on_one_loss_does_to_the_other_split(root):
    job = job_of(root)
    found = epoch_context(job).gradient_products("train", "val", ALL)
    parameters = [p for g in job.gradients.names() for _, p in job.groups[g]]
    for k, name in enumerate(found.names):
        step = gradient(losses_of_split(job, "train")[name], parameters)
        held = []
        for eta in (-1e-2, 2e-2, -1e-2):  # to one side, to the other, and back
            with torch.no_grad():
                for p, g in zip(parameters, step, strict=True):
                    p.sub_(eta * g)
            held.append(float(losses_of_split(job, "val")["fused"].detach()))
        slope = (held[1] - held[0]) / 2e-2
        assert slope == pytest.approx(-float(found.products[k, 0]), rel=2e-2, abs=1e-4)
    job.close()


@pytest.mark.parametrize("train", [{"batch_size": 7}, {"accumulate": 3}])
def test_neither_batches_nor_micro_batches_matter(root, train):
    whole, cut = job_of(root), job_of(root, **train)
    one = epoch_context(whole).gradient_products("train", "val", 20)
    other = epoch_context(cut).gradient_products("train", "val", 20)
    whole.close()
    cut.close()

    torch.testing.assert_close(numbers(one), numbers(other), rtol=1e-4, atol=1e-7)


def write_numbers(ranks: Ranks, root: str, out: str) -> None:
    """Compare gradients on these ranks; called in each rank process."""
    job = job_of(root, ranks=ranks)
    found = epoch_context(job).gradient_products("train", "val", 20)
    torch.save(numbers(found), f"{out}/rank{ranks.rank}.pt")
    job.close()


def test_every_rank_gets_the_numbers_of_one_process(root, tmp_path):
    run_ranks(2, f"{Path(__file__)}:write_numbers", str(root), str(tmp_path))
    first, second = (torch.load(tmp_path / f"rank{rank}.pt") for rank in range(2))
    job = job_of(root)
    alone = numbers(epoch_context(job).gradient_products("train", "val", 20))
    job.close()

    assert torch.equal(first, second)
    torch.testing.assert_close(first, alone, rtol=1e-4, atol=1e-7)


def test_training_is_untouched(root):
    case = Case(LEARNED.options, modalities=("audio", "image"), encoders=WITH_NORM)
    job = job_of(root, case)
    job.model.train()
    for parameter in job.model.parameters():
        parameter.grad = torch.ones_like(parameter)
    before, random = weights(job), torch.get_rng_state()
    assert any(name.endswith("running_mean") for name in before)

    epoch_context(job).gradient_products("train", "val", 20)
    after = weights(job)
    job.close()

    assert all(torch.equal(before[name], after[name]) for name in before)
    assert torch.equal(random, torch.get_rng_state())
    assert all(bool((p.grad == 1).all()) for p in job.model.parameters())
    assert all(module.training for module in job.model.modules())


def test_the_same_samples_are_compared_every_time(root):
    job = job_of(root)
    first = numbers(epoch_context(job).gradient_products("train", "val", 9))
    job.progress.epoch, job.progress.step = 1, 4
    again = numbers(epoch_context(job).gradient_products("train", "val", 9))
    job.close()

    assert torch.equal(first, again)


def test_one_split_twice_gives_samples_that_have_none_in_common(root):
    job = job_of(root)
    found = epoch_context(job).gradient_products("train", "train", 10)
    job.close()

    # Equal samples would make the products the squares of the norms.
    assert not torch.allclose(found.products.diagonal(), found.first_norms.square())
    assert not torch.allclose(found.first_norms, found.second_norms)


def test_a_method_that_did_not_ask_is_told_so(root):
    job = build_job(contract_recipe("none"), Ranks(), data_root=root)
    with pytest.raises(Bug, match="gradient_products"):
        epoch_context(job).gradient_products("train", "val", 4)
    job.close()


def test_a_dataset_without_held_out_samples_is_refused_before_training(tmp_path):
    modalities = {m: FakeModality((6,), "spectrogram") for m in ("audio", "image")}
    write_fake_store(tmp_path / "fake", modalities, splits={"train": 20, "test": 8})
    case = Case(
        LEARNED.options,
        encoders={m: {"name": "mlp", "hidden": (4,)} for m in modalities},
        train={"select": "last"},
    )
    with pytest.raises(RequestError, match="held-out"):
        build_job(recipe(case), Ranks(), data_root=tmp_path)
    options = {**case.options, "held_out": "train"}
    from_train = Case(options, encoders=case.encoders, train=case.train)

    train_here(recipe(from_train), data_root=tmp_path, checkpoints=tmp_path / "ckpt")


@pytest.mark.parametrize("sync", ["fsdp", "ddp"])
def test_ways_to_synchronise_that_would_give_other_gradients_are_refused(root, sync):
    plain = recipe()
    launch = plain.launch.model_copy(update={"sync": sync, "gpus": 2})
    with pytest.raises(RequestError, match=sync) as caught:
        build_job(plain.model_copy(update={"launch": launch}), Ranks(), data_root=root)
    assert caught.value.fix == "-s launch.sync=explicit"
