"""What is noted about the environment."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mmtool.runlog import env as env_module
from mmtool.runlog.env import describe_environment, describe_git


def git(folder: Path, *arguments: str) -> None:
    name = ["-c", "user.name=T", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *name, *arguments], cwd=folder, check=True, capture_output=True)


def test_the_description_is_plain_json_and_names_what_changes_results() -> None:
    env = describe_environment(["mmtool", "train", "x.toml"])
    assert json.loads(json.dumps(env)) == env
    assert env["argv"] == ["mmtool", "train", "x.toml"]
    assert env["versions"]["numpy"]
    assert env["python"] == ".".join(map(str, sys.version_info[:3]))
    assert env["cpus"] >= 1


def test_a_checkout_is_described_by_commit_and_whether_it_is_changed(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q", "-b", "main")
    (tmp_path / "code.py").write_text("x = 1\n")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "first")
    clean = describe_git(tmp_path)
    assert clean is not None
    assert len(clean["commit"]) == 40
    assert (clean["branch"], clean["is_dirty"]) == ("main", False)
    (tmp_path / "code.py").write_text("x = 2\n")
    changed = describe_git(tmp_path)
    assert changed is not None
    assert changed["is_dirty"] is True


def test_outside_a_checkout_there_is_no_git_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert describe_git(tmp_path) is None


def test_a_machine_without_git_and_with_a_removed_folder_is_described_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    monkeypatch.setenv("PATH", "")
    env = describe_environment([])
    assert env["git"] is None
    assert env["cwd"] is None


def test_describing_imports_no_training_library() -> None:
    code = (
        "import sys; from mmtool.runlog.env import describe_environment; describe_environment([]);"
        "print([m for m in ('torch', 'pandas', 'cv2') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_git_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "git"
    fake.write_text("#!/bin/sh\nexec tail -f /dev/null\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(env_module, "_GIT_TIMEOUT_S", 0.05)
    assert describe_git(tmp_path) is None
