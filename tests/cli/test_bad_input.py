"""Bad input as a new user meets it: the message, the exit code, and that nothing is left behind."""

import json
import shutil
import wave
from pathlib import Path

import numpy as np
import pytest
import torch

from mmtool.cli.app import run
from mmtool.testing.fakes import FakeModality, write_fake_store

RECIPE = """\
[data]
dataset = "fake"

[model.encoders]
audio = "mlp"

[method]
name = "none"

[train]
epochs = 1
batch_size = 16
lr = 0.1
"""


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_fake_store(tmp_path / "data" / "fake", {"audio": FakeModality((6,), "spectrogram")})
    (tmp_path / "r.toml").write_text(RECIPE)
    return tmp_path


def said(capsys, *arguments: str) -> tuple[int, str]:
    code = run(list(arguments))
    return code, capsys.readouterr().err


def wav(path: Path, samples: int = 1600) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        tone = np.sin(np.arange(samples) / 9) * 9000
        file.writeframes(tone.astype("<i2").tobytes())
    return path


def manifest(home: Path, text: str) -> str:
    (home / "m.csv").write_text(text)
    return str(home / "m.csv")


def assert_no_store(home: Path) -> None:
    assert not (home / "out").exists()
    assert not list(home.glob("out*/manifest.json"))


def test_unknown_dataset(home, capsys):
    code, error = said(capsys, "prepare", "avdigts")

    assert code == 2
    assert "did you mean 'avdigits'" in error


def test_a_recipe_whose_dataset_is_not_prepared(home, capsys):
    code, error = said(capsys, "train", "r.toml", "-s", "data.dataset=fak")

    assert code == 4
    assert "did you mean 'fake'" in error
    assert not (home / "runs").exists()


def test_a_typo_and_a_wrong_type_are_shown_together_with_their_places(home, capsys):
    broken = RECIPE.replace("epochs", "epoch").replace("lr = 0.1", 'lr = "0.1"')
    (home / "r.toml").write_text(broken)

    code, error = said(capsys, "train", "r.toml")

    assert code == 2
    assert "r.toml:11:1" in error
    assert "did you mean 'epochs'" in error
    assert "r.toml:13:" in error
    assert not (home / "runs").exists()


def test_a_recipe_that_is_not_there(home, capsys):
    code, error = said(capsys, "train", "quickstar")

    assert code == 2
    assert "did you mean 'quickstart'" in error


def test_a_missing_source(home, capsys):
    code, error = said(capsys, "prepare", "manifest", "--source", "nowhere.csv", "--out", "out")

    assert code == 2
    assert "nowhere.csv" in error
    assert_no_store(home)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda p: p.write_bytes(p.read_bytes()[:900]), "truncated"),
        (lambda p: wav(p, samples=0), "too-short"),
        (lambda p: p.write_text("<!DOCTYPE html><html>not found</html>"), "html"),
        (
            lambda p: p.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
            "lfs",
        ),
    ],
    ids=["truncated", "empty", "web-page", "lfs-pointer"],
)
def test_sound_that_cannot_be_used_is_named_and_nothing_is_published(home, capsys, damage, reason):
    rows = "".join(f"c{n},{n % 2},train,{wav(home / f'{n}.wav').name}\n" for n in range(4))
    damage(home / "2.wav")
    source = manifest(home, "id,label,split,audio\n" + rows)

    code, error = said(capsys, "prepare", "manifest", "--source", source, "--out", "out")

    assert code == 1
    assert "c2" in error
    assert reason in error.lower()
    assert_no_store(home)


def test_text_renamed_to_mp4(home, capsys):
    (home / "a.mp4").write_text("this is a note, not a video\n" * 20)
    source = manifest(home, "id,label,split,video\na,x,train,a.mp4\n")

    code, error = said(capsys, "prepare", "manifest", "--source", source, "--out", "out")

    assert code == 2
    assert "not-media: 1" in error
    assert "a.mp4" in error
    assert_no_store(home)


def test_a_manifest_without_labels(home, capsys):
    wav(home / "a.wav")
    source = manifest(home, "id,lable,audio\na,x,a.wav\n")

    code, error = said(capsys, "prepare", "manifest", "--source", source, "--out", "out")

    assert code == 2
    assert "label" in error
    assert_no_store(home)


def test_one_id_in_two_splits(home, capsys):
    wav(home / "a.wav")
    source = manifest(home, "id,label,split,audio\na,x,train,a.wav\na,x,test,a.wav\n")

    code, error = said(capsys, "prepare", "manifest", "--source", source, "--out", "out")

    assert code == 2
    assert "'a'" in error
    assert_no_store(home)


def test_a_number_that_is_none_in_a_series(home, capsys):
    (home / "s.csv").write_text("x,y\n1,2\n3,nan\n")
    source = manifest(home, "id,label,split,motion\na,x,train,s.csv\n")

    code, error = said(capsys, "prepare", "manifest", "--source", source, "--out", "out")

    assert code == 1
    assert "non-finite" in error
    assert "s.csv:3: column 2" in error
    assert_no_store(home)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has GPUs")
def test_gpus_that_are_not_there(home, capsys):
    code, error = said(capsys, "train", "r.toml", "--gpus", "4")

    assert code == 2
    assert "--device cpu --gpus 4" in error
    assert not (home / "runs").exists()


@pytest.mark.parametrize("command", [("diagnose",), ("train", "--resume")], ids=" ".join)
def test_a_directory_that_is_not_a_run(home, capsys, command):
    (home / "empty").mkdir()

    code, error = said(capsys, *command, "empty")

    assert code == 2
    assert "empty" in error
    assert not any((home / "empty").iterdir())


def test_a_store_of_a_newer_version(home, capsys):
    path = home / "data" / "fake" / "manifest.json"
    value = json.loads(path.read_text())
    path.write_text(json.dumps({**value, "version": "9.0"}))

    code, error = said(capsys, "train", "r.toml")

    assert code == 1
    assert "9.0" in error
    assert "upgrade" in error
    assert not (home / "runs").exists()


def test_a_store_with_a_flipped_bit_names_the_file(home, capsys):
    path = sorted((home / "data" / "fake").glob("shard-*.bin"))[0]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)

    code, error = said(capsys, "train", "r.toml")

    assert code == 1
    assert path.name in error


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder nobody can write")
def test_places_that_cannot_be_written(home, capsys):
    # /proc refuses new files even to the administrator, unlike a folder without the w bit.
    code, error = said(capsys, "train", "r.toml", "--runs-dir", "/proc/mmtool")
    assert code == 74
    assert "/proc/mmtool" in error

    wav(home / "a.wav")
    source = manifest(home, "id,label,split,audio\na,x,train,a.wav\n")
    code, error = said(capsys, "prepare", "manifest", "--source", source, "--out", "/proc/mmtool/s")
    assert code == 4
    assert "/proc" in error


def test_a_damaged_checkpoint_is_passed_over_and_named(home, capsys):
    run_dir = first_run(home, capsys, "-s", "train.epochs=3", "-s", "train.select=last")
    newest = sorted((run_dir / "ckpt").glob("step*"))[-1] / "state.pt"
    newest.write_bytes(newest.read_bytes()[:-100])
    mark_stopped(run_dir)

    code, _ = said(capsys, "train", "--resume", str(run_dir))

    log = (run_dir / "log" / "rank0.jsonl").read_text()
    assert code == 0
    assert "passed over" in log
    assert "state.pt" in log


def test_without_a_good_checkpoint_a_run_is_not_started_anew(home, capsys):
    run_dir = first_run(home, capsys)
    for state in (run_dir / "ckpt").glob("step*/state.pt"):
        state.write_bytes(b"")
    mark_stopped(run_dir)

    code, error = said(capsys, "train", "--resume", str(run_dir))

    assert code == 65
    assert "no usable checkpoint" in error


def test_a_pickle_that_runs_code_is_not_loaded(home, capsys):
    run_dir = first_run(home, capsys)

    class Evil:
        def __reduce__(self):
            return (shutil.rmtree, (str(home / "data"),))

    for folder in (run_dir / "ckpt").glob("step*"):
        torch.save({"progress": Evil()}, folder / "state.pt")
        rewrite_manifest(folder)
    mark_stopped(run_dir)

    code, _ = said(capsys, "train", "--resume", str(run_dir))

    assert code != 0
    assert (home / "data").is_dir()


def first_run(home: Path, capsys, *overrides: str) -> Path:
    assert run(["train", "r.toml", "-q", *overrides]) == 0
    return home / capsys.readouterr().out.strip()


def mark_stopped(run_dir: Path) -> None:
    path = run_dir / "status.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "state": "stopped"}))


def rewrite_manifest(folder: Path) -> None:
    import hashlib

    path = folder / "manifest.json"
    value = json.loads(path.read_text())
    data = (folder / "state.pt").read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    value["files"]["state.pt"] = {"bytes": len(data), "sha256": digest}
    path.write_text(json.dumps(value))
