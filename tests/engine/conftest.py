"""A tiny dataset and recipe for tests that start real runs, and how they are started."""

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from mmtool.testing.fakes import FakeModality, write_fake_store

RECIPE = """data.dataset = "fake"

[model]
encoders.audio = "mlp"
encoders.image = "mlp"
fusion = "concat"

[train]
epochs = 2
batch_size = 8
lr = 0.05
checkpoint_every_steps = 5

[launch]
device = "cpu"
gpus = 2

[log]
every_steps = 1
probes = false
"""
_FOREIGN = ("RANK", "WORLD_SIZE", "MASTER_", "SLURM_", "MMTOOL_", "TORCHELASTIC_")


@dataclass(frozen=True)
class Ended:
    """What came of a command."""

    code: int
    stdout: str
    stderr: str

    @property
    def run(self) -> Path:
        return Path(self.stdout.split()[-1])


@dataclass(frozen=True)
class TinyRuns:
    """Starts runs of the tiny recipe, each below a folder of its own."""

    home: Path
    env: dict[str, str] = field(default_factory=dict)

    def environment(self, **more: str) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(_FOREIGN)}
        return {**kept, "OMP_NUM_THREADS": "1", "MMTOOL_DATA": str(self.home / "data"), **more}

    def command(self, runs: Path, *options: str) -> list[str]:
        recipe = str(self.home / "tiny.toml")
        return [sys.executable, "-m", "mmtool", "train", recipe, "--runs-dir", str(runs), *options]

    def start(self, runs: Path, *options: str, **variables: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            self.command(runs, *options),
            env=self.environment(**variables),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def train(self, runs: Path, *options: str, fault: str = "", **variables: str) -> Ended:
        planted = {"MMTOOL_FAULT": fault} if fault else {}
        return ended(self.start(runs, *options, **planted, **variables))

    def resume(self, run: Path, *options: str) -> Ended:
        command = [sys.executable, "-m", "mmtool", "train", "--resume", str(run), "-q", *options]
        return ended(
            subprocess.Popen(
                command,
                env=self.environment(),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )


def ended(process: "subprocess.Popen[str]") -> Ended:
    stdout, stderr = process.communicate(timeout=240)
    return Ended(process.returncode, stdout, stderr)


def the_run(runs: Path) -> Path:
    (run,) = (path for path in runs.iterdir() if not path.is_symlink() and path.is_dir())
    return run


def status(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "status.json").read_text(encoding="utf-8"))
    return found


def weights_hash(run: Path) -> str:
    """Give the hash of the weights a run ended with; the files differ in their metadata."""
    newest = max((run / "ckpt").glob("step[0-9]*"))
    digest = hashlib.sha256(newest.name.encode())
    for name, value in sorted(load_file(newest / "model.safetensors").items()):
        digest.update(name.encode())
        digest.update(value.tobytes())
    return digest.hexdigest()


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> TinyRuns:
    """The tiny recipe and its prepared dataset."""
    home = tmp_path_factory.mktemp("tiny")
    shape = FakeModality((6,), "spectrogram")
    splits = {"train": 61, "val": 12, "test": 12}
    write_fake_store(home / "data" / "fake", {"audio": shape, "image": shape}, splits=splits)
    (home / "tiny.toml").write_text(RECIPE, encoding="utf-8")
    return TinyRuns(home)


@pytest.fixture(scope="session")
def launching():
    """What tests of launched runs ask of a run directory."""
    from types import SimpleNamespace

    return SimpleNamespace(ended=ended, the_run=the_run, status=status, weights_hash=weights_hash)


_MODULES = """
import json, sys
from mmtool.cli.app import run
code = run(sys.argv[2:])
with open(sys.argv[1], "w") as file:
    json.dump(sorted(sys.modules), file)
sys.exit(code)
"""


@dataclass(frozen=True)
class Undisturbed:
    """A run of two ranks that nothing happened to."""

    run: Path
    hash: str
    modules: frozenset[str]
    """What the launching process had imported at the end."""


@pytest.fixture(scope="session")
def undisturbed(tiny, tmp_path_factory) -> Undisturbed:
    """The run that all others must agree with."""
    runs = tmp_path_factory.mktemp("undisturbed")
    listed = tiny.home / "modules.json"
    command = [sys.executable, "-c", _MODULES, str(listed), *tiny.command(runs)[3:]]
    subprocess.run(command, env=tiny.environment(), check=True, capture_output=True, text=True)
    modules = frozenset(json.loads(listed.read_text(encoding="utf-8")))
    run = the_run(runs)
    return Undisturbed(run, weights_hash(run), modules)
