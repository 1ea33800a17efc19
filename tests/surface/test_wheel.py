"""What travels in the wheel: exactly the files of the repository, and a first run works from it."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    out = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), "."],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (built,) = out.glob("*.whl")
    return built


def shipped(folder: str) -> set[str]:
    skipped = ("__pycache__",)
    return {
        p.relative_to(ROOT).as_posix()
        for p in (ROOT / folder).rglob("*")
        if p.is_file() and not set(p.parts) & set(skipped)
    }


def test_the_wheel_holds_the_package_and_its_content_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = {n for n in archive.namelist() if ".dist-info/" not in n}

    bundled = {f"mmtool/_bundled/{n}" for f in ("recipes", "data_prep") for n in shipped(f)}
    assert names == shipped("mmtool") | bundled
    assert "mmtool/_bundled/data_prep/samples/avdigits/NOTICE.txt" in names
    assert "mmtool/_bundled/recipes/quickstart.toml" in names
    assert "mmtool/py.typed" in names


def test_the_licences_travel_with_it(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = [n.split(".dist-info/")[1] for n in archive.namelist() if ".dist-info/" in n]

    assert any(n.endswith("LICENSE") for n in names)
    assert any(n.endswith("NOTICE.txt") for n in names)


def test_quickstart_works_from_the_wheel_in_an_empty_directory(wheel, tmp_path):
    site, home = tmp_path / "site", tmp_path / "home"
    home.mkdir()
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-compile"]
    subprocess.run([*install, "--target", str(site), str(wheel)], check=True, capture_output=True)
    env = {**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}
    where = [sys.executable, "-c", "import mmtool; print(mmtool.__file__)"]
    found = subprocess.run(where, cwd=home, env=env, check=True, capture_output=True, text=True)
    assert found.stdout.startswith(str(site))

    command = [sys.executable, "-m", "mmtool", "train", "quickstart", "-s", "train.epochs=1"]
    done = subprocess.run(command, cwd=home, env=env, check=False, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    assert (home / done.stdout.strip() / "status.json").is_file()
    assert sorted(p.name for p in home.iterdir()) == ["data", "runs"]
