"""Phases and encoders of a step: on the host's clock, and on a device whose time the test moves."""

from contextlib import contextmanager

import pytest
import torch
from torch import nn

from mmtool.config.schema import Recipe
from mmtool.engine.marks import DeviceMarks
from mmtool.engine.operators import count_operators
from mmtool.engine.timing import COUNTED_STEP, PHASES, PhaseClock
from mmtool.testing.cases import Case, contract_recipe, write_contract_store
from mmtool.testing.training import train_here

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


class Device:
    """A queue of work with a clock of its own; events are reached when its work is done."""

    def __init__(self):
        self.host = self.free_at = 0.0
        self.num_made = 0

    def launch(self, ms, *, host_ms=0.0):
        """Give the device so much work, which costs the host less."""
        self.free_at = max(self.free_at, self.host) + ms
        self.host += host_ms

    def wait(self, ms):
        self.host += ms

    def event(self):
        self.num_made += 1
        return Event(self)


class Event:
    def __init__(self, device):
        self.device = device
        self.at = None

    def record(self):
        self.at = max(self.device.free_at, self.device.host)
        self.device.free_at = self.at

    def query(self):
        return self.device.host >= self.at

    def elapsed_time(self, last):
        if not (self.query() and last.query()):
            raise RuntimeError("not ready")
        return last.at - self.at


class Clock(PhaseClock):
    """The clock under test, whose host time is that of the device of the test."""

    def __init__(self, device, monkeypatch):
        super().__init__(GPU, DeviceMarks(device.event))
        self.device = device
        monkeypatch.setattr("time.perf_counter", lambda: device.host / 1e3)

    @contextmanager
    def step(self, *, data=0.0, transfer=0.0):
        self.device.wait(data + transfer)
        self.begin_step(data_ms=data, transfer_ms=transfer)
        yield
        self.end_step()


@pytest.fixture
def device():
    return Device()


@pytest.fixture
def clock(device, monkeypatch):
    return Clock(device, monkeypatch)


def test_a_wait_that_the_device_does_not_see_costs_nothing(device, clock):
    for _ in range(2):
        with clock.step(data=8.0), clock.phase("forward"):
            device.launch(100.0, host_ms=1.0)
    device.wait(1000.0)
    first, second = clock.read()

    assert (first["data"], "queue_empty" in first) == (8.0, False)
    assert (second["data"], second["queue_empty"]) == (0.0, False)
    assert second["forward"] == second["step"] == 100.0


def test_a_device_that_ran_dry_waits_for_what_it_was_not_given(device, clock):
    for _ in range(2):
        with clock.step(data=30.0), clock.phase("forward"):
            device.launch(10.0, host_ms=1.0)
    device.wait(1000.0)
    second = clock.read()[1]

    assert second["queue_empty"] is True
    # The host waited 30 ms for the batch, of which the device was still busy for 9.
    assert second["data"] == pytest.approx(21.0)
    assert second["step"] == pytest.approx(31.0)


def test_what_the_loop_does_between_steps_is_told_apart_from_the_wait_for_data(device, clock):
    for _ in range(2):
        with clock.step(data=5.0, transfer=1.0), clock.phase("backward"):
            device.launch(10.0, host_ms=10.0)
        device.wait(40.0)
    second = clock.read()[1]

    assert (second["data"], second["between"], second["transfer"]) == pytest.approx((5, 40, 1))
    assert second["step"] == pytest.approx(16)


def test_steps_that_the_device_has_not_come_to_are_never_waited_for(device, clock):
    with clock.step(data=1.0), clock.phase("forward"):
        device.launch(500.0, host_ms=2.0)
    (step,) = clock.read()

    assert step["forward"] == 0.0
    assert step["step"] == pytest.approx(3.0)


def test_events_are_used_again_once_they_were_read(device, clock):
    for _ in range(50):
        with clock.step(), clock.phase("forward"), clock.encoder("audio"):
            device.launch(3.0, host_ms=3.0)
        clock.read()

    assert device.num_made <= 9


def test_the_same_step_is_read_right_when_its_events_were_used_before(device, clock):
    found = []
    for number in range(6):
        with clock.step(data=2.0):
            with clock.phase("forward"):
                device.launch(3.0 + number, host_ms=3.0 + number)
            with clock.phase("optimizer"):
                device.launch(1.0, host_ms=1.0)
        if number % 2:
            found += clock.read()

    assert [step["forward"] for step in found] == pytest.approx([3, 4, 5, 6, 7, 8])
    assert [step["optimizer"] for step in found] == pytest.approx([1] * 6)
    assert [step["step"] for step in found] == pytest.approx([6, 7, 8, 9, 10, 11])


def pass_through(clock, device, terms):
    """Two encoders and a fusion; each tells the device what its backward pass costs."""
    costs = {"audio": 3.0, "image": 11.0, "fusion": 2.0}

    def cost(name):
        return lambda _: device.launch(costs[name], host_ms=costs[name])

    features = {}
    for name in ("audio", "image"):
        inside = nn.Linear(4, 4)(torch.ones(2, 4))
        inside.register_hook(cost(name))
        features[name] = inside * 1.0
    fused = features["audio"] + features["image"]
    losses = {}
    for name in terms:
        loss = fused.square().mean()
        loss.register_hook(cost("fusion"))
        losses[name] = loss * 1.0
    clock.watch_backward(features, losses)
    return features, losses


def test_backward_spans_begin_where_an_encoders_gradient_arrives(device, clock):
    with clock.step():
        _, losses = pass_through(clock, device, ("fused",))
        losses["fused"].backward()
        clock.end_backward()
        device.launch(100.0, host_ms=100.0)
    (step,) = clock.read()

    assert step["backward_ms.image"] == pytest.approx(11)
    assert step["backward_ms.audio"] == pytest.approx(3)
    assert step["fusion_backward"] == pytest.approx(2)


def test_losses_differentiated_one_by_one_add_up(device, clock):
    with clock.step():
        features, losses = pass_through(clock, device, ("fused", "unimodal"))
        leaves = list(features.values())
        for loss in losses.values():
            loss.backward(retain_graph=True)
        clock.end_backward()
    (step,) = clock.read()

    assert len(leaves) == 2
    assert step["backward_ms.image"] == pytest.approx(22)
    assert step["backward_ms.audio"] == pytest.approx(6)
    assert step["fusion_backward"] == pytest.approx(4)


def test_a_frozen_encoder_has_no_backward_pass(device, clock):
    with clock.step():
        features, losses = pass_through(clock, device, ("fused",))
        clock.watch_backward({"text": torch.ones(2)}, losses)
        losses["fused"].backward()
        clock.end_backward()
    (step,) = clock.read()

    assert "backward_ms.text" not in step
    assert set(features) == {"audio", "image"}


def test_a_backward_pass_that_was_given_up_is_not_counted_into_the_next_one(device, clock):
    with clock.step():
        features, losses = pass_through(clock, device, ("fused",))
        features["image"].register_hook(out_of_memory)
        with pytest.raises(torch.OutOfMemoryError):
            losses["fused"].backward()
        device.launch(500.0, host_ms=500.0)
        _, losses = pass_through(clock, device, ("fused",))
        losses["fused"].backward()
        clock.end_backward()
    (step,) = clock.read()

    assert step["backward_ms.image"] == pytest.approx(11)
    assert step["backward_ms.audio"] == pytest.approx(3)
    assert step["fusion_backward"] < 10


def out_of_memory(gradient):
    raise torch.OutOfMemoryError("planted")


def test_operators_are_those_that_leave_a_node():
    weight = torch.ones(3, requires_grad=True)
    loss = (weight * 2).exp().sum()

    assert count_operators([loss]) == 3
    assert count_operators([loss, loss * 1.0]) == 4
    assert count_operators([torch.ones(1)]) == 0


def test_operators_are_counted_in_one_step_alone_and_told_once():
    clock = PhaseClock(CPU)
    loss = torch.ones(3, requires_grad=True).exp().sum()
    told = []
    for _ in range(COUNTED_STEP + 3):
        clock.begin_step(data_ms=0.0, transfer_ms=0.0)
        clock.count_operators({"fused": loss})
        clock.count_operators({"fused": loss})
        clock.end_step()
        told.append(clock.take_operators())

    assert [number for number in told if number is not None] == [4]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    path = tmp_path_factory.mktemp("timing")
    write_contract_store(path / "fake")
    return path


def logged(recipe, root, folder):
    events = []
    train_here(
        recipe,
        data_root=root,
        checkpoints=folder,
        emit=lambda kind, **fields: events.append((kind, fields)),
    )
    return events


@pytest.mark.parametrize("method", ["none", "multi_loss", "mmpareto"])
def test_a_run_tells_what_every_encoder_and_every_pause_took(method, root, tmp_path):
    recipe = contract_recipe(method, Case(), epochs=2)
    events = logged(recipe, root, tmp_path)
    steps = [fields for kind, fields in events if kind == "step"]
    evaluations = [f for kind, f in events if kind == "event" and f["what"] == "evaluation"]

    assert len(steps) >= 6
    for step in steps[1:]:
        ms, encoders = step["ms"], [row for m, row in step["m"].items() if "forward_ms" in row]
        assert len(encoders) == len(recipe.model.encoders)
        assert 0 < sum(row["forward_ms"] for row in encoders) + ms["fusion"] <= ms["forward"]
        assert 0 < sum(row["backward_ms"] for row in encoders) <= ms["backward"]
        assert sum(ms[phase] for phase in PHASES) <= ms["step"]
        assert "queue_empty" not in step
    at = {(e["split"], e["step"]) for e in evaluations}
    epoch = steps[-1]["step"] // 2 + 1
    assert {("train", epoch), ("val", epoch)} <= at
    of_epoch = sum(e["ms"] for e in evaluations if e["step"] == epoch)
    assert steps[epoch]["ms"]["between"] >= of_epoch > 0


def test_encoders_that_hear_each_other_are_not_timed_apart(tmp_path):
    from mmtool.testing.fakes import FakeModality, write_fake_store

    frames = FakeModality((1, 8, 8), "frames")
    write_fake_store(tmp_path / "fake", {"audio": frames, "image": frames})
    encoder = {"name": "cnn", "width": 4}
    model = {"encoders": {"audio": encoder, "image": encoder}, "fusion": "mmtm"}
    train = {"epochs": 1, "batch_size": 20, "lr": 0.05}
    recipe = Recipe.model_validate({"data": {"dataset": "fake"}, "model": model, "train": train})
    steps = [f for kind, f in logged(recipe, tmp_path, tmp_path / "ckpt") if kind == "step"]

    assert steps
    assert all("forward_ms" not in row for step in steps for row in step["m"].values())
    assert all(step["ms"]["fusion"] > 0 for step in steps)
