"""A run times its own measuring, and measures less where that costs too much."""

from types import SimpleNamespace

import pytest
import torch

from mmtool.config.schema import LogConfig
from mmtool.engine.accounting import account
from mmtool.engine.distributed import Ranks
from mmtool.engine.job import Progress
from mmtool.engine.overhead import LEAST_S, LIMIT, PARTS, Overhead
from mmtool.engine.train_sample import interval

CPU = torch.device("cpu")


class Clock:
    """A clock that goes only when told to."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now

    def spend(self, seconds):
        self.now += seconds


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def overhead(clock):
    return Overhead(CPU, clock=clock)


def spend(overhead, clock, **parts):
    """Begin with a part, as a run does whose first step has probes."""
    for name, seconds in parts.items():
        with overhead.part(name):
            clock.spend(seconds)


def test_parts_are_shares_of_the_time_that_was_not_spent_measuring(overhead, clock):
    spend(overhead, clock, probes=1.0, norms=0.5)
    clock.spend(98.5)

    costs = overhead.account(Ranks())

    assert costs.wall_s == pytest.approx(100.0)
    assert costs.share == pytest.approx(1.5 / 98.5)
    assert costs.share_of("norms") == pytest.approx(0.5 / 98.5)
    assert costs.as_fields()["parts"].keys() == set(PARTS)


def test_a_part_within_a_part_is_counted_once_and_as_the_outer_one(overhead, clock):
    with overhead.whole("train_sample"):
        clock.spend(1.0)
        with overhead.whole("modalities"):
            clock.spend(2.0)
        with overhead.part("norms"):
            clock.spend(3.0)

    costs = overhead.account(Ranks())

    assert costs.parts["train_sample"] == pytest.approx(6.0)
    assert costs.parts["modalities"] == costs.parts["norms"] == 0.0


def test_an_error_inside_a_part_leaves_the_next_one_countable(overhead, clock):
    with pytest.raises(RuntimeError), overhead.part("probes"):
        raise RuntimeError("out of memory")
    spend(overhead, clock, norms=2.0)

    assert overhead.account(Ranks()).parts["norms"] == pytest.approx(2.0)


def test_every_account_begins_anew(overhead, clock):
    spend(overhead, clock, log=5.0)
    overhead.account(Ranks())
    clock.spend(10.0)

    costs = overhead.account(Ranks())

    assert costs.wall_s == pytest.approx(10.0)
    assert costs.share == 0.0


def test_what_came_before_the_first_step_does_not_count(overhead, clock):
    clock.spend(1000.0)
    spend(overhead, clock, probes=1.0)

    assert overhead.account(Ranks()).wall_s == pytest.approx(1.0)


def test_a_sampling_thread_counts_with_its_processor_time_since_it_last_told(overhead):
    overhead.of_thread("system")
    sum(range(20_000))
    overhead.of_thread("system")
    first = overhead.account(Ranks()).parts["system"]
    second = overhead.account(Ranks()).parts["system"]

    assert first > 0
    assert second == 0


class Event:
    """A mark on a device that works off what it is given, later than the host gave it."""

    device_s = 0.0
    num_waits = 0

    def __init__(self, *, enable_timing):
        assert enable_timing
        self.at = None

    def record(self):
        self.at = Event.device_s

    def synchronize(self):
        Event.num_waits += 1

    def elapsed_time(self, other):
        return (other.at - self.at) * 1e3


@pytest.fixture
def on_gpu(clock, monkeypatch):
    """An account of a run on a GPU, with events and a stream that keep to the made-up times."""
    monkeypatch.setattr(Event, "device_s", 0.0)
    monkeypatch.setattr(Event, "num_waits", 0)
    waits = []
    stream = SimpleNamespace(synchronize=lambda: waits.append(clock.now))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: stream)
    return Overhead(torch.device("cuda"), clock=clock, new_event=Event), waits


def test_on_a_gpu_a_step_never_waits_and_the_longer_of_two_times_counts(on_gpu, clock):
    overhead, waits = on_gpu
    with overhead.part("probes"):
        clock.spend(0.5)
        Event.device_s += 2.0
    with overhead.part("norms"):
        clock.spend(0.7)
        Event.device_s += 0.1
    assert Event.num_waits == len(waits) == 0

    assert overhead.read_with(lambda: [{"step": 0}]) == [{"step": 0}]
    costs = overhead.account(Ranks())

    assert Event.num_waits == 2
    assert costs.parts["probes"] == pytest.approx(2.0)
    assert costs.parts["norms"] == pytest.approx(0.7)


def test_on_a_gpu_the_wait_for_earlier_work_is_not_the_cost_of_the_log(on_gpu, clock):
    overhead, waits = on_gpu
    clock.spend(3.0)
    with overhead.whole("log"):
        clock.spend(0.25)

    assert waits == [103.0, 103.25]
    assert overhead.account(Ranks()).parts["log"] == pytest.approx(0.25)


def told(overhead, *, factor=1, **options):
    """Account as a run of these options does, and give its progress and event."""
    events = []
    job = SimpleNamespace(
        overhead=overhead,
        ranks=Ranks(),
        progress=Progress(step=40, epoch=1, norms_factor=factor),
        recipe=SimpleNamespace(log=LogConfig(**options)),
    )
    account(job, lambda kind, **fields: events.append({"k": kind, **fields}))
    (event,) = events
    return job.progress, event


def test_norms_are_thinned_where_measuring_costs_too_much(overhead, clock):
    spend(overhead, clock, norms=0.05 * LEAST_S)
    clock.spend(LEAST_S)

    progress, event = told(overhead, factor=2)

    assert progress.norms_factor == 4
    assert event["what"] == "overhead"
    assert (event["norms_every_steps"], event["epoch"], event["step"]) == (20, 1, 40)
    assert "5.0% of the time" in event["message"]
    assert "every 40 steps" in event["message"]


@pytest.mark.parametrize(
    ("parts", "wall_s", "options"),
    [
        ({"norms": 0.005}, 1.0, {}),  # cheap enough
        ({"norms": 0.05}, 0.5, {}),  # too short to know
        ({"norms": 0.05}, 1.0, {"thin_norms": False}),  # fixed by the recipe
        ({"train_sample": 0.05, "norms": 0.0005}, 1.0, {}),  # norms are not what costs
    ],
    ids=["cheap", "short", "fixed", "elsewhere"],
)
def test_norms_stay_as_they_are_otherwise(parts, wall_s, options, overhead, clock):
    spend(overhead, clock, **{name: share * LEAST_S for name, share in parts.items()})
    clock.spend(wall_s * LEAST_S)

    progress, event = told(overhead, **options)

    assert progress.norms_factor == 1
    assert event["share"] > 0
    assert "message" not in event


@pytest.mark.parametrize(
    ("num_samples", "size", "epochs", "every"),
    [
        (512, 6698, 100, 6),  # 2.5 % of an epoch, of every sixth 0.4 %
        (512, 6698, 20, 2),  # never fewer than ten points
        (512, 6698, 9, 1),
        (512, 200_000, 100, 1),
        (61, 61, 1000, 67),
    ],
)
def test_the_training_sample_of_a_long_run_is_evaluated_after_some_epochs(
    num_samples, size, epochs, every
):
    assert interval(num_samples, size, epochs) == every
    cost = num_samples / (3 * size * every)
    assert cost < LIMIT or epochs / every < 20
