"""A thread that notes once a second what the machine does, and never gets in training's way."""

import os
import threading
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import psutil

from mmtool.runlog.gpu import GpuGauge
from mmtool.runlog.nvml import ask, gpu_handles, open_nvml

_MIB = 2**20
_JOIN_S = 5.0
_RESOURCES = ("cpu", "io", "memory")
_CGROUPS = Path("/sys/fs/cgroup")
_BOUNDARIES = ("evaluation",)

Extra = Callable[[], Mapping[str, float]]


def nothing_extra() -> Mapping[str, float]:
    """Add no fields to a sample."""
    return {}


class SystemSampler:
    """Samples CPU, memory and GPUs every `every_s` seconds and hands each sample to `write`.

    `cpu_percent` and `rss_mb` are of this process with all its threads, 100 for one full core;
    `host_cpu_percent` and `load1` are of the machine. `psi_<resource>` is the percentage of the
    last ten seconds in which something waited for that resource, `psi_cgroup_<resource>` the same
    within the container. `gpus` are those this process may use; questions that none of them
    answers stand once, in the first sample, under `lacks`. `extra` may add fields of its own.
    """

    def __init__(
        self,
        write: Callable[..., None],
        every_s: float,
        *,
        connect: Callable[[], Any | None] = open_nvml,
        pressure: Path = Path("/proc/pressure"),
        cgroup: Path | None = None,
        extra: Extra = nothing_extra,
    ) -> None:
        self._write = write
        self._every_s = every_s
        self._connect = connect
        self._pressure = pressure
        self._cgroup = cgroup
        self._extra = extra
        self._process = psutil.Process()
        self._nvml: Any | None = None
        self._gpus: list[GpuGauge] = []
        self._is_first = True
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self.num_failed = 0
        """Samples that could not be taken or written."""

    def start(self) -> None:
        """Begin sampling; the first sample comes after one interval, with a GPU one at once too."""
        if self._thread is not None:
            return
        self._stop.clear()
        self._wake.clear()
        self._thread = threading.Thread(target=self._run, name="system-sampler", daemon=True)
        self._thread.start()

    def note_event(self, what: object) -> None:
        """Have the thread take a sample now if the event ends a stretch whose energy is told."""
        if what in _BOUNDARIES:
            self._wake.set()

    def stop(self) -> None:
        """Take a last sample and end the thread; stopping twice is allowed."""
        self._stop.set()
        self._wake.set()
        if self._thread is not None:
            # A driver that hangs must not hang training: the thread is a daemon and is left behind.
            self._thread.join(timeout=_JOIN_S)
            self._thread = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def open(self) -> None:
        """Find the GPUs and start the counters of CPU use."""
        self._nvml = self._connect()
        handles = gpu_handles(self._nvml) if self._nvml is not None else []
        own = own_processes() if handles else frozenset()
        self._gpus = [GpuGauge(self._nvml, handle, own) for handle in handles]
        # Both calls report the use since the call before; the first one has none and says 0.
        self._process.cpu_percent(None)
        psutil.cpu_percent(None)

    def sample_once(self) -> dict[str, Any]:
        """Give the fields of one `sys` event."""
        fields: dict[str, Any] = {
            "cpu_percent": self._process.cpu_percent(None),
            "host_cpu_percent": psutil.cpu_percent(None),
            "rss_mb": self._process.memory_info().rss / _MIB,
            "load1": os.getloadavg()[0],
        }
        for resource in _RESOURCES:
            stalled = read_pressure(self._pressure / resource)
            if stalled is not None:
                fields[f"psi_{resource}"] = stalled
            if self._cgroup is not None:
                stalled = read_pressure(self._cgroup / f"{resource}.pressure")
                if stalled is not None:
                    fields[f"psi_cgroup_{resource}"] = stalled
        fields |= self._extra()
        if self._gpus:
            gpus = fields["gpus"] = [gpu.sample() for gpu in self._gpus]
            if self._is_first:
                fields["lacks"] = _unanswered(gpus)
        self._is_first = False
        return fields

    def _run(self) -> None:
        with suppress(Exception):
            self.open()
        if self._gpus:  # the energy counter before anything is trained
            self._note(without=("cpu_percent", "host_cpu_percent"))  # no time has passed for them
        is_stopped = False
        while not is_stopped:
            self._wake.wait(self._every_s)
            self._wake.clear()
            is_stopped = self._stop.is_set()
            self._note()
        for gpu in self._gpus:
            gpu.close()
        if self._nvml is not None:
            ask(self._nvml.nvmlShutdown)

    def _note(self, without: Collection[str] = ()) -> None:
        try:
            sample = self.sample_once()
            self._write(**{name: sample[name] for name in sample if name not in without})
        except Exception:  # noqa: BLE001 - whatever fails here is no reason to end a training
            self.num_failed += 1


def _unanswered(gpus: list[dict[str, float | None]]) -> list[str]:
    """Name what no GPU tells; counters of parts have no value before the second sample."""
    parts = {"sm", "occupancy", "tensor", "dram"}
    named = {name for gpu in gpus for name in gpu}
    lacking = {n for n in named - parts if all(gpu.get(n) is None for gpu in gpus)}
    return sorted(lacking | (parts - named))


def own_processes() -> frozenset[int]:
    """Give the numbers of this process and, where several ranks share the machine, of theirs."""
    numbers = {os.getpid()}
    if int(os.environ.get("LOCAL_WORLD_SIZE", "1")) > 1:
        with suppress(psutil.Error):
            parent = psutil.Process().parent()
            numbers |= {p.pid for p in parent.children(recursive=True)} if parent else set()
    return frozenset(numbers)


def own_cgroup(listing: Path = Path("/proc/self/cgroup"), root: Path = _CGROUPS) -> Path | None:
    """Give the folder of the control group of this process, None for that of the whole machine."""
    try:
        lines = listing.read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):
        return None
    path = next((line[3:] for line in lines if line.startswith("0::")), "/")
    folder = root / path.lstrip("/")
    # Inside of a container its own group is mounted as the root, which only then has such a file.
    return folder if (folder / "cpu.pressure").is_file() else None


def read_pressure(path: Path) -> float | None:
    """Give `some avg10` of one pressure file, None where the kernel has none."""
    try:
        for line in path.read_text(encoding="ascii").splitlines():
            kind, *pairs = line.split()
            if kind == "some":
                return float(dict(pair.split("=", 1) for pair in pairs)["avg10"])
    except (OSError, ValueError, KeyError):
        return None
    return None
