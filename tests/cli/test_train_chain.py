"""`mmtool train` on a recipe that builds on other runs: a chain, resumable at every link."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mmtool.testing.fakes import FakeModality, write_fake_store

RECIPE = """data.dataset = "fake"

[model]
encoders.audio = {name = "mlp", hidden = [8]}
encoders.image = {name = "mlp", hidden = [8]}

[method]
name = "umt"

[train]
epochs = 2
batch_size = 8
lr = 0.05

[launch]
device = "cpu"

[log]
every_steps = 1
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chain")
    shape = FakeModality((6,), "spectrogram")
    splits = {"train": 24, "val": 8, "test": 8}
    write_fake_store(folder / "data" / "fake", {"audio": shape, "image": shape}, splits=splits)
    (folder / "umt.toml").write_text(RECIPE, encoding="utf-8")
    return folder


@pytest.fixture
def call(home, tmp_path):
    """Run the command in a process of its own."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("RANK", "SLURM_"))}
    environment |= {
        "OMP_NUM_THREADS": "1",
        "MMTOOL_DATA": str(home / "data"),
        "MMTOOL_RUNS": str(tmp_path / "runs"),
    }

    def start(*words, **more):
        command = [sys.executable, "-m", "mmtool", "train", *map(str, words)]
        return subprocess.Popen(
            command,
            env={**environment, **more},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
        )

    def run(*words, **more):
        process = start(*words, **more)
        out, err = process.communicate(timeout=240)
        return process.returncode, out, err

    run.start = start
    run.recipe = str(home / "umt.toml")
    run.runs = tmp_path / "runs"
    return run


def teachers(runs):
    return sorted(runs.glob("teachers/*"))


def status(run):
    return json.loads((Path(run) / "status.json").read_text(encoding="utf-8"))


def states(runs):
    return [status(run)["state"] for run in teachers(runs)]


def test_one_command_trains_the_teachers_and_then_the_run(call):
    code, out, err = call(call.recipe, "--json")

    assert code == 0, err
    (run,) = json.loads(out)["runs"]
    found = status(run["run"])
    assert found["state"] == "done"
    assert list(found["teachers"]) == ["audio", "image"]
    assert [Path(t["run"]) for t in found["teachers"].values()] == teachers(call.runs)
    assert states(call.runs) == ["done", "done"]
    assert "audio alone, link 1 of 2" in err
    audio = teachers(call.runs)[0]
    assert 'modalities = ["audio"]' in (audio / "resolved.toml").read_text(encoding="utf-8")
    assert (call.runs / "latest").resolve() == Path(run["run"]).resolve()


def test_teachers_are_found_again_by_other_methods_and_not_trained_twice(call):
    first = call(call.recipe, "--json")
    before = {run: (run / "log" / "rank0.jsonl").read_bytes() for run in teachers(call.runs)}
    code, _, err = call(call.recipe, "-s", "method=g2d", "--json")
    other = call(call.recipe, "--seed", "1", "-q")

    assert first[0] == code == other[0] == 0, err
    assert err.count("found in") == 2
    assert {r: (r / "log" / "rank0.jsonl").read_bytes() for r in before} == before
    assert len(teachers(call.runs)) == 4  # the other seed has teachers of its own


def test_a_dry_run_tells_the_chain_and_writes_nothing(call):
    code, out, err = call(call.recipe, "--dry-run", "--json")

    assert code == 0, err
    links = json.loads(out)["links"]
    assert [link.split(":")[0] for link in links] == ["audio alone", "image alone"]
    assert all("is trained first" in link for link in links)
    assert not call.runs.exists()


@pytest.mark.slow
def test_numbers_are_the_same_on_two_ranks(call):
    one = call(call.recipe, "--json")
    two = call(call.recipe, "--json", "--gpus", "2", "--runs-dir", call.runs / "two")

    assert one[0] == two[0] == 0, two[2]
    accuracies = [json.loads(found[1])["runs"][0]["accuracy"] for found in (one, two)]
    assert accuracies[0] == accuracies[1]
    names = [[run.name for run in teachers(folder)] for folder in (call.runs, call.runs / "two")]
    assert names[0] == names[1]


def stop_in_first_link(call):
    """Start a long chain, send SIGINT once its first link has a checkpoint, and let it end."""
    process = call.start(call.recipe, "--json", "-s", "train.epochs=60")
    deadline = time.monotonic() + 120
    while not any(call.runs.glob("teachers/audio_*/ckpt/step[0-9]*")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    return process.returncode, json.loads(out)["runs"][0]["run"], err


def attempts(run):
    lines = (run / "log" / "rank0.jsonl").read_text(encoding="utf-8").splitlines()
    return [e["attempt"] for e in map(json.loads, lines) if e["k"] == "head"]


def test_a_stop_in_a_link_is_resumed_there_by_the_run(call):
    code, run, err = stop_in_first_link(call)
    stopped, before = status(run), states(call.runs)
    again = call("--resume", run, "-q")

    assert code == 75, err
    assert f"mmtool train --resume {run}" in err
    assert (stopped["state"], stopped["resumable"]) == ("stopped", True)
    assert before == ["stopped"]
    assert again[0] == 0, again[2]
    assert status(run)["state"] == "done"
    assert attempts(teachers(call.runs)[0]) == [1, 2]
    assert attempts(Path(run)) == [1]


@pytest.mark.slow
def test_the_same_command_again_goes_on_with_the_link_that_was_stopped(call):
    stop_in_first_link(call)
    code, _, err = call(call.recipe, "-q", "-s", "train.epochs=60")

    assert code == 0, err
    assert states(call.runs) == ["done", "done"]
    assert attempts(teachers(call.runs)[0]) == [1, 2]


@pytest.mark.slow
def test_a_stop_in_the_run_itself_keeps_its_teachers(call):
    process = call.start(call.recipe, "--json", "-s", "train.epochs=60")
    deadline = time.monotonic() + 120
    while not any(call.runs.glob("2*/ckpt/step[0-9]*")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    run = Path(json.loads(out)["runs"][0]["run"])
    kept = status(run)["teachers"]
    again = call("--resume", run, "-q")

    assert process.returncode == 75, err
    assert again[0] == 0, again[2]
    assert status(run)["teachers"] == kept
    assert [attempts(t) for t in teachers(call.runs)] == [[1], [1]]


@pytest.mark.slow
def test_two_commands_at_once_train_each_link_once(call):
    both = [call.start(call.recipe, "-q") for _ in range(2)]
    ended = [process.communicate(timeout=240) for process in both]

    assert [process.returncode for process in both] == [0, 0], ended
    assert [attempts(t) for t in teachers(call.runs)] == [[1], [1]]


@pytest.mark.slow
def test_seeds_have_chains_of_their_own(call):
    code, out, err = call(call.recipe, "--seeds", "0,1", "--json")

    assert code == 0, err
    assert [run["seed"] for run in json.loads(out)["runs"]] == [0, 1]
    assert len(teachers(call.runs)) == 4


def test_a_damaged_teacher_is_named_with_the_way_out(call):
    assert call(call.recipe, "-q")[0] == 0
    audio = teachers(call.runs)[0]
    weights = max(audio.glob("ckpt/best*")) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    code, _, err = call(call.recipe)

    assert code == 65
    assert "the audio teacher is damaged" in err
    assert f"rm -r {audio}" in err
    assert "image" not in err


@pytest.mark.slow
def test_a_run_may_name_its_teachers(call):
    assert call(call.recipe, "-q")[0] == 0
    audio = teachers(call.runs)[0].rename(call.runs / "chosen")
    named = f"method.teachers.audio={audio}"
    code, out, err = call(call.recipe, "-s", named, "--json")

    assert code == 0, err
    used = status(json.loads(out)["runs"][0]["run"])["teachers"]
    assert used["audio"]["run"] == str(audio.resolve())
    assert len(teachers(call.runs)) == 1


@pytest.fixture
def slurm(tmp_path):
    """The search path with an sbatch in front that takes any job."""
    folder = tmp_path / "bin"
    folder.mkdir()
    sbatch = folder / "sbatch"
    sbatch.write_text("#!/bin/sh\necho 7\n", encoding="utf-8")
    sbatch.chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}"}


def test_a_job_of_one_task_trains_the_chain_when_it_starts(call, slurm):
    code, out, err = call(call.recipe, "--slurm", "--json", **slurm)
    (run,) = json.loads(out)["runs"]
    queued = status(run)["state"], teachers(call.runs)
    started = call("--resume", run, "-q")

    assert code == 0, err
    assert queued == ("queued", [])
    assert started[0] == 0, started[2]
    assert status(run)["state"] == "done"
    assert states(call.runs) == ["done", "done"]


@pytest.mark.slow
def test_a_job_of_several_tasks_needs_its_teachers_before(call, slurm):
    code, _, err = call(call.recipe, "--slurm", "--gpus", "2", **slurm)
    nothing = not call.runs.exists()
    assert call(call.recipe, "-q")[0] == 0
    after = call(call.recipe, "--slurm", "--gpus", "2", "-q", **slurm)

    assert code == 2
    assert "audio, image alone has to be trained first" in err
    assert "--slurm --gpus 1" in err
    assert nothing
    assert after[0] == 0, after[2]
