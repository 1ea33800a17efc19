"""Let the C library keep freed memory for the next step of a run on the CPU.

glibc gives large blocks back to the system as soon as they are freed, and every page of the next
tensor of that size is then faulted in and cleared again: a batch of images costs several times its
arithmetic. GPUs are not concerned, torch caches their memory itself.
"""

import ctypes
import os
import platform

import torch

_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8
_LARGEST_INT = 2**31 - 1
_OTHER_ALLOCATORS = ("jemalloc", "tcmalloc", "mimalloc")


def keep_freed_memory(device: torch.device) -> bool:
    """Tell glibc to keep and reuse freed memory; give whether it was told.

    Does nothing for a GPU, another C library, another allocator, or where MALLOC_ variables say
    what the user wants.
    """
    if device.type != "cpu" or platform.libc_ver()[0] != "glibc":
        return False
    preloaded = os.environ.get("LD_PRELOAD", "")
    if any(name in preloaded for name in _OTHER_ALLOCATORS):
        return False
    if any(name.startswith("MALLOC_") for name in os.environ):
        return False
    library = ctypes.CDLL(None)
    # Blocks from mmap are never reused, and other arenas than the first cannot hold large ones.
    settings = {_M_ARENA_MAX: 1, _M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: _LARGEST_INT}
    return all(library.mallopt(name, value) == 1 for name, value in settings.items())
