"""What a run ran on: versions, machine, code and GPUs, without importing anything heavy."""

import os
import platform
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

from mmtool.runlog.nvml import describe_gpus

PACKAGES = (
    "mmtool",
    "torch",
    "torchvision",
    "torchaudio",
    "torchcodec",
    "opencv-python-headless",
    "opencv-python",
    "numpy",
    "pandas",
    "pydantic",
    "safetensors",
)
_VARIABLES = ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "SLURM_JOB_ID", "PYTORCH_CUDA_ALLOC_CONF")
_GIT_TIMEOUT_S = 5.0


def describe_environment(argv: Sequence[str]) -> dict[str, Any]:
    """Give versions, machine, command line, git state and GPUs; never fails."""
    return {
        "argv": list(argv),
        "cwd": _cwd(),
        "versions": package_versions(),
        "python": platform.python_version(),
        "executable": sys.executable,
        "platform": platform.platform(),
        "host": socket.gethostname(),
        "cpus": os.cpu_count(),
        "cpus_allowed": _cpus_allowed(),
        "memory_mb": _memory_mb(),
        "variables": {name: os.environ[name] for name in _VARIABLES if name in os.environ},
        "git": describe_git(),
        "gpus": describe_gpus(),
    }


def package_versions() -> dict[str, str]:
    """Give the installed versions of the packages that can change a result."""
    versions = {}
    for name in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions


def describe_git(folder: Path | None = None) -> dict[str, Any] | None:
    """Give commit, branch and whether files are changed; None outside a checkout."""
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        return None
    changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return {
        "commit": commit,
        "branch": _git(folder, "rev-parse", "--abbrev-ref", "HEAD"),
        "is_dirty": None if changed is None else bool(changed),
    }


def _git(folder: Path | None, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=folder,
            # Reading the state must neither take the index lock nor ask anything.
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_GIT_TIMEOUT_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _cwd() -> str | None:
    try:
        return str(Path.cwd())
    except OSError:
        return None


def _cpus_allowed() -> int | None:
    """Cores this process may use; a scheduler or container often grants fewer than there are."""
    try:
        return len(os.sched_getaffinity(0))
    except (AttributeError, OSError):
        return None


def _memory_mb() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2**20
    except (AttributeError, OSError, ValueError):
        return None
