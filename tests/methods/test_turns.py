"""What methods that train modalities in turn share, and what stands still between turns."""

import torch

from mmtool.engine.build import build_job
from mmtool.engine.distributed import Ranks
from mmtool.engine.loop import fit
from mmtool.engine.stop import StopRequest
from mmtool.methods._turns import has_any, own_weight
from mmtool.testing.cases import Case, contract_recipe, write_contract_store
from mmtool.testing.training import ignore
from mmtool.types import Batch


def test_samples_count_that_have_one_of_the_modalities_by_their_weight():
    has = torch.tensor([[True, False, True], [False, True, False], [False, False, True]])
    label = torch.zeros(3, dtype=torch.int64)
    names, weight = ("audio", "image", "motion"), torch.tensor([0.5, 2.0, 4.0])
    plain = Batch({}, {}, has, label, torch.arange(3), names)
    weighted = Batch({}, {}, has, label, torch.arange(3), names, weight)

    assert has_any(plain, ("audio", "image")).tolist() == [True, True, False]
    assert float(own_weight(plain, ("audio", "image"))) == 2.0
    assert float(own_weight(weighted, ("audio", "image"))) == 2.5
    assert float(own_weight(weighted, ("motion",))) == 4.5


def test_whose_turn_it_is_not_stands_still_with_its_batch_norm_and_momentum(tmp_path):
    root = tmp_path / "data"
    write_contract_store(root / "fake")
    encoder = {"name": "cnn", "width": 4, "norm": "batch"}
    encoders = {"audio": {"name": "mlp", "hidden": (16,)}, "image": encoder}
    case = Case({}, "shared", ("audio", "image"), encoders, {"select": "last"})
    job = build_job(contract_recipe("mla", case), Ranks(), data_root=root)
    seen = []

    class Watched(type(job.method)):
        def end_step(self, ctx):
            seen.append(of_image())
            super().end_step(ctx)

        def plan_step(self, ctx):
            return super().plan_step(ctx)[:1]  # the turn of audio alone

    def of_image():
        state = {n: v.clone() for n, v in job.model.encoders["image"].state_dict().items()}
        buffers = [job.optimizer.state[p]["momentum_buffer"] for _, p in job.groups["image"]]
        return {**state, **{str(n): b.clone() for n, b in enumerate(buffers)}}

    before = of_image()
    job.method.__class__ = Watched
    try:
        fit(job, emit=ignore, checkpoints=tmp_path, stop=StopRequest(), is_resumed=False)
    finally:
        job.close()
    assert any(n.endswith("running_mean") for n in before)
    assert seen
    assert all(torch.equal(before[n], state[n]) for state in seen for n in before)
