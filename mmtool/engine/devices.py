"""How many GPUs there are, asked without loading torch."""

import os
from pathlib import Path

from mmtool.config.schema import Recipe
from mmtool.errors import EnvironmentLacks, RequestError
from mmtool.runlog.nvml import gpu_handles, open_nvml

_MEMORY_PER_RANK_MB = 600


def visible_gpus() -> int:
    """Give the number of GPUs this process may use."""
    nvml = open_nvml()
    if nvml is not None:
        return len(gpu_handles(nvml))
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    present = len(list(Path("/dev").glob("nvidia[0-9]*")))
    if listed is None or present == 0:
        return present
    return len([name for name in listed.split(",") if name.strip() not in ("", "-1")])


def automatic_gpus(device: str) -> int:
    """Give the number of ranks that `--gpus auto` means."""
    return max(1, visible_gpus()) if device != "cpu" else 1


def check_devices(recipe: Recipe) -> None:
    """Refuse more GPUs than there are; a smaller number is never taken silently."""
    launch = recipe.launch
    if launch.device == "cpu":
        return
    visible = visible_gpus()
    if visible == 0 and launch.device == "cuda":
        raise EnvironmentLacks(
            "launch.device is 'cuda' but no GPU is visible", fix="--device cpu, or mmtool doctor"
        )
    if visible == 0 and launch.gpus > 1:
        raise RequestError(
            f"asked for {launch.gpus} GPUs, this machine has none",
            why="CPU processes stand in for GPUs only when asked to",
            fix=f"--device cpu --gpus {launch.gpus}",
        )
    if launch.gpus > visible > 0:
        shown = os.environ.get("CUDA_VISIBLE_DEVICES", "all")
        raise RequestError(
            f"asked for {launch.gpus} GPUs, {visible} visible (CUDA_VISIBLE_DEVICES={shown})",
            why="fewer are never taken silently",
            fix=f"--gpus {visible}, or --gpus auto",
        )


def crowding(recipe: Recipe) -> list[str]:
    """Give warnings about CPU ranks that this machine is too small for."""
    num_ranks = recipe.launch.gpus
    if recipe.launch.device != "cpu" or num_ranks == 1:
        return []
    found = []
    cores = len(os.sched_getaffinity(0))
    if num_ranks > cores:
        found.append(f"{num_ranks} ranks share {cores} CPU cores; --gpus {cores} is faster")
    memory_mb = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2**20
    if memory_mb < num_ranks * _MEMORY_PER_RANK_MB:
        found.append(
            f"{num_ranks} ranks need about {num_ranks * _MEMORY_PER_RANK_MB} MB of memory, "
            f"the machine has {memory_mb} MB"
        )
    return found
