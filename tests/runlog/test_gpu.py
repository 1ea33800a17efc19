"""What a GPU tells of itself, asked of a stand-in whose clock the test moves."""

import os
import threading
from pathlib import Path
from typing import Any

import pytest

from mmtool.runlog.gpu import GpuGauge
from mmtool.runlog.system import SystemSampler, own_cgroup
from mmtool.testing.nvml import FakeGpu, FakeNvml

PARTS = {"sm": 80.0, "occupancy": 40.0, "tensor": 55.0, "dram": 30.0}
PRESSURE = "some avg10=61.00 avg60=3.00 avg300=1.00 total=123\n"


@pytest.fixture(autouse=True)
def _all_gpus_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)


def test_counters_of_parts_are_means_since_the_sample_before() -> None:
    gpu = FakeGpu(parts=PARTS)
    nvml = FakeNvml([gpu])
    gauge = GpuGauge(nvml, 0)
    first = gauge.sample()
    nvml.advance(1.0)
    gpu.parts = {**PARTS, "tensor": 5.0}
    nvml.advance(1.0)
    second = gauge.sample()
    nvml.advance(1.0)
    third = gauge.sample()
    gauge.close()

    assert [first[name] for name in PARTS] == [None] * 4
    assert second["tensor"] == pytest.approx((55 + 5) / 2)
    assert third["tensor"] == pytest.approx(5)
    assert (third["sm"], third["occupancy"], third["dram"]) == (80.0, 40.0, 30.0)
    assert nvml.num_open_readings == 0


def test_energy_power_clock_and_reasons_are_read() -> None:
    nvml = FakeNvml([FakeGpu(power_w=400.0, sm_mhz=1410.0, reasons=0x20)])
    gauge = GpuGauge(nvml, 0)
    before = gauge.sample()["energy_j"]
    nvml.advance(2.5)
    sample = gauge.sample()

    assert before is not None
    assert sample["energy_j"] == pytest.approx(before + 1000.0)
    assert (sample["power_limit_w"], sample["sm_mhz"], sample["reasons"]) == (700.0, 1410.0, 0x20)


def test_an_older_driver_tells_its_reasons_under_the_older_name() -> None:
    nvml = FakeNvml([FakeGpu(reasons=0x40)], has_older_names=True)

    assert GpuGauge(nvml, 0).sample()["reasons"] == 0x40


def test_memory_of_processes_that_are_not_ours_is_foreign() -> None:
    nvml = FakeNvml([FakeGpu(processes={10: 9000.0, 11: 500.0, 12: None})])

    assert GpuGauge(nvml, 0, own={10}).sample()["foreign_mb"] == 500.0
    assert GpuGauge(nvml, 0, own={10, 11}).sample()["foreign_mb"] == 0.0


def test_in_a_container_processes_are_counted_but_nobody_says_whose_they_are() -> None:
    sample = GpuGauge(FakeNvml([FakeGpu(processes={7: 9000.0})]), 0, own={10}).sample()

    assert sample["processes"] == 1
    assert sample["foreign_mb"] is None


def test_what_a_device_does_not_support_is_none_and_said_once() -> None:
    poor = FakeGpu(
        power_w=None, power_limit_w=None, energy_j=None, sm_mhz=None, reasons=None, processes=None
    )
    sampler = SystemSampler(print, 60.0, connect=lambda: FakeNvml([poor]), pressure=Path("/none"))
    sampler.open()
    first, second = sampler.sample_once(), sampler.sample_once()

    assert set(first["lacks"]) == {
        *("power_w", "power_limit_w", "energy_j", "sm_mhz", "reasons", "processes", "foreign_mb"),
        *("sm", "occupancy", "tensor", "dram"),
    }
    assert "lacks" not in second
    (gpu,) = second["gpus"]
    assert {name for name, value in gpu.items() if value is not None} == {
        *("util", "mem_mb", "temp_c"),
    }


def test_counters_that_exist_are_not_said_to_be_lacking_before_their_second_reading() -> None:
    nvml = FakeNvml([FakeGpu(parts=PARTS, processes={os.getpid(): 100.0})])
    sampler = SystemSampler(print, 60.0, connect=lambda: nvml)
    sampler.open()

    assert sampler.sample_once()["lacks"] == []


def test_the_end_of_an_evaluation_is_sampled_at_once() -> None:
    samples: list[dict[str, Any]] = []
    arrived = threading.Semaphore(0)

    def write(**fields: Any) -> None:
        samples.append(fields)
        arrived.release()

    nvml = FakeNvml([FakeGpu(power_w=100.0)])
    with SystemSampler(write, 3600.0, connect=lambda: nvml) as sampler:
        assert arrived.acquire(timeout=10)
        nvml.advance(3.0)
        sampler.note_event("checkpoint")
        sampler.note_event(None)
        sampler.note_event("evaluation")
        assert arrived.acquire(timeout=10)
        assert len(samples) == 2

    energy = [sample["gpus"][0]["energy_j"] for sample in samples]
    assert energy == [0.0, 300.0, 300.0]


def test_fields_of_the_allocator_stand_beside_those_of_the_machine() -> None:
    sampler = SystemSampler(print, 60.0, connect=lambda: None, extra=lambda: {"alloc_retries": 2.0})
    sampler.open()

    assert sampler.sample_once()["alloc_retries"] == 2.0


def test_the_pressure_within_a_container_is_told_beside_that_of_the_machine(tmp_path: Path) -> None:
    group = tmp_path / "cgroup" / "jobs" / "7"
    group.mkdir(parents=True)
    (group / "cpu.pressure").write_text(PRESSURE)
    (tmp_path / "listing").write_text("4:memory:/jobs/7\n0::/jobs/7\n")
    found = own_cgroup(tmp_path / "listing", tmp_path / "cgroup")
    sampler = SystemSampler(print, 60.0, connect=lambda: None, pressure=tmp_path, cgroup=found)
    sampler.open()

    assert found == group
    assert sampler.sample_once()["psi_cgroup_cpu"] == 61.0
    assert own_cgroup(tmp_path / "none", tmp_path) is None
    assert own_cgroup(tmp_path / "listing", tmp_path / "elsewhere") is None
