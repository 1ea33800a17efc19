"""Where the wall clock went: pauses and their causes, encoders, energy, and what is not known."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mmtool.diagnose.api import diagnose
from mmtool.diagnose.facts import Facts
from mmtool.diagnose.finding import Finding, Report
from mmtool.diagnose.load import open_run
from mmtool.diagnose.rules import comm_bound, launch_bound, sync_bound
from mmtool.runlog.system import SystemSampler
from mmtool.runlog.writer import EventWriter
from mmtool.testing.nvml import FakeGpu, FakeNvml

Plant = Callable[..., Path]
Line = dict[str, Any]
STEP_MS = 63.0


def rewritten(run: Path, change: Callable[[Line], list[Line]]) -> Path:
    """Replace each line of the first rank's log by those that the change gives."""
    log = run / "log" / "rank0.jsonl"
    lines = [json.loads(text) for text in log.read_text(encoding="utf-8").splitlines()]
    kept = [json.dumps(new) + "\n" for line in lines for new in change(line)]
    log.write_text("".join(kept), encoding="utf-8")
    return run


def with_between(run: Path, pauses: dict[int, float], *events: Line) -> Path:
    """Add the time before each step, longer before some, and what events say of it."""

    def change(line: Line) -> list[Line]:
        if line["k"] == "end":
            return [*({"k": "event", "t": 1e9 + 60, **event} for event in events), line]
        if line["k"] == "step":
            line["ms"]["between"] = pauses.get(line["step"], 0.5)
        return [line]

    return rewritten(run, change)


def only(report: Report, rule: str) -> Finding:
    (found,) = (f for f in report.findings if f.rule == rule)
    return found


def rules(report: Report) -> set[str]:
    return {finding.rule for finding in report.findings}


def shares(report: Report) -> dict[str, float]:
    return {p["name"]: p["share"] for p in report.metrics["where"]["phases"]}


def test_what_a_checkpoint_holds_up_is_a_stall_and_says_so(plant: Plant) -> None:
    at = range(40, 240, 40)
    events = [{"what": "checkpoint", "step": s, "stall_ms": 795.0} for s in at]
    report = diagnose([with_between(plant(), dict.fromkeys(at, 800.0), *events)])

    finding = only(report, "stall")
    assert finding.severity == "warn"
    assert finding.evidence["cause"] == "checkpoint"
    assert finding.evidence["num_pauses"] == len(at)
    assert finding.evidence["steps"] == list(at)
    assert finding.evidence["paused_share"] == pytest.approx(shares(report)["checkpoint"])
    wall = 235 * (64.3 + 0.5) + 5 * 800
    assert finding.evidence["predicted_gain"] == pytest.approx(wall / (wall - 5 * 795), rel=0.01)


def test_a_pause_that_nothing_explains_is_a_stall_too(plant: Plant) -> None:
    report = diagnose([with_between(plant(), dict.fromkeys(range(50, 240, 30), 900.0))])

    finding = only(report, "stall")
    assert finding.evidence["cause"] == "unknown"
    assert "no reason that is in the log" in finding.what


def test_evaluation_is_no_stall_but_remarked_upon_where_it_takes_long(plant: Plant) -> None:
    at = range(40, 240, 40)
    events = [{"what": "evaluation", "split": "val", "step": s, "ms": 2990.0} for s in at]
    report = diagnose([with_between(plant(), dict.fromkeys(at, 3000.0), *events)])

    finding = only(report, "stall")
    assert finding.severity == "info"
    assert "evaluation takes 49% of the training loop (5 evaluations)" in finding.what


def test_a_single_long_step_of_a_long_run_is_no_stall(plant: Plant) -> None:
    def change(line: Line) -> list[Line]:
        if line["k"] == "step":
            line["ms"]["between"] = 0.5
            if line["step"] == 100:
                line["ms"]["forward"] += 15.0 * STEP_MS
                line["ms"]["step"] += 15.0 * STEP_MS
        return [line]

    assert "stall" not in rules(diagnose([rewritten(plant(), change)]))


def test_a_little_at_every_step_is_remarked_upon(plant: Plant) -> None:
    pauses = dict.fromkeys(range(240), 20.0)
    finding = only(diagnose([with_between(plant(), pauses)]), "stall")

    assert finding.severity == "info"
    assert finding.evidence["unknown_share"] == pytest.approx(20 / 84.3, abs=0.01)


def test_a_log_that_does_not_tell_of_pauses_still_gives_its_phases(plant: Plant) -> None:
    report = diagnose([plant()])
    where = report.metrics["where"]

    assert sum(shares(report).values()) == pytest.approx(1)
    assert "evaluation" not in shares(report)
    assert where["encoders"] == {}
    assert where["encoders_note"] == "no time per encoder: the log has none"
    unknown = {entry["verdict"] for entry in where["not_known"]}
    assert {"stall", "modality-bound", "straggler", "comm-bound"} <= unknown


def test_without_any_sample_of_the_machine_the_report_works(plant: Plant) -> None:
    run = plant()
    (run / "log" / "system.rank0.jsonl").unlink()
    report = diagnose([run])

    assert report.system == {}
    assert report.metrics["energy"]["total_j"] is None
    unknown = {entry["verdict"] for entry in report.metrics["where"]["not_known"]}
    assert {"host-contended", "throttled"} <= unknown


def test_samples_without_numbers_are_left_out(plant: Plant) -> None:
    run = plant()
    nothing = {"k": "sys", "t": 1e9, "cpu_percent": None, "gpus": [None, {}], "bad": ["rss_mb"]}
    lines = [nothing, {**nothing, "t": None}, {"k": "sys", "t": 1e9 + 1, "gpus": "?"}]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (run / "log" / "system.rank0.jsonl").write_text(text, encoding="utf-8")
    report = diagnose([run])

    json.dumps(report.as_dict(), allow_nan=False)
    assert report.metrics["energy"]["total_j"] is None


def test_steps_without_numbers_are_left_out(plant: Plant) -> None:
    def change(line: Line) -> list[Line]:
        if line["k"] == "step" and line["step"] % 3 == 0:
            line["ms"] = dict.fromkeys(line["ms"])
        return [line]

    report = diagnose([rewritten(plant(), change)])

    assert report.metrics["steps"]["num_steps"] == 155
    assert sum(shares(report).values()) == pytest.approx(1)


@pytest.mark.parametrize(("processor_ms", "fires"), [(20.0, True), (50.0, False)])
def test_without_pressure_the_own_processor_time_tells_of_a_crowded_machine(
    plant: Plant, processor_ms: float, fires: bool
) -> None:
    def change(line: Line) -> list[Line]:
        if line["k"] == "step":
            line["ms"]["cpu"] = processor_ms
        return [line]

    report = diagnose([rewritten(plant(), change)])

    assert ("host-contended" in rules(report)) is fires
    assert report.metrics["where"]["processor_share"] == pytest.approx(processor_ms / 55)
    if fires:
        assert only(report, "host-contended").severity == "info"


def with_encoders(run: Path, image_ms: float) -> Path:
    def change(line: Line) -> list[Line]:
        if line["k"] == "step":
            line["m"]["audio"] |= {"forward_ms": 4.0, "backward_ms": 8.0}
            line["m"]["image"] |= {"forward_ms": image_ms / 3, "backward_ms": image_ms * 2 / 3}
        return [line]

    return rewritten(run, change)


@pytest.mark.parametrize(
    ("image", "image_ms", "fires"),
    [("ignored", 42.0, True), ("ignored", 12.0, False), ("balanced", 42.0, False)],
)
def test_an_encoder_is_too_costly_only_if_it_is_not_relied_on(
    plant: Plant, image: str, image_ms: float, fires: bool
) -> None:
    other = "dominant" if image == "ignored" else "balanced"
    report = diagnose([with_encoders(plant(modalities={"audio": other, "image": image}), image_ms)])

    assert ("modality-bound" in rules(report)) is fires
    encoders = report.metrics["where"]["encoders"]
    assert encoders["image"]["share"] == pytest.approx(image_ms / 55)
    if fires:
        finding = only(report, "modality-bound")
        assert finding.modality == "image"
        assert finding.evidence["gain_without_it"] == pytest.approx(1 / (1 - 42 / 64.3), rel=0.02)


def sampled(run: Path, gpu: FakeGpu, change: Callable[[int], None], *, seconds: int = 60) -> Path:
    """Have the real sampler ask a GPU that does as the test says, once per second of its clock."""
    now = [1e9]
    nvml = FakeNvml([gpu])
    path = run / "log" / "system.rank0.jsonl"
    path.unlink()
    with EventWriter(path, clock=lambda: now[0]) as log:
        sampler = SystemSampler(print, 1.0, connect=lambda: nvml, pressure=Path("/none"))
        sampler.open()
        for second in range(seconds):
            change(second)
            log.write("sys", **sampler.sample_once())
            nvml.advance(1.0)
            now[0] += 1.0
    return run


BUSY = {"sm": 70.0, "occupancy": 40.0, "tensor": 30.0, "dram": 40.0}


@pytest.fixture(autouse=True)
def _all_gpus_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def ours(**more: float) -> FakeGpu:
    return FakeGpu(util=95, used_mb=30_000, parts=BUSY, processes={os.getpid(): 30_000.0}, **more)  # type: ignore[arg-type]


def test_a_gpu_that_does_well_gives_no_finding(plant: Plant) -> None:
    report = diagnose([sampled(plant(), ours(), lambda _: None)])

    assert not report.at_least("warn")
    (gpu,) = report.system["gpus"]
    assert (gpu["sm_percent"], gpu["tensor_percent"]) == (70.0, 30.0)
    assert report.system["lacks"] == []


@pytest.mark.parametrize(("bits", "severity"), [(0x40, "warn"), (0x8, "warn"), (0x4, "info")])
def test_what_holds_the_clock_down_is_told_apart(plant: Plant, bits: int, severity: str) -> None:
    gpu = ours()

    def change(second: int) -> None:
        gpu.reasons = bits if second % 3 == 0 else 0

    finding = only(diagnose([sampled(plant(), gpu, change)]), "throttled")
    assert finding.severity == severity
    assert finding.evidence["share"] == pytest.approx(1 / 3, abs=0.02)


def test_a_clock_held_down_now_and_then_is_no_finding(plant: Plant) -> None:
    gpu = ours()

    def change(second: int) -> None:
        gpu.reasons = 0x40 if second % 10 == 0 else 0x1

    assert "throttled" not in rules(diagnose([sampled(plant(), gpu, change)]))


def test_another_tenant_is_named_with_its_memory(plant: Plant) -> None:
    gpu = ours()

    def change(second: int) -> None:
        gpu.processes = {os.getpid(): 30_000.0, 1: 9000.0} if second > 30 else {os.getpid(): 1.0}

    finding = only(diagnose([sampled(plant(), gpu, change)]), "foreign-tenant")
    assert finding.evidence["foreign_max_mb"] == 9000.0
    assert finding.evidence["foreign_share"] == pytest.approx(29 / 60, abs=0.02)


def test_energy_of_the_counter_is_that_of_the_gpu(plant: Plant) -> None:
    gpu = ours(power_w=300.0)
    run = sampled(plant(), gpu, lambda _: None)

    def change(line: Line) -> list[Line]:
        event = {"k": "event", "what": "evaluation", "split": "val", "step": 40, "ms": 10_000.0}
        return [{**event, "t": 1e9 + 50}, line] if line["k"] == "end" else [line]

    energy = diagnose([with_encoders(rewritten(run, change), 42.0)]).metrics["energy"]

    assert energy["how"] == "counter"
    assert energy["total_j"] == pytest.approx(59 * 300)
    assert energy["per_phase"]["evaluation"] == pytest.approx(3000, rel=0.01)
    assert energy["per_phase"]["training"] == pytest.approx(49 * 300, rel=0.01)
    image = energy["cost"]["image"]
    assert image["joules"] == pytest.approx(49 * 300 * 42 / 64.3, rel=0.01)
    assert image["joules"] == energy["per_modality"]["image"]
    assert image["device_hours"] == pytest.approx(240 * 42 / 3.6e6, rel=0.01)
    assert image["how"] == "apportioned by time"
    assert sum(energy["per_step_phase"].values()) == pytest.approx(49 * 300)


def test_a_counter_that_began_anew_takes_nothing_away(plant: Plant) -> None:
    gpu = ours(power_w=100.0)

    def change(second: int) -> None:
        if second == 30:
            gpu.energy_j = 0.0

    energy = diagnose([sampled(plant(), gpu, change)]).metrics["energy"]
    assert energy["total_j"] == pytest.approx(58 * 100)


def test_a_stretch_too_short_for_the_counter_is_unknown(plant: Plant) -> None:
    run = sampled(plant(), ours(), lambda _: None, seconds=2)

    energy = diagnose([run]).metrics["energy"]
    assert energy["total_j"] is None
    assert energy["why"] == "the run was too short"


def traced(run: Path, **device: float) -> Facts:
    """Give what rules are handed of a run whose steps were traced, with these facts of a device."""
    quiet = {"rank": 0, "idle": 0.05, "exposed_communication": 0.0, "num_kernels": 900}
    busy = {**quiet, "kernels_per_step": 300.0, "kernel_p50_us": 40.0}
    host = {"rank": 0, "sync": device.pop("sync", 0.02), "num_syncs": 4, "num_steps": 3}
    trace = {"devices": [busy, {**busy, **device}], "hosts": [host]}
    opened = open_run(run)
    tables = replace(opened.tables, trace=trace)
    return Facts(run=replace(opened, tables=tables))


@pytest.mark.parametrize(
    ("device", "verdict"),
    [
        ({}, None),
        ({"idle": 0.4, "kernel_p50_us": 4.0}, "launch-bound"),
        ({"idle": 0.4, "kernels_per_step": 5000.0}, "launch-bound"),
        ({"idle": 0.05, "kernel_p50_us": 4.0}, None),
        ({"idle": 0.4, "sync": 0.5}, "sync-bound"),
        ({"idle": 0.3, "sync": 0.5, "kernel_p50_us": 4.0}, "sync-bound"),
        ({"idle": 0.02, "sync": 0.9}, None),
        ({"exposed_communication": 0.31}, "comm-bound"),
    ],
)
def test_a_trace_is_judged_by_its_kernels_and_waits(
    plant: Plant, device: dict[str, float], verdict: str | None
) -> None:
    facts = traced(plant(), **device)
    found = [rule.check(facts) for rule in (launch_bound, sync_bound, comm_bound)]

    assert [f.rule for f in found if f is not None] == ([] if verdict is None else [verdict])
    assert all(f.evidence["source"] == "trace" and f.advice for f in found if f is not None)
