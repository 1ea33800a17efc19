from pathlib import Path

import pytest
import torch

from mmtool.engine.distributed import Ranks
from mmtool.engine.gradient_sync import GradientSync
from mmtool.engine.grads import Gradients, total_norm
from mmtool.testing.ranks import run_ranks


def gradients(*shapes: tuple[int, ...], seed: int = 0) -> Gradients:
    generator = torch.Generator().manual_seed(seed)
    members = []
    for number, shape in enumerate(shapes):
        parameter = torch.nn.Parameter(torch.zeros(shape))
        parameter.grad = torch.randn(shape, generator=generator)
        members.append((f"p{number}", parameter))
    return Gradients({"audio": members, "fusion": []}, torch.Generator().manual_seed(1))


def test_scaling_multiplies_only_the_kind_asked_for():
    grads = gradients((4, 3, 3, 3), (5, 4), (6,))
    before = [g.clone() for g in grads.tensors("audio")]

    grads.scale("audio", torch.tensor(0.25), "conv")
    grads.apply_edits()

    after = grads.tensors("audio")
    assert torch.equal(after[0], before[0] * 0.25)
    assert torch.equal(after[1], before[1])
    assert torch.equal(after[2], before[2])


def test_noise_has_the_deviation_of_the_gradient_before_scaling():
    grads = gradients((400, 300))
    before = grads.tensors("audio")[0].clone()

    grads.scale("audio", torch.tensor(0.0))
    grads.add_noise("audio", torch.tensor(1.0))
    grads.apply_edits()

    noise = grads.tensors("audio")[0]
    assert noise.std().item() == pytest.approx(before.std().item(), rel=0.01)
    assert noise.mean().abs().item() < 0.02


def test_the_same_generator_seed_gives_the_same_noise():
    results = []
    for _ in range(2):
        grads = gradients((8, 8))
        grads.add_noise("audio", torch.tensor(1.0))
        grads.apply_edits()
        results.append(grads.tensors("audio")[0])

    assert torch.equal(*results)


def test_a_tensor_of_one_element_gets_no_noise():
    grads = gradients((1,))
    before = grads.tensors("audio")[0].clone()

    grads.add_noise("audio", torch.tensor(1.0))
    grads.apply_edits()

    assert torch.equal(grads.tensors("audio")[0], before)


def test_scaled_update_moves_that_fraction_of_the_way():
    grads = gradients((3, 3))
    parameter = grads.parameters("audio")[0]
    grads.scale_update("audio", torch.tensor(0.25))

    remembered = grads.begin_updates()
    with torch.no_grad():
        parameter += 8.0
    grads.finish_updates(remembered)

    assert torch.allclose(parameter, torch.full((3, 3), 2.0))


def test_edits_of_a_step_do_not_reach_the_next():
    grads = gradients((2, 2))
    grads.scale("audio", torch.tensor(0.0))
    grads.forget_edits()
    before = grads.tensors("audio")[0].clone()

    grads.apply_edits()

    assert torch.equal(grads.tensors("audio")[0], before)


def test_norm_is_that_of_all_tensors_together():
    grads = gradients((4, 3), (5,))
    flat = torch.cat([g.reshape(-1) for g in grads.tensors("audio")])

    assert torch.allclose(grads.norm("audio"), flat.norm())
    assert total_norm([], torch.device("cpu")) == 0


def test_noise_is_drawn_in_memory_order_whatever_the_layout():
    plain, other = gradients((8, 4, 3, 3)), gradients((8, 4, 3, 3))
    parameter = other.parameters("audio")[0]
    parameter.data = parameter.data.to(memory_format=torch.channels_last)
    parameter.grad = plain.tensors("audio")[0].to(memory_format=torch.channels_last)
    before = plain.tensors("audio")[0].clone()

    for grads in (plain, other):
        grads.add_noise("audio", torch.tensor(1.0))
        grads.apply_edits()
    noise = [grads.tensors("audio")[0] - before for grads in (plain, other)]

    assert not other.tensors("audio")[0].is_contiguous()
    assert torch.allclose(noise[0].flatten(), noise[1].permute(0, 2, 3, 1).flatten(), atol=1e-6)


def sum_in_two_layouts(ranks: Ranks, overlap: str) -> None:
    """Sum gradients that lie in memory differently on each rank; called in each rank process."""
    convolution = torch.nn.Conv2d(3, 5, 3).to(memory_format=torch.channels_last)
    members = list(convolution.named_parameters())
    sync = GradientSync(ranks, {"audio": members}, overlap=overlap == "overlap")
    values = torch.arange(135.0).reshape(5, 3, 3, 3)
    layout = torch.channels_last if ranks.rank else torch.contiguous_format
    sync.begin()
    convolution.weight.grad = (values * (1 + ranks.rank)).contiguous(memory_format=layout)
    sync.agree([False])
    sync.sum_({})

    assert torch.equal(convolution.weight.grad, 3 * values)
    assert convolution.bias.grad is None


@pytest.mark.slow
@pytest.mark.parametrize("way", ["explicit", "overlap"])
def test_ranks_may_hold_gradients_in_different_layouts(way):
    run_ranks(2, f"{Path(__file__)}:sum_in_two_layouts", way)
