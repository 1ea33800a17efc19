"""Help, completion and lists answer without loading the heavy libraries."""

import json
import subprocess
import sys

import pytest

HEAVY = ("torch", "pandas", "cv2", "torchvision", "torchaudio", "torchcodec")


def loaded_after(*arguments: str) -> set[str]:
    code = (
        "import sys, json, io, contextlib\n"
        "from mmtool.cli.app import main\n"
        f"sys.argv = ['mmtool', *{list(arguments)!r}]\n"
        "try:\n"
        "    with contextlib.redirect_stdout(io.StringIO()):\n"
        "        main()\n"
        "except SystemExit as end:\n"
        "    assert end.code in (0, None), end.code\n"
        "print(json.dumps(sorted(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    "arguments",
    [("--help",), ("train", "--help"), ("list",), ("list", "methods"), ("list", "recipes")],
    ids=" ".join,
)
def test_light_commands_load_nothing_heavy(arguments):
    loaded = loaded_after(*arguments)

    assert not loaded.intersection(HEAVY)
    assert "mmtool.cli.app" in loaded


def test_importing_the_package_loads_nothing_heavy():
    done = subprocess.run(
        [sys.executable, "-c", "import mmtool, sys; print('\\n'.join(sys.modules))"],
        capture_output=True,
        text=True,
        check=True,
    )

    assert not set(done.stdout.split()).intersection(HEAVY)


def test_torch_torchvision_and_torchaudio_import_together():
    code = "import torch, torchvision, torchaudio; print(torch.__version__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
