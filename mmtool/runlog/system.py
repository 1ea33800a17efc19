"""A thread that notes once a second what the machine does, and never gets in training's way."""

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import psutil

from mmtool.runlog.nvml import ask, gpu_handles, open_nvml, sample_gpu

_MIB = 2**20
_JOIN_S = 5.0
_RESOURCES = ("cpu", "io", "memory")


class SystemSampler:
    """Samples CPU, memory and GPUs every `every_s` seconds and hands each sample to `write`.

    `cpu_percent` and `rss_mb` are of this process with all its threads, 100 for one full core;
    `host_cpu_percent` and `load1` are of the machine. `psi_<resource>` is the percentage of the
    last ten seconds in which something waited for that resource. `gpus` are those this process may
    use.
    """

    def __init__(
        self,
        write: Callable[..., None],
        every_s: float,
        *,
        connect: Callable[[], Any | None] = open_nvml,
        pressure: Path = Path("/proc/pressure"),
    ) -> None:
        self._write = write
        self._every_s = every_s
        self._connect = connect
        self._pressure = pressure
        self._process = psutil.Process()
        self._nvml: Any | None = None
        self._gpus: list[Any] = []
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.num_failed = 0
        """Samples that could not be taken or written."""

    def start(self) -> None:
        """Begin sampling; the first sample comes after one interval."""
        if self._thread is not None:
            return
        self._stop.clear()
        self._thread = threading.Thread(target=self._run, name="system-sampler", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Take a last sample and end the thread; stopping twice is allowed."""
        self._stop.set()
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
        self._gpus = gpu_handles(self._nvml) if self._nvml is not None else []
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
        if self._gpus:
            fields["gpus"] = [sample_gpu(self._nvml, gpu) for gpu in self._gpus]
        return fields

    def _run(self) -> None:
        with suppress(Exception):
            self.open()
        is_stopped = False
        while not is_stopped:
            is_stopped = self._stop.wait(self._every_s)
            try:
                self._write(**self.sample_once())
            except Exception:  # noqa: BLE001 - whatever fails here is no reason to end a training
                self.num_failed += 1
        if self._nvml is not None:
            ask(self._nvml.nvmlShutdown)


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
