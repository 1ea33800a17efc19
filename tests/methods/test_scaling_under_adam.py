"""A constant factor on gradients does nothing under Adam; on the update it is a learning rate."""

from functools import cache
from pathlib import Path

import pytest
import torch

from mmtool.engine.build import build_job
from mmtool.engine.distributed import Ranks
from mmtool.testing.cases import Case, contract_recipe, write_contract_store
from mmtool.testing.training import train_here, weights

FACTOR = 0.25


@cache
def store_root():
    import tempfile

    root = Path(tempfile.mkdtemp(prefix="mmtool-scaling-"))
    write_contract_store(root / "fake")
    return root


def recipe(optimizer, method="mslr", **options):
    lr = {"sgd": 0.02, "adamw": 0.003}[optimizer]
    train = {"optimizer": optimizer, "lr": lr, "weight_decay": 0.01, "select": "last"}
    return contract_recipe(method, Case(options, train=train))


@cache
def trained(optimizer, factor, apply):
    """Weights after two epochs in which the image encoder is scaled by a constant."""
    import tempfile

    folder = Path(tempfile.mkdtemp(prefix="mmtool-scaling-"))
    options = {"variant": "static", "coefficients": {"image": factor}, "apply": apply}
    return train_here(recipe(optimizer, **options), data_root=store_root(), checkpoints=folder)


@cache
def untrained(optimizer):
    job = build_job(recipe(optimizer), Ranks(), data_root=store_root())
    try:
        return weights(job)
    finally:
        job.close()


def image_of(state):
    return torch.cat([v.flatten() for n, v in state.items() if n.startswith("encoders.image.")])


def departure(optimizer, apply):
    """How far the factor moves the image encoder, relative to how far training moves it."""
    plain, start = image_of(trained(optimizer, 1.0, apply)), image_of(untrained(optimizer))
    scaled = image_of(trained(optimizer, FACTOR, apply))
    return float((scaled - plain).norm() / (plain - start).norm())


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_adam_cancels_a_constant_factor_on_the_gradient():
    assert departure("adamw", "gradient") < 0.001


def test_adam_does_not_cancel_a_factor_on_the_update():
    assert departure("adamw", "update") > 0.5


@pytest.mark.parametrize("apply", ["gradient", "update"])
def test_under_sgd_both_ways_of_scaling_slow_the_encoder_down(apply):
    assert departure("sgd", apply) > 0.5


def test_scaling_the_update_scales_how_far_the_encoder_moves():
    start = image_of(untrained("adamw"))
    moved = [(image_of(trained("adamw", f, "update")) - start).norm() for f in (1.0, FACTOR)]

    assert float(moved[1] / moved[0]) == pytest.approx(FACTOR, rel=0.35)


def warnings_of(optimizer, method, **options):
    job = build_job(recipe(optimizer, method, **options), Ranks(), data_root=store_root())
    job.close()
    return job.warnings


@pytest.mark.parametrize("method", ["ogm", "mlb", "mslr", "cggm"])
def test_a_factor_that_adam_cancels_is_warned_of_with_the_option_that_helps(method):
    (warning,) = warnings_of("adamw", method, apply="gradient")

    assert "AdamW cancels" in warning
    assert "-s method.apply=update" in warning
    assert warnings_of("adamw", method, apply="update") == ()
    assert warnings_of("sgd", method, apply="gradient") == ()


def test_opm_is_warned_of_only_where_it_modulates_gradients():
    assert warnings_of("adamw", "opm") == ()
    (warning,) = warnings_of("adamw", "opm", ogm={"apply": "gradient"})
    assert "-s method.ogm.apply=update" in warning
    assert warnings_of("adamw", "opm", ogm={"apply": "update"}) == ()


@pytest.mark.parametrize("method", ["none", "multi_loss", "mses", "mmpareto", "amss", "inforeg"])
def test_methods_without_a_factor_are_not_warned_of(method):
    assert warnings_of("adamw", method) == ()
