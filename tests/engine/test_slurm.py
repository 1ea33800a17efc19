"""Runs under a real SLURM, brought up here: warned, preempted, queued again, the same result."""

import json
import os
import subprocess
import threading
import time
from pathlib import Path

import pytest

from mmtool.registry import load_file

slurm = load_file(Path(__file__).with_name("slurm_cluster.py"))

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(slurm.why_not()), reason=slurm.why_not() or "can be brought up"),
]


@pytest.fixture(scope="module")
def cluster():
    with slurm.cluster() as variables:
        yield variables


def until(condition, run, within_s=180):
    pause, deadline = threading.Event(), time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            told = [path.read_text() for path in run.glob("slurm-*.out")]
            raise AssertionError(f"{run}: {told}")
        pause.wait(0.05)


def ask(cluster, *command):
    env = {**os.environ, **cluster}
    done = subprocess.run(command, env=env, check=True, capture_output=True, text=True)
    return done.stdout


def submitted(tiny, cluster, launching, runs, *options, fault=""):
    planted = {"MMTOOL_FAULT": fault} if fault else {}
    found = tiny.train(runs, "--slurm", *options, **cluster, **planted)
    assert found.code == 0, found.stderr
    return found.stdout.strip(), launching.the_run(runs)


def state_is(launching, run, state):
    return lambda: launching.status(run)["state"] == state


def check_same_result(launching, undisturbed, run, job):
    until(state_is(launching, run, "done"), run)
    told = (run / f"slurm-{job}.out").read_text(encoding="utf-8")
    (requeue,) = json.loads((run / "requeues.json").read_text(encoding="utf-8"))
    assert (requeue["step"], requeue["code"]) == (12, 75)
    assert "queued again: 12 steps were gained" in told
    assert launching.status(run)["attempt"] == 2
    assert launching.weights_hash(run) == undisturbed.hash


def lingering(tmp_path):
    """A fault that makes both ranks wait in step 11 for a signal, and the files that tell so."""
    files = [tmp_path / f"lingers{rank}" for rank in range(2)]
    return ";".join(f"linger:rank={r},step=11,file={f}" for r, f in enumerate(files)), files


def test_a_warned_job_saves_queues_again_and_ends_the_same(
    tiny, cluster, undisturbed, launching, tmp_path
):
    fault, files = lingering(tmp_path)
    job, run = submitted(tiny, cluster, launching, tmp_path / "runs", fault=fault)
    until(lambda: all(file.exists() for file in files), run)
    ask(cluster, "scancel", "--signal=USR1", job)

    check_same_result(launching, undisturbed, run, job)


def test_a_preempted_job_saves_queues_again_and_ends_the_same(
    tiny, cluster, undisturbed, launching, tmp_path
):
    fault, files = lingering(tmp_path)
    job, run = submitted(
        tiny, cluster, launching, tmp_path / "runs", "--partition", "low", fault=fault
    )
    until(lambda: all(file.exists() for file in files), run)
    other = ("--partition=high", "--ntasks=2", "--output=/dev/null", "--wrap=true")
    ask(cluster, "sbatch", "--parsable", *other)

    check_same_result(launching, undisturbed, run, job)


def test_a_time_limit_that_leaves_no_room_is_not_a_storm_of_requeues(
    tiny, cluster, launching, tmp_path
):
    limit = ("--time", "00:03:00")
    fault = f"linger:step=0,file={tmp_path / 'lingers'}"
    job, run = submitted(tiny, cluster, launching, tmp_path / "runs", *limit, fault=fault)
    output = run / f"slurm-{job}.out"
    until(lambda: output.exists() and "queued again" in output.read_text(), run)

    assert "exit code 75, not queued again: only 1 steps were gained" in output.read_text()
    assert launching.status(run)["state"] == "stopped"
    assert [path.name for path in (run / "ckpt").iterdir()] == ["step00000001"]


def test_seeds_are_an_array(tiny, cluster, launching, tmp_path):
    options = ("--seeds", "0,1", "--jobs", "2", "--gpus", "1", "--slurm", "--json")
    found = tiny.train(tmp_path, *options, **cluster)
    document = json.loads(found.stdout)
    runs = [Path(path) for path in document["runs"]]
    for run in runs:
        until(state_is(launching, run, "done"), run)

    folder = Path(document["script"]).parent
    assert json.loads((folder / "runs.json").read_text()) == document["runs"]
    assert len(list(folder.glob(f"slurm-{document['job']}_*.out"))) == 2
    assert launching.weights_hash(runs[0]) != launching.weights_hash(runs[1])


def test_what_sbatch_refuses_is_explained(tiny, cluster, tmp_path):
    found = tiny.train(tmp_path, "--slurm", "--partition", "nowhere", **cluster)

    assert found.code == 2
    assert "sbatch refused the job" in found.stderr
    assert "invalid partition" in found.stderr


def test_a_dry_run_prints_the_script_alone(tiny, tmp_path):
    found = tiny.train(tmp_path / "runs", "--slurm", "--dry-run", "--nodes", "2")

    assert found.code == 0, found.stderr
    assert found.stdout.startswith("#!/bin/bash\n")
    assert "#SBATCH --nodes=2\n#SBATCH --ntasks-per-node=2\n" in found.stdout
    assert not (tmp_path / "runs").exists()
