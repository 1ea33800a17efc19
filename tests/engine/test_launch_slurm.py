"""The batch script, and when a job queues itself again; without a SLURM."""

import json
import subprocess
from pathlib import Path

import pytest

from mmtool.config.dump import to_toml
from mmtool.config.schema import LaunchConfig, Recipe
from mmtool.engine.batch import main, requeue
from mmtool.engine.slurm import Job, script, write_script
from mmtool.runlog.rundir import RunDir


def job(**changes):
    facts = {"name": "mmtool-tiny", "nodes": 2, "tasks_per_node": 4, "launch": LaunchConfig()}
    return Job(**(facts | changes))


def directives(text):
    return [line.removeprefix("#SBATCH --") for line in text.splitlines() if "#SBATCH" in line]


def test_the_script_asks_for_a_task_per_gpu_and_a_warning():
    text = script(job(time="08:00:00", partition="gpu"), Path("/runs/one"))

    found = directives(text)
    assert {"nodes=2", "ntasks-per-node=4", "gpus-per-node=4"} <= set(found)
    assert {"time=08:00:00", "partition=gpu", "requeue", "open-mode=append"} <= set(found)
    assert {"signal=USR1@120", "output=/runs/one/slurm-%j.out"} <= set(found)
    assert "srun --kill-on-bad-exit=0 --wait=60 " in text
    assert "torchrun" not in text
    assert "array" not in text


def test_every_directive_stands_before_the_first_command():
    lines = script(job(), Path("/runs/one")).splitlines()
    first_command = next(i for i, line in enumerate(lines) if line and not line.startswith("#"))

    assert lines[0] == "#!/bin/bash"
    assert not any(line.startswith("#SBATCH") for line in lines[first_command:])


def test_cpu_ranks_ask_for_no_gpus_but_for_their_threads():
    found = script(job(launch=LaunchConfig(device="cpu", threads=3)), Path("/runs/one"))

    assert "gpus" not in found
    assert "cpus-per-task=3" in directives(found)
    assert "srun --kill-on-bad-exit=0 --wait=60 --cpus-per-task=3 " in found


@pytest.mark.parametrize("num_runs", [1, 3])
@pytest.mark.parametrize("name", ["plain", "with a space", "it's"])
def test_the_script_is_bash_whatever_the_folder_is_called(name, num_runs, tmp_path):
    folder = tmp_path / name
    folder.mkdir()
    path = write_script(job(num_at_once=2), folder, [folder / str(n) for n in range(num_runs)])

    subprocess.run(["bash", "-n", str(path)], check=True)
    assert ("array=0-2%2" in directives(path.read_text())) is (num_runs > 1)


def test_an_element_of_an_array_finds_its_run(tmp_path, capsys):
    write_script(job(), tmp_path, [Path("/runs/a"), Path("/runs/b")])

    assert main(["element", str(tmp_path / "runs.json"), "1"]) == 0
    assert capsys.readouterr().out == "/runs/b\n"


@pytest.fixture
def run(tmp_path) -> RunDir:
    """A run that has saved step 40."""
    recipe = Recipe.model_validate(
        {
            "data": {"dataset": "fake"},
            "model": {"encoders": {"audio": {"name": "mlp"}}},
            "train": {"epochs": 1, "batch_size": 4},
            "launch": {"max_restarts": 1},
        }
    )
    made = RunDir(tmp_path)
    (tmp_path / "log").mkdir()
    (tmp_path / "ckpt" / "step00000040").mkdir(parents=True)
    made.write_recipe("", to_toml(recipe))
    made.write_launch({"attempt": 1, "data_root": "data"})
    return made


def save(run, step):
    (run.ckpt_dir / f"step{step:08d}").mkdir()


def test_a_stopped_job_queues_again_as_long_as_it_gets_on(run):
    assert requeue(run, 75, 0, 30)[0]
    assert requeue(run, 75, 1, 30) == (False, "only 0 steps were gained since the last time")
    save(run, 45)
    assert not requeue(run, 75, 1, 30)[0]
    assert requeue(run, 75, 1, 90)[0]
    save(run, 60)
    assert requeue(run, 75, 2, 30)[0]
    assert [entry["step"] for entry in json.loads((run.path / "requeues.json").read_text())] == [
        40, 45, 60,
    ]  # fmt: skip


def test_a_job_does_not_queue_for_ever(run):
    assert not requeue(run, 75, 50, 3600)[0]


@pytest.mark.parametrize("code", [0, 1, 2, 3, 65, 70, 74, 76, 77, 130])
def test_what_would_come_again_is_not_tried_again(run, code):
    assert not requeue(run, code, 0, 3600)[0]


@pytest.mark.parametrize("code", [79, 137, 139])
def test_a_machine_that_failed_is_tried_as_often_as_the_recipe_allows(run, code):
    assert requeue(run, code, 0, 3600)[0]
    save(run, 80)
    refused, why = requeue(run, code, 1, 3600)
    assert not refused
    assert why == "it failed 2 times, launch.max_restarts is 1"


def test_a_lost_connection_is_the_machine_s_failure(run):
    report = run.log_dir / "attempt1.rank0.error.json"
    report.write_text(json.dumps({"kind": "PeerLost", "what": "lost contact"}))

    assert requeue(run, 1, 0, 30)[0]


def test_the_script_is_answered_in_words_and_by_code(run, capsys):
    assert main(["requeue", str(run.path), "75", "0", "30"]) == 0
    assert main(["requeue", str(run.path), "1", "1", "30"]) == 1

    first, second = capsys.readouterr().out.splitlines()
    assert first == "mmtool: exit code 75, queued again: 40 steps were gained and saved"
    assert second.startswith("mmtool: exit code 1, not queued again")
