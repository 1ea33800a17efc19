"""A training step never waits for the device: exactly no host reads, whatever the recipe says."""

from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mmtool import registry
from mmtool.config.schema import Augment
from mmtool.data.samplers import rank_share, shuffled
from mmtool.engine.between_epochs import begin_epoch
from mmtool.engine.build import build_job
from mmtool.engine.distributed import Ranks
from mmtool.engine.loop import Fit, run_step
from mmtool.engine.metriclog import MetricLog
from mmtool.engine.saving import Saver
from mmtool.engine.stop import StopRequest
from mmtool.engine.timing import PhaseClock
from mmtool.testing.cases import Case, case_of, contract_recipe, write_contract_store
from mmtool.testing.host_reads import watch_host_reads
from mmtool.testing.training import ignore

METHODS = registry.names("methods")
SHAPES = ("alternating", "per_term", "epochal", "penalised")
SHAPES_FILE = Path(__file__).parents[1] / "contract" / "control_shapes.py"
FUSIONS = registry.names("fusion")
MOST_OPERATORS = 700
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    path = tmp_path_factory.mktemp("host-sync")
    write_contract_store(path / "fake")
    return path


def recipe(method="none", fusion=None, modalities=None, encoders=None, **train):
    case = Case({"shape": method}) if method in SHAPES else case_of(method)
    case = replace(
        case,
        encoders={**(encoders or case.encoders), "image": {"name": "cnn", "width": 4}},
        fusion=fusion or case.fusion,
        modalities=modalities or case.modalities,
    )
    made = contract_recipe(f"{SHAPES_FILE}" if method in SHAPES else method, case, **train)
    image = Augment(size=6, crop_scale=(0.3, 1.0), flip=True)
    return made.model_copy(
        update={"data": made.data.model_copy(update={"augment": {"image": image}})}
    )


@contextmanager
def steps_of(recipe, root, device=CPU, num_steps=2):
    """Run all but the last step, and give a function that runs the last one."""
    job = build_job(recipe, Ranks(device=device), data_root=root)
    run = Fit(
        job,
        ignore,
        root / "ckpt",
        StopRequest(),
        MetricLog(PhaseClock(device)),
        Saver(job, root / "ckpt", ignore),
    )
    begin_epoch(job)
    visits = shuffled(job.train_visits(), seed=0, epoch=0)
    config = recipe.train
    shares = (
        rank_share(visits, step, batch_size=config.batch_size, micro_batches=config.accumulate)
        for step in range(num_steps)
    )
    loaded = list(job.loader.run(shares, epoch=0))
    try:
        for share in loaded[:-1]:
            run_step(run, share, 10)
        yield lambda: run_step(run, loaded[-1], 10)
    finally:
        job.close()


def reads_of(recipe, root):
    with steps_of(recipe, root) as step, watch_host_reads() as found:
        step()
    return found


def test_the_walks_find_methods_and_fusions():
    assert len(METHODS) >= 5
    assert len(FUSIONS) >= 4


@pytest.mark.parametrize("method", [*METHODS, *SHAPES])
def test_a_step_of_every_method_reads_nothing_back(method, root):
    found = reads_of(recipe(method), root)

    assert found.reads == []
    assert found.num_operators > 50


FITTING = {"film": {"modalities": ("audio", "image")}, "shared": "mla", "mmtm": "greedy"}


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("method", ["ogm", "multi_loss"])
def test_a_step_through_every_fusion_reads_nothing_back(method, fusion, root):
    fitting = FITTING.get(fusion, {})
    if isinstance(fitting, str):  # a method whose case has encoders that this fusion can join
        case = case_of(fitting)
        fitting = {"modalities": case.modalities, "encoders": case.encoders}

    assert reads_of(recipe(method, fusion, **fitting), root).reads == []


@pytest.mark.parametrize(
    "train",
    [
        {"precision": "bf16"},
        {"precision": "fp16"},
        {"clip_norm": 1.0, "accumulate": 3},
        {"optimizer": "adamw", "schedule": "cosine", "warmup_epochs": 0.5},
    ],
    ids=lambda train: "-".join(f"{v}" for v in train.values()),
)
def test_a_step_with_every_kind_of_optimisation_reads_nothing_back(train, root):
    assert reads_of(recipe("ogm", **train), root).reads == []


@pytest.mark.parametrize("method", METHODS)
def test_a_step_launches_few_operators(method, root):
    modalities = ("audio", "image")
    found = reads_of(recipe(method, modalities=modalities), root)

    assert found.num_operators <= MOST_OPERATORS, found.operators.most_common(20)


@pytest.mark.parametrize(
    "read",
    [
        lambda x: x.sum().item(),
        lambda x: x.tolist(),
        lambda x: bool(x.sum() > 0),
        lambda x: float(x.sum()),
        lambda x: x.numpy(),
        lambda x: x.cpu(),
        lambda x: x[x > 0],
        lambda x: x.nonzero(),
        lambda x: torch.where(x > 0),
        lambda x: x.new_tensor([1.0, 2.0]),
        lambda x: torch.tensor([1.0], device=x.device),
        lambda x: x.masked_select(x > 0),
        lambda x: x.unique(),
        lambda x: "big" if x.max() > 2 else "small",
        lambda x: f"{x.sum():.2f}",
    ],
)
def test_the_watch_sees_what_would_wait(read):
    with watch_host_reads() as found:
        read(torch.arange(4.0))

    assert found.reads
    assert "test_host_sync.py" in found.reads[0]


def test_the_watch_lets_device_arithmetic_pass():
    values = torch.arange(6.0).view(2, 3)
    with watch_host_reads() as found:
        torch.where(values > 1, values, 0.0).sum().clamp_min(1e-12).sqrt()

    assert found.reads == []
    assert found.num_operators >= 4


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("method", [*METHODS, *SHAPES])
def test_a_gpu_is_never_waited_for(method, root):
    device = torch.device("cuda", 0)
    with steps_of(recipe(method), root, device) as step:
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
