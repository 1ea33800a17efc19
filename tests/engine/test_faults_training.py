"""Faults inside of training: what a run does about them, says of them, and ends with."""

import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file

pytestmark = pytest.mark.slow


def events(run):
    lines = (run / "log" / "rank0.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def of_kind(run, what):
    return [e for e in events(run) if e.get("what") == what]


def newest_weights(run):
    return load_file(max((run / "ckpt").glob("step[0-9]*")) / "model.safetensors")


@pytest.mark.parametrize("kind", ["nan", "inf"])
def test_a_step_that_is_not_finite_stops_the_run_and_is_explained(kind, tiny, launching, tmp_path):
    found = tiny.train(tmp_path, fault=f"{kind}:rank=1,step=7")
    run = launching.the_run(tmp_path)
    (event,) = of_kind(run, "nonfinite")

    assert found.code == 76, found.stderr
    assert (event["step"], event["modalities"], event["terms"]) == (7, ["audio"], ["fused"])
    assert event["stored"] == []
    assert len(event["samples"]) == 1
    assert event["samples"][0] in found.stderr
    assert "step 7" in found.stderr
    assert "audio" in found.stderr
    assert "train.on_nonfinite=skip" in found.stderr
    assert launching.status(run)["exit_code"] == 76


def test_with_skip_all_ranks_leave_the_step_out_and_go_on(tiny, launching, tmp_path):
    skip = ("-s", "train.on_nonfinite=skip", "-s", "log.every_steps=3")
    both = [
        tiny.train(tmp_path / f"{rank}", *skip, fault=f"nan:rank={rank},step=7") for rank in (0, 1)
    ]
    steps = {e["step"]: e["skipped"] for e in events(both[0].run) if e["k"] == "step"}

    assert [f.code for f in both] == [0, 0], both[0].stderr
    assert [step for step, is_skipped in steps.items() if is_skipped] == [7]
    # The same step was lost, whichever rank had the number.
    assert len({launching.weights_hash(f.run) for f in both}) == 1
    samples = [of_kind(f.run, "nonfinite")[0]["samples"] for f in both]
    assert samples[0] != samples[1]
    assert all(len(ids) == 1 and ids[0].startswith("fake") for ids in samples)


def test_too_many_skipped_steps_in_a_row_stop_the_run(tiny, launching, tmp_path):
    skip = ("-s", "train.on_nonfinite=skip", "-s", "train.max_bad_steps=3")
    found = tiny.train(tmp_path, *skip, fault="nan:step=2;nan:rank=1,step=4,until=9")
    run = launching.the_run(tmp_path)

    assert found.code == 76
    assert "the last of 3 steps in a row" in found.stderr
    assert [e["step"] for e in of_kind(run, "nonfinite")] == [2, 4, 5, 6]


@pytest.mark.parametrize("overlap", ["false", "true"])
def test_a_rank_without_memory_makes_all_repeat_the_batch_in_halves(
    overlap, tiny, launching, tmp_path
):
    settings = ("-s", f"launch.overlap={overlap}")
    halved = ("-s", "train.on_oom=halve", *settings)
    plain = tiny.train(tmp_path / "plain", "-s", "train.accumulate=2", *settings)
    first = tiny.train(tmp_path / "first", *halved, fault="oom:rank=1,step=0")
    later = tiny.train(tmp_path / "later", *halved, fault="oom:rank=0,step=6")

    assert (first.code, later.code) == (0, 0), first.stderr + later.stderr
    # From the first step on it is the run with twice the micro-batches, but for the alignment of
    # tensors in memory, on which the last bit of a product may depend.
    wanted, got = newest_weights(plain.run), newest_weights(first.run)
    assert all(np.allclose(got[name], value, atol=1e-6) for name, value in wanted.items())
    (event,) = of_kind(later.run, "memory")
    assert (event["step"], "cut into 2 parts" in event["message"]) == (6, True)
    losses = [[e["loss"] for e in events(f.run) if e["k"] == "step"] for f in (plain, later)]
    assert losses[1] == pytest.approx(losses[0], abs=1e-4)


def test_without_halving_the_run_stops_with_advice(tiny, launching, tmp_path):
    found = tiny.train(tmp_path, fault="oom:rank=1,step=7")

    assert found.code == 77
    assert "rank 1 ran out of memory in step 7" in found.stderr
    assert "-s train.accumulate=2" in found.stderr
    assert launching.status(launching.the_run(tmp_path))["exit_code"] == 77


def test_a_batch_that_cannot_be_cut_any_further_stops_the_run(tiny, tmp_path):
    small = ("-s", "train.batch_size=2", "-s", "train.on_oom=halve")
    found = tiny.train(tmp_path, *small, fault="oom:rank=0,step=3")

    assert found.code == 77
    assert "a smaller model" in found.stderr


@pytest.mark.parametrize("sync", ["fsdp", "ddp"])
def test_where_ranks_wait_inside_of_backward_it_stops_at_once(sync, tiny, tmp_path):
    settings = ("-s", f"launch.sync={sync}", "-s", "launch.shard_from=0")
    found = tiny.train(tmp_path, *settings, "-s", "train.on_oom=halve", fault="oom:rank=1,step=3")

    assert found.code == 77, found.stderr
    assert "rank 1 ran out of memory in step 3" in found.stderr


@pytest.mark.parametrize(
    ("planted", "said"),
    [
        ("skew:rank=1,step=6", "ranks hold different values of parameter 'encoders.audio"),
        ("order:rank=1,step=6", "ranks issued different collectives, or in another order"),
    ],
    ids=["a weight", "the order of collectives"],
)
def test_ranks_that_drift_apart_are_a_bug_with_its_own_code(planted, said, tiny, tmp_path):
    found = tiny.train(tmp_path, "-s", "launch.check_every_steps=3", fault=planted)

    assert found.code == 70, found.stderr
    assert said in found.stderr


def own_store(tiny, tmp_path):
    """Give the folder of a store of this test's own, which it may damage."""
    data = tmp_path / "data"
    shutil.copytree(tiny.home / "data", data)
    return data


@pytest.mark.parametrize("harm", ["truncated", "emptied"])
def test_a_file_cut_short_under_a_running_job_is_named_with_its_samples(
    harm, tiny, launching, tmp_path
):
    data = own_store(tiny, tmp_path)
    files = [tmp_path / f"held{rank}" for rank in range(2)]
    planted = ";".join(f"hold:rank={r},step=5,file={f}" for r, f in enumerate(files))
    variables = {"MMTOOL_FAULT": planted, "MMTOOL_DATA": str(data)}
    process = tiny.start(tmp_path / "runs", **variables)
    while not all(file.exists() for file in files):
        assert process.poll() is None, process.communicate()
        os.sched_yield()
    shard = data / "fake" / "shard-00000.audio.bin"
    os.truncate(shard, 100 if harm == "truncated" else 0)
    for file in files:
        file.unlink()
    found = launching.ended(process)

    assert found.code == 74, found.stderr
    assert shard.name in found.stderr
    assert "was cut short or is gone" in found.stderr
    assert re.search(r"it holds audio of fake\d+", found.stderr)


def test_a_file_removed_under_a_running_job_is_read_to_the_end(
    tiny, undisturbed, launching, tmp_path
):
    """What is mapped stays readable on the systems we run on, so nothing is lost."""
    data = own_store(tiny, tmp_path)
    file = tmp_path / "held"
    variables = {"MMTOOL_FAULT": f"hold:rank=0,step=12,file={file}", "MMTOOL_DATA": str(data)}
    process = tiny.start(tmp_path / "runs", **variables)
    while not file.exists():
        assert process.poll() is None, process.communicate()
        os.sched_yield()
    for number in range(2):  # the third has test samples only and was not opened yet
        (data / "fake" / f"shard-0000{number}.audio.bin").unlink()
    file.unlink()
    found = launching.ended(process)

    assert found.code == 0, found.stderr
    assert launching.weights_hash(found.run) == undisturbed.hash


def test_with_all_checkpoints_bad_a_resume_ends_with_65(tiny, launching, tmp_path):
    found = tiny.train(tmp_path, fault="kill:rank=1,step=12")
    run = launching.the_run(tmp_path)
    for path in (run / "ckpt").glob("step*/state.pt"):
        os.truncate(path, path.stat().st_size - 100)
    resumed = tiny.resume(run)

    assert found.code == 137
    assert resumed.code == 65, resumed.stderr
    assert "no usable checkpoint" in resumed.stderr
    assert "bytes instead of" in resumed.stderr


def test_the_newest_checkpoint_bad_the_previous_one_gives_the_same_weights(
    tiny, undisturbed, launching, tmp_path
):
    tiny.train(tmp_path, fault="kill:rank=1,step=12")
    run = launching.the_run(tmp_path)
    newest = max((run / "ckpt").glob("step*"))
    (newest / "manifest.json").unlink()
    resumed = tiny.resume(run)

    assert resumed.code == 0, resumed.stderr
    assert f"passed over: {newest.name}" in str(of_kind(run, "warning"))
    assert launching.weights_hash(run) == undisturbed.hash


LIMITED = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


def test_a_disk_that_takes_no_checkpoint_ends_the_run_with_74(tiny, launching, tmp_path):
    """The system refuses every file beyond a size, as a full disk would: logs fit, weights not."""
    wide = ("-s", "model.encoders.audio.hidden=[300,300]", "--gpus", "1")
    command = tiny.command(tmp_path, *wide)
    limited = [command[0], "-c", LIMITED, *command[1:]]
    process = subprocess.Popen(
        limited, env=tiny.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    found = launching.ended(process)
    run = launching.the_run(tmp_path)

    assert found.code == 74, found.stderr
    assert "could not be written" in found.stderr
    assert len(of_kind(run, "warning")) == 2
    assert sys.executable == command[0]
    assert not list((run / "ckpt").iterdir())


def test_an_edited_recipe_is_refused_with_what_changed(tiny, launching, tmp_path):
    tiny.train(tmp_path, fault="kill:rank=1,step=12")
    run = launching.the_run(tmp_path)
    resolved = run / "resolved.toml"
    text = resolved.read_text(encoding="utf-8")
    assert "lr = 0.05" in text
    edited = text.replace("lr = 0.05", "lr = 0.01").replace("every_steps = 1", "every_steps = 2")
    resolved.write_text(edited, encoding="utf-8")
    refused = tiny.resume(run)
    allowed = tiny.resume(run, "--allow-change")

    assert refused.code == 2, refused.stderr
    assert "train.lr: 0.05 -> 0.01" in refused.stderr
    assert "every_steps" not in refused.stderr
    assert "--allow-change" in refused.stderr
    assert allowed.code == 0, allowed.stderr
    assert "train.lr: 0.05 -> 0.01" in str(of_kind(run, "warning"))
