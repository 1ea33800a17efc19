"""Compiled encoders train to the weights of eager ones, and what broke a graph is told."""

import pytest
import torch

from mmtool.config.schema import Recipe
from mmtool.engine.build import build_job
from mmtool.engine.compiled import CompiledEncoders
from mmtool.engine.distributed import Ranks
from mmtool.errors import RequestError
from mmtool.testing.fakes import FakeModality, write_fake_store
from mmtool.testing.training import train_here


@pytest.fixture
def root(tmp_path):
    modalities = {
        "audio": FakeModality((6,), "spectrogram"),
        "image": FakeModality((1, 8, 8), "frames"),
    }
    write_fake_store(tmp_path / "fake", modalities, splits={"train": 40, "val": 20, "test": 20})
    return tmp_path


def recipe(**launch):
    return Recipe.model_validate(
        {
            "data": {"dataset": "fake"},
            "model": {"encoders": {"audio": "mlp", "image": {"name": "cnn", "width": 4}}},
            "train": {"epochs": 1, "batch_size": 20, "lr": 0.05},
            "launch": launch,
        }
    )


def compile_with(backend, monkeypatch):
    """Let `launch.compile` use another backend than inductor."""

    def build(model, *, is_used):
        return CompiledEncoders(model, is_used=is_used, backend=backend)

    monkeypatch.setattr("mmtool.engine.build.CompiledEncoders", build)
    torch._dynamo.reset()


def trained(root, **launch):
    told = []

    def emit(kind, **fields):
        if fields.get("what") == "compile":
            told.append(fields)

    weights = train_here(
        recipe(**launch), data_root=root, checkpoints=root / f"{launch}", emit=emit
    )
    return weights, told


def assert_same(found, wanted):
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert torch.allclose(found[name], value, atol=1e-5), name


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_compiled_encoders_train_to_the_eager_weights(root, monkeypatch):
    eager, nothing_told = trained(root)
    compile_with("aot_eager", monkeypatch)
    compiled, told = trained(root, compile=True)

    assert_same(compiled, eager)
    assert nothing_told == []
    assert len(told) == 1
    assert told[0]["graphs"] >= 2
    assert told[0]["graph_breaks"] == 0


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_inductor_gives_the_eager_features_and_gradients(root):
    job = build_job(recipe(), Ranks(), data_root=root)
    (batch,) = next(iter(job.loader.run([_first_share(job)], epoch=None))).batches
    encoder = job.model.encoders["audio"]

    def features_and_gradients():
        features = encoder(batch.inputs["audio"])
        return features, *torch.autograd.grad(features.square().sum(), encoder.parameters())

    eager = [value.detach() for value in features_and_gradients()]
    torch._dynamo.reset()
    CompiledEncoders(job.model, is_used=True)
    compiled = features_and_gradients()

    pairs = zip(compiled, eager, strict=True)
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in pairs)
    job.close()


def test_a_graph_break_is_counted_with_its_reason(root):
    job = build_job(recipe(), Ranks(), data_root=root)
    encoder = job.model.encoders["audio"]
    original = encoder.forward

    def forward(x, lengths=None):
        torch._dynamo.graph_break()
        return original(x, lengths)

    encoder.forward = forward
    torch._dynamo.reset()
    compiled = CompiledEncoders(job.model, is_used=True, backend="eager")
    assert compiled.report() is None

    (batch,) = next(iter(job.loader.run([_first_share(job)], epoch=None))).batches
    job.model.encode(batch)
    report = compiled.report()

    assert report is not None
    assert report.num_breaks >= 1
    assert "1x" in report.as_fields()["message"]
    assert compiled.report() is None
    job.close()


def _first_share(job):
    from mmtool.data.samplers import rank_share

    return rank_share(job.train_visits(), 0, batch_size=4)


def test_sharded_encoders_are_not_compiled(root):
    with pytest.raises(RequestError, match="sharded"):
        build_job(recipe(compile=True, sync="fsdp"), Ranks(), data_root=root)
