"""What torch's allocator did with a GPU's memory, for the log of the machine."""

import torch

_MIB = 2**20


def allocator_counts(device: torch.device) -> dict[str, float]:
    """Give the peaks since the call before, and how often it had to retry or gave up so far.

    Empty on a CPU, whose memory is that of the process. Nothing is asked of the device itself.
    """
    if device.type != "cuda":
        return {}
    stats = torch.cuda.memory_stats(device)
    torch.cuda.reset_peak_memory_stats(device)
    return {
        "allocated_peak_mb": stats["allocated_bytes.all.peak"] / _MIB,
        "reserved_peak_mb": stats["reserved_bytes.all.peak"] / _MIB,
        "alloc_retries": float(stats["num_alloc_retries"]),
        "alloc_ooms": float(stats["num_ooms"]),
    }
