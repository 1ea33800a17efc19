"""Sampling the machine, with recorded answers in place of a GPU."""

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mmtool.runlog.nvml import describe_gpus, gpu_handles
from mmtool.runlog.system import SystemSampler, read_pressure

PRESSURE = "some avg10=12.50 avg60=3.00 avg300=1.00 total=123\nfull avg10=0.00 total=0\n"


class RecordedNvml:
    """Answers of a machine with two GPUs; the second one cannot tell its power."""

    def __init__(self) -> None:
        self.num_shutdowns = 0

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        return [0, 1][index]

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> int:  # noqa: N802
        return {"GPU-aa": 0, "GPU-bb": 1}[uuid]

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> Any:  # noqa: N802
        return SimpleNamespace(gpu=[97, 3][handle], memory=40)

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:  # noqa: N802
        return SimpleNamespace(total=81_559 * 2**20, used=[70_000, 512][handle] * 2**20)

    def nvmlDeviceGetPowerUsage(self, handle: int) -> int:  # noqa: N802
        if handle == 1:
            raise RuntimeError("Not Supported")
        return 412_345

    def nvmlDeviceGetTemperature(self, handle: int, sensor: int) -> int:  # noqa: N802
        assert sensor == 0
        return [66, 31][handle]

    def nvmlDeviceGetEnforcedPowerLimit(self, handle: int) -> int:  # noqa: N802
        return [700_000, 400_000][handle]

    def nvmlDeviceGetName(self, handle: int) -> bytes:  # noqa: N802
        return [b"NVIDIA H100 80GB HBM3", b"NVIDIA T4"][handle]

    def nvmlDeviceGetUUID(self, handle: int) -> str:  # noqa: N802
        return ["GPU-aa", "GPU-bb"][handle]

    def nvmlSystemGetDriverVersion(self) -> str:  # noqa: N802
        return "580.82.07"

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.num_shutdowns += 1


@pytest.fixture(autouse=True)
def _all_gpus_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def sampler_of(
    write: Any, *, every_s: float = 60.0, nvml: Any = None, pressure: Path = Path("/none")
) -> SystemSampler:
    return SystemSampler(write, every_s, connect=lambda: nvml, pressure=pressure)


def test_a_sample_holds_cpu_memory_and_load() -> None:
    sampler = sampler_of(None)
    sampler.open()
    sample = sampler.sample_once()
    assert set(sample) == {"cpu_percent", "host_cpu_percent", "rss_mb", "load1"}
    assert sample["rss_mb"] > 10


def test_busy_work_of_this_process_shows_as_cpu_percent() -> None:
    sampler = sampler_of(None)
    sampler.open()
    sum(range(3_000_000))
    assert sampler.sample_once()["cpu_percent"] > 0


def test_gpus_are_sampled_and_an_unsupported_number_is_none() -> None:
    sampler = sampler_of(None, nvml=RecordedNvml())
    sampler.open()
    first, second = sampler.sample_once()["gpus"]
    assert {k: v for k, v in first.items() if v is not None} == {
        "util": 97.0,
        "mem_mb": 70_000.0,
        "power_w": 412.345,
        "power_limit_w": 700.0,
        "temp_c": 66,
    }
    assert (second["util"], second["power_w"], second["temp_c"]) == (3.0, None, 31)


def test_gpus_are_described_with_name_memory_limit_and_driver() -> None:
    first, second = describe_gpus(RecordedNvml())
    assert first == {
        "index": 0,
        "name": "NVIDIA H100 80GB HBM3",
        "uuid": "GPU-aa",
        "memory_mb": 81_559,
        "power_limit_w": 700.0,
        "driver": "580.82.07",
    }
    assert second["uuid"] == "GPU-bb"


@pytest.mark.parametrize(
    ("visible", "handles"),
    [("0,1", [0, 1]), ("1", [1]), ("GPU-bb, 0", [1, 0]), ("", []), ("1,9,0", [1]), ("-1", [])],
)
def test_only_gpus_this_process_may_use_are_asked(visible: str, handles: list[int]) -> None:
    assert gpu_handles(RecordedNvml(), visible) == handles


def test_pressure_is_read_where_the_kernel_has_it(tmp_path: Path) -> None:
    (tmp_path / "cpu").write_text(PRESSURE)
    (tmp_path / "io").write_text("garbage\n")
    sampler = sampler_of(None, pressure=tmp_path)
    sample = sampler.sample_once()
    assert sample["psi_cpu"] == 12.5
    assert "psi_io" not in sample
    assert read_pressure(tmp_path / "memory") is None


def test_samples_are_written_until_stop_which_adds_a_last_one() -> None:
    samples: list[dict[str, Any]] = []
    enough = threading.Event()

    def write(**fields: Any) -> None:
        samples.append(fields)
        if len(samples) >= 3:
            enough.set()

    with sampler_of(write, every_s=0.001):
        assert enough.wait(timeout=10)
    assert not [t for t in threading.enumerate() if t.name == "system-sampler"]


def test_a_run_shorter_than_one_interval_still_leaves_one_sample() -> None:
    samples: list[dict[str, Any]] = []
    nvml = RecordedNvml()
    sampler = sampler_of(lambda **fields: samples.append(fields), every_s=3600.0, nvml=nvml)
    sampler.start()
    sampler.stop()
    sampler.stop()
    # One before anything is trained, for the energy counter, and one at the end.
    assert ["cpu_percent" in sample for sample in samples] == [False, True]
    assert nvml.num_shutdowns == 1


def test_a_write_that_fails_never_reaches_the_training() -> None:
    failed = threading.Event()

    def full(**fields: Any) -> None:
        failed.set()
        raise OSError(28, "No space left on device")

    sampler = sampler_of(full, every_s=0.001)
    with sampler:
        assert failed.wait(timeout=10)
    assert sampler.num_failed >= 1


def test_a_driver_that_fails_leaves_the_host_samples() -> None:
    samples: list[dict[str, Any]] = []

    def broken() -> Any:
        raise RuntimeError("driver/library version mismatch")

    sampler = SystemSampler(
        lambda **fields: samples.append(fields), 3600.0, connect=broken, pressure=Path("/none")
    )
    with sampler:
        pass
    assert len(samples) == 1
    assert "gpus" not in samples[0]
