"""What all tests share: where the kit of real data lies, and quiet surroundings."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def kit() -> Path:
    """The folder of real, openly licensed data, where there is one."""
    folder = Path(os.environ.get("MMTOOL_KIT") or ROOT.parent / "shared" / "kit")
    if not (folder / "MANIFEST.sha256").is_file():
        pytest.skip(f"no kit of real data in {folder} (set MMTOOL_KIT)")
    return folder


@pytest.fixture(autouse=True)
def _own_surroundings(monkeypatch):
    """Keep the user's data, runs and colour settings out of the tests."""
    for name in ("MMTOOL_DATA", "MMTOOL_RUNS", "NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
