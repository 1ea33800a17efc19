"""Features taken from modules by name, and the fusion asked again as the model asks it."""

import pytest
import torch
from torch import nn

import mmtool.log
from mmtool.errors import RequestError
from mmtool.runlog.reader import load_run
from mmtool.testing.small_problem import CLASSES, TwoEncoders, small_problem

ENCODERS = {"audio": "enc.audio", "video": "enc.video"}


class Mixed(nn.Module):
    """Encoders whose outputs reach the fusion in the way that is asked for."""

    def __init__(self, way):
        super().__init__()
        self.way = way
        self.a = nn.Linear(12, 6)
        self.v = nn.Linear(12, 6)
        self.fusion = Fusion()

    def forward(self, audio, video):
        za, zv = self.a(audio), self.v(video)
        match self.way:
            case "arguments":
                return self.fusion(za, other=zv)
            case "list":
                return self.fusion([zv, za])
            case "mapping":
                return self.fusion({"v": zv, "a": za})
            case "concat":
                return self.fusion(torch.cat([zv, za], dim=-1))
            case "stack":
                return self.fusion(torch.stack([za, zv], dim=1))
            case _:
                return self.fusion(za + zv)


class Fusion(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(12, CLASSES)

    def forward(self, first, other=None):
        if isinstance(first, dict):
            parts = [first["a"], first["v"]]
        elif isinstance(first, list):
            parts = first
        else:
            parts = [first.flatten(1)] if other is None else [first, other]
        joined = torch.cat(parts, dim=-1)
        return self.head(nn.functional.pad(joined, (0, 12 - joined.shape[-1])))


@pytest.mark.parametrize("way", ["arguments", "list", "mapping", "concat", "stack"])
def test_the_fusion_answers_as_the_model_does_however_it_is_given_features(way):
    torch.manual_seed(0)
    model = Mixed(way).eval()
    audio, video, label = small_problem(20)
    watched = mmtool.log.wrap(model, encoders={"audio": "a", "video": "v"}, fusion="fusion")
    expected = model(audio, video)
    watched.collect(label)

    assert torch.allclose(watched.fuse(watched.features), expected)
    swapped = {**watched.features, "video": watched.features["video"].flip(0)}
    assert torch.allclose(watched.fuse(swapped), model(audio, video.flip(0)), atol=1e-6)


def test_a_fusion_of_something_else_is_refused_with_the_way_out():
    model = Mixed("sum")
    watched = mmtool.log.wrap(model, encoders={"audio": "a", "video": "v"}, fusion="fusion")
    audio, video, label = small_problem(20)
    model(audio, video)

    for log in (watched.collect, lambda label: watched.log_step(None, label)):
        with pytest.raises(RequestError, match="not made of the encoders' outputs") as caught:
            log(label)
    assert "fuse=" in caught.value.fix


def test_an_unknown_module_is_refused_with_a_suggestion():
    with pytest.raises(RequestError, match=r"enc\.audoi") as caught:
        mmtool.log.wrap(TwoEncoders(), encoders={"audio": "enc.audoi"})
    assert "enc.audio" in caught.value.why


def test_a_wrapped_model_is_logged_up_to_flip_rates_and_probes(tmp_path):
    torch.manual_seed(0)
    model = TwoEncoders()
    watched = mmtool.log.wrap(model, encoders=ENCODERS, fusion="head")
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    data, held_out = small_problem(512, seed=1), small_problem(300, seed=2)
    with mmtool.log.start(
        tmp_path / "mine", modalities=list(ENCODERS), classes=CLASSES, system=False
    ) as run:
        for number in range(24):
            audio, video, label = (t[64 * (number % 8) :][:64] for t in data)
            with run.step(number, n=64, epoch=number // 8):
                loss = nn.functional.cross_entropy(model(audio, video), label)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                watched.log_step(run, label)
            if number % 8 == 7:
                for at in range(0, 300, 100):
                    audio, video, label = (t[at : at + 100] for t in held_out)
                    model(audio, video)
                    watched.collect(label)
                watched.log_epoch(run, number // 8, loss=0.5)
    watched.close()
    tables = load_run(tmp_path / "mine")
    val = tables.epoch_modalities[tables.epoch_modalities["split"] == "val"]

    assert tables.epochs[tables.epochs["split"] == "val"]["n"].tolist() == [300] * 3
    assert tables.epochs[tables.epochs["split"] == "val"]["loss"].tolist() == [0.5] * 3
    assert len(val) == 6
    assert val["flip"].iloc[-1] > 0.2
    assert val["probe"].iloc[-1] > 0.7
    assert (tables.step_modalities["forward_ms"] > 0).all()
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_without_a_fusion_there_are_probes_and_no_flip_rates(tmp_path):
    model = TwoEncoders()
    watched = mmtool.log.wrap(model, encoders=ENCODERS)
    audio, video, label = small_problem(64)
    with mmtool.log.start(
        tmp_path / "mine", modalities=list(ENCODERS), classes=CLASSES, system=False
    ) as run:
        with run.step(0, n=64):
            model(audio, video)
            watched.log_step(run, label)
        model(audio, video)
        watched.collect(label)
        watched.log_epoch(run, 0)
    val = load_run(tmp_path / "mine").epoch_modalities
    val = val[val["split"] == "val"]

    assert val["probe"].notna().all()
    assert val["flip"].isna().all()
