"""Step hooks read nothing back to the host: meta tensors have no values to read."""

from unittest.mock import create_autospec

import pytest
import torch

from mmtool import registry
from mmtool.methods._base import ModelFacts, StepContext
from mmtool.types import Batch, GradGroups, Outputs

META = torch.device("meta")
NAMES = ("audio", "image", "motion")
METHODS = registry.names("methods")


def gradients():
    """One matrix per group; takes every edit."""
    edited = create_autospec(GradGroups, instance=True)
    edited.names.return_value = (*NAMES, "fusion")
    edited.tensors.return_value = [zeros(4, 4, 3, 3)]
    return edited


def zeros(*shape, dtype=torch.float32):
    return torch.zeros(*shape, dtype=dtype, device=META)


def test_the_walk_finds_the_methods():
    assert len(METHODS) >= 5


def allowed_numbers():
    for name in METHODS:
        fewest = registry.load("methods", name).Method.needs.min_modalities
        yield from ((name, num) for num in range(fewest, 4))


@pytest.mark.parametrize(("name", "num"), list(allowed_numbers()))
def test_no_step_hook_reads_a_device_value(name, num):
    module = registry.load("methods", name)
    method = module.Method(module.Options())
    names = NAMES[:num]
    method.setup(ModelFacts(names, 3, dict.fromkeys(names, 4), "concat", META))
    ctx = StepContext(names, 3, 20, 0, 30, 10, torch.Generator().manual_seed(1))
    batch = Batch(
        inputs={},
        lengths={},
        present=zeros(8, num, dtype=torch.bool),
        label=zeros(8, dtype=torch.int64),
        index=zeros(8, dtype=torch.int64),
        modalities=names,
        weight=zeros(8),
    )

    for _ in range(2):  # the second step starts from the state of the first
        features = method.edit_features({m: zeros(8, 4) for m in names}, batch, ctx)
        outputs = Outputs(features, zeros(8, 3), {m: zeros(8, 3) for m in names})
        terms = method.losses(outputs, batch, ctx)
        assert all(term.shape == (8,) for term in terms.values())
        assert method.compose({n: t.sum() for n, t in terms.items()}, ctx).dim() == 0
        ctx.stats = method.statistics(outputs, batch, ctx)
        grads = gradients()
        method.edit_grads(grads, ctx)
        edits = (grads.scale, grads.scale_update, grads.add_noise)
        assert all(call.args[1].dim() == 0 for edit in edits for call in edit.call_args_list)
        method.end_step(ctx)

    assert all(value.dim() == 0 for value in ctx.metrics.values())
