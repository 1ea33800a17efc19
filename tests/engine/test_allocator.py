"""Freed memory is kept for a run on the CPU, and only where that is known to be safe."""

import subprocess
import sys

import pytest
import torch

from mmtool.engine.allocator import keep_freed_memory

_FAULTS = """
import resource, sys, torch
from mmtool.engine.allocator import keep_freed_memory
torch.set_num_threads(1)
if sys.argv[1] == "keep":
    assert keep_freed_memory(torch.device("cpu"))
def work():
    return float(torch.ones(9, 1 << 20).sum())
for _ in range(8):  # the heap grows to what a step needs
    work()
found = []
for _ in range(4):  # the system may take pages back at any time, but not each time
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    work()
    found.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(min(found))
"""


def faults(how):
    command = [sys.executable, "-c", _FAULTS, how]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return int(done.stdout)


@pytest.fixture
def plain_environment(monkeypatch):
    import os

    for name in list(os.environ):
        if name.startswith("MALLOC_") or name == "LD_PRELOAD":
            monkeypatch.delenv(name)
    if sys.platform != "linux":
        pytest.skip("glibc only")


def test_a_tensor_of_a_size_that_was_freed_needs_no_new_pages(plain_environment):
    assert faults("keep") < faults("leave") / 10


@pytest.mark.parametrize(
    ("device", "name", "value"),
    [
        ("cuda", "UNRELATED", "1"),
        ("cpu", "MALLOC_ARENA_MAX", "2"),
        ("cpu", "LD_PRELOAD", "/usr/lib/libjemalloc.so.2"),
    ],
)
def test_nothing_is_set_for_gpus_other_allocators_or_against_the_user(
    device, name, value, plain_environment, monkeypatch
):
    monkeypatch.setenv(name, value)

    assert not keep_freed_memory(torch.device(device))
