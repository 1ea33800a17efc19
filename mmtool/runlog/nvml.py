"""The few questions asked of NVIDIA's management library, each answered by None where it cannot."""

import importlib
import os
from collections.abc import Callable
from typing import Any

_MIB = 2**20


def open_nvml() -> Any | None:
    """Give the initialised library, None without a driver or without the package."""
    try:
        nvml = importlib.import_module("pynvml")
        nvml.nvmlInit()
    except Exception:  # noqa: BLE001 - any broken driver means that there is nothing to ask
        return None
    return nvml


def gpu_handles(nvml: Any, visible: str | None = None) -> list[Any]:
    """Give a handle for every GPU this process may use, in the order of its CUDA devices.

    `visible` is `CUDA_VISIBLE_DEVICES` unless given; NVML itself lists all GPUs of the machine.
    """
    listed = os.environ.get("CUDA_VISIBLE_DEVICES") if visible is None else visible
    if listed is None:
        names = [str(index) for index in range(ask(nvml.nvmlDeviceGetCount) or 0)]
    else:
        names = [name.strip() for name in listed.split(",")]
    handles = []
    for name in names:
        by_index = name.isdecimal()
        handle = (
            ask(nvml.nvmlDeviceGetHandleByIndex, int(name))
            if by_index
            else ask(nvml.nvmlDeviceGetHandleByUUID, name)
        )
        # CUDA ignores everything from the first invalid entry on.
        if handle is None:
            break
        handles.append(handle)
    return handles


def ask(question: Callable[..., Any] | None, *arguments: Any) -> Any | None:
    """Give the answer, or None where device, driver or library do not know the question."""
    if question is None:
        return None
    try:
        return question(*arguments)
    except Exception:  # noqa: BLE001 - every question has its own set of unsupported devices
        return None


def describe_gpus(nvml: Any | None = None) -> list[dict[str, Any]]:
    """Give name, memory, power limit and driver of every GPU; empty where there is none."""
    opened = nvml if nvml is not None else open_nvml()
    if opened is None:
        return []
    driver = _text(ask(opened.nvmlSystemGetDriverVersion))
    gpus = []
    for index, handle in enumerate(gpu_handles(opened)):
        memory = ask(opened.nvmlDeviceGetMemoryInfo, handle)
        limit_mw = ask(opened.nvmlDeviceGetEnforcedPowerLimit, handle)
        gpus.append(
            {
                "index": index,
                "name": _text(ask(opened.nvmlDeviceGetName, handle)),
                "uuid": _text(ask(opened.nvmlDeviceGetUUID, handle)),
                "memory_mb": None if memory is None else memory.total // _MIB,
                "power_limit_w": None if limit_mw is None else limit_mw / 1000,
                "driver": driver,
            }
        )
    return gpus


def _text(value: Any) -> str | None:
    """Older versions of the library answer in bytes."""
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return None if value is None else str(value)
