"""What a measured recipe is said to cost, from step times written by hand."""

import json

import pytest

from mmtool.profile.flops import PartCost
from mmtool.profile.report import ProfileReport

WAITING = {
    "step": 20.0,
    "data": 9.0,
    "transfer": 1.0,
    "forward": 4.0,
    "backward": 4.0,
    "sync": 0.0,
    "optimizer": 2.0,
}
COMPUTING = WAITING | {"step": 10.0, "data": 0.0, "transfer": 0.0}


def reported(real_ms: float, phases: dict[str, float]) -> ProfileReport:
    return ProfileReport(
        recipe="planted",
        device="cpu",
        num_threads=1,
        batch_size=50,
        steps_per_epoch=200,
        epochs=3,
        costs={"audio": PartCost(1000, 2_000, 6_000), "fusion": PartCost(10, 500, 2_000)},
        real_ms=[real_ms] * 5,
        synthetic_ms=[10.0] * 5,
        loader_ms=[9.0] * 5,
        phases=[phases] * 5,
        peak_memory_bytes=3_000_000,
        memory_kind="process RSS",
    )


def test_what_a_cached_batch_saves_is_the_input_bound_share() -> None:
    report = reported(20.0, WAITING)

    assert report.input_bound_share == pytest.approx(0.5)
    assert report.phase_shares()["data"] == pytest.approx(0.45)
    (verdict,) = [line for line in report.lines() if "-bound" in line]
    assert verdict.startswith("input-bound: 50% of a step waits for data")


def test_a_step_that_never_waits_is_compute_bound_however_the_blocks_differ() -> None:
    # The machine was busy during the real steps: twice as slow, and not because of data.
    lines = reported(20.0, COMPUTING).lines()

    assert any(line.startswith("compute-bound: 0% of a step waits") for line in lines)


def test_a_slower_cached_batch_is_no_negative_share() -> None:
    assert reported(8.0, COMPUTING).input_bound_share == 0.0


def test_an_epoch_and_a_run_are_forecast_from_the_real_steps() -> None:
    document = json.loads(json.dumps(reported(20.0, WAITING).as_dict(), allow_nan=False))

    assert document["predicted_epoch_s"]["p50"] == pytest.approx(4.0)  # 200 steps of 20 ms
    assert document["predicted_run_s"]["p90"] == pytest.approx(12.0)
    assert document["samples_per_s"]["real"] == pytest.approx(2_500)
    assert document["samples_per_s"]["synthetic"] == pytest.approx(5_000)


def test_each_part_has_its_share_of_the_arithmetic() -> None:
    lines = reported(20.0, WAITING).lines()

    (audio,) = [line for line in lines if line.startswith("audio")]
    (fusion,) = [line for line in lines if line.startswith("fusion")]
    assert audio.endswith("75%")
    assert fusion.endswith("25%")
