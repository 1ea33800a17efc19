"""What a method may read beside gradients, and what it may put in their place."""

import torch

from mmtool.engine.grads import Gradients

START = "epoch_start"


def gradients():
    """Audio has a convolution, a matrix that no loss reaches, a matrix and a bias."""
    generator = torch.Generator().manual_seed(0)
    members = []
    for number, shape in enumerate([(4, 3, 3, 3), (2, 2), (5, 4), (6,)]):
        parameter = torch.nn.Parameter(torch.randn(shape, generator=generator))
        if number != 1:
            parameter.grad = torch.randn(shape, generator=generator)
        members.append((f"p{number}", parameter))
    moment = {f"audio@{START}": [p.detach() + 1 for _, p in members]}
    return Gradients({"audio": members, "fusion": []}, snapshots=moment)


def test_values_and_snapshots_belong_to_the_gradients_one_for_one():
    grads = gradients()
    for kind, shapes in (
        ("all", [(4, 3, 3, 3), (5, 4), (6,)]),
        ("matrix", [(4, 3, 3, 3), (5, 4)]),
        ("conv", [(4, 3, 3, 3)]),
    ):
        values, earlier = grads.values("audio", kind), grads.snapshot("audio", START, kind)
        assert [tuple(g.shape) for g in grads.tensors("audio", kind)] == shapes
        assert [tuple(v.shape) for v in values] == shapes
        for now, before in zip(values, earlier, strict=True):
            torch.testing.assert_close(before - now, torch.ones_like(now))
            assert not now.requires_grad


def test_what_is_put_in_place_is_there_after_the_edits_and_not_before():
    grads = gradients()
    before = [g.clone() for g in grads.tensors("audio")]
    others = [torch.full_like(g, 2.0) for g in grads.tensors("audio", "matrix")]

    grads.replace("audio", others, "matrix")
    assert all(torch.equal(g, b) for g, b in zip(grads.tensors("audio"), before, strict=True))
    assert grads.are_replaced
    grads.apply_edits()

    after = grads.tensors("audio")
    assert all(bool((g == 2).all()) for g in after[:2])
    assert torch.equal(after[2], before[2])


def test_a_factor_acts_on_what_was_put_in_place():
    grads = gradients()
    grads.scale("audio", torch.tensor(0.5))
    grads.replace("audio", [torch.full_like(g, 2.0) for g in grads.tensors("audio")])

    grads.apply_edits()

    assert all(bool((g == 1).all()) for g in grads.tensors("audio"))


def test_the_next_step_knows_nothing_of_what_was_put_in_place():
    grads = gradients()
    grads.replace("audio", [torch.zeros_like(g) for g in grads.tensors("audio")])
    grads.forget_edits()
    before = [g.clone() for g in grads.tensors("audio")]

    grads.apply_edits()

    assert not grads.are_replaced
    assert all(torch.equal(g, b) for g, b in zip(grads.tensors("audio"), before, strict=True))
