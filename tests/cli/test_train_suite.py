"""`mmtool train` on a suite, and `mmtool diagnose` on the folder of its runs."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from mmtool.testing.fakes import FakeModality, write_fake_store

SUITE = """# A small suite.

[data]
dataset = "fake"

[model]
encoders.audio = {name = "mlp", hidden = [8]}
encoders.image = {name = "mlp", hidden = [8]}

[train]
epochs = 2
batch_size = 8
lr = 0.05

[launch]
device = "cpu"

[log]
every_steps = 1

[suite]
seeds = [0, 1]

[suite.variants.none]

[suite.variants."ogm a=0.8"]
method = {name = "ogm", alpha = 0.8}
"""


@pytest.fixture
def home(tmp_path):
    shape = FakeModality((6,), "spectrogram")
    splits = {"train": 24, "val": 8, "test": 16}
    write_fake_store(tmp_path / "data" / "fake", {"audio": shape, "image": shape}, splits=splits)
    (tmp_path / "small.toml").write_text(SUITE, encoding="utf-8")
    return tmp_path


@pytest.fixture
def call(home):
    """Run mmtool in a process of its own."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("RANK", "SLURM_"))}
    environment |= {"OMP_NUM_THREADS": "1", "MMTOOL_DATA": "data", "MMTOOL_RUNS": "runs"}

    def start(*words):
        return subprocess.Popen(
            [sys.executable, "-m", "mmtool", *words],
            cwd=home,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def run(*words):
        process = start(*words)
        out, err = process.communicate(timeout=240)
        return subprocess.CompletedProcess(words, process.returncode, out, err)

    run.start = start
    return run


def states(home: Path) -> dict[str, str]:
    found = {}
    for path in (home / "runs" / "small").glob("*/status.json"):
        if not path.parent.is_symlink():
            found[path.parent.name] = json.loads(path.read_text(encoding="utf-8"))["state"]
    return found


def test_all_variants_and_seeds_are_trained_once_and_compared(call, home):
    done = call("train", "small.toml", "--json")
    assert done.returncode == 0, done.stderr
    runs = json.loads(done.stdout)["runs"]
    assert [(r["variant"], r["seed"]) for r in runs] == [
        ("none", 0), ("ogm a=0.8", 0), ("none", 1), ("ogm a=0.8", 1),
    ]  # fmt: skip
    assert set(states(home).values()) == {"done"}
    before = {p: p.stat().st_mtime_ns for p in home.glob("runs/small/*/log/rank0.jsonl")}

    again = call("train", "small.toml")
    assert "4 runs, 4 done" in again.stderr
    assert before == {p: p.stat().st_mtime_ns for p in home.glob("runs/small/*/log/rank0.jsonl")}

    compared = call("diagnose", "small", "--markdown", "RESULTS.md", "--json")
    assert compared.returncode == 0, compared.stderr
    table = json.loads(compared.stdout)["metrics"]["comparison"]
    assert [group["label"] for group in table["groups"]] == ["none", "ogm a=0.8"]
    assert "test_difference_ci95" in table["changes"][0]
    page = (home / "RESULTS.md").read_text(encoding="utf-8")
    assert page.startswith("## small\n")
    assert "mmtool train small.toml" in page


def test_the_answers_kept_are_those_that_the_log_scores(call, home):
    call("train", "small.toml", "--variant", "none", "--seed", "0")
    run = next(home.glob("runs/small/none_s0_*"))
    log = (run / "log" / "rank0.jsonl").read_text(encoding="utf-8")
    events = [json.loads(line) for line in log.splitlines()]
    tested = next(e for e in events if e["k"] == "epoch" and e["split"] == "test")
    with np.load(run / "predictions" / "test.npz") as file:
        assert (file["answer"] == file["label"]).mean() == pytest.approx(tested["acc"])
        alone = (file["answer/audio"] == file["label"]).mean()
        assert alone == pytest.approx(tested["m"]["audio"]["acc"])
        assert file["loss"].mean() == pytest.approx(tested["loss"], rel=1e-5)
        assert json.loads(str(file["head"]))["epoch"] == tested["epoch"]


def test_a_variant_that_fails_does_not_keep_the_others_and_is_reported(call, home):
    text = SUITE.replace("[suite.variants.none]", "[suite.variants.none]\nmethod.name = 'greedy'")
    (home / "small.toml").write_text(text, encoding="utf-8")
    done = call("train", "small.toml", "--seeds", "0")

    assert done.returncode not in (0, 75)
    assert "1 of 2 runs failed, the others are done" in done.stderr
    assert "none, seed 0" in done.stderr
    assert sorted(s for n, s in states(home).items() if n.startswith("ogm")) == ["done"]


def test_a_stopped_suite_goes_on_where_it_was(call, home):
    process = call.start("train", "small.toml", "-s", "train.epochs=40")
    deadline = time.monotonic() + 120
    while "done" not in states(home).values() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 75, err
    assert len(states(home)) < 4 or "done" in states(home).values()

    again = call("train", "small.toml", "-s", "train.epochs=40")
    assert again.returncode == 0, again.stderr
    assert list(states(home).values()) == ["done"] * 4


def test_runs_go_side_by_side_where_asked(call, home):
    done = call("train", "small.toml", "--jobs", "2")

    assert done.returncode == 0, done.stderr
    assert list(states(home).values()) == ["done"] * 4
    assert json.loads((home / "runs/small/suite.json").read_text())["seeds"] == [0, 1]


def test_an_option_of_a_named_variant_is_set_for_that_variant_alone(call, home):
    change = ("-s", "method.alpha=0.3")
    refused = call("train", "small.toml", *change)
    assert refused.returncode == 2
    assert "[method]" in refused.stderr

    done = call("train", "small.toml", "--variant", "ogm a=0.8", "--seed", "0", *change, "--json")
    assert done.returncode == 0, done.stderr
    assert [(r["variant"], r["seed"]) for r in json.loads(done.stdout)["runs"]] == [
        ("ogm a=0.8", 0)
    ]
    (run,) = states(home)
    resolved = (home / "runs" / "small" / run / "resolved.toml").read_text(encoding="utf-8")
    assert "alpha = 0.3" in resolved

    whole = call("train", "small.toml", "--dry-run", "--seed", "0")
    assert whole.stdout.count("trained") == 2
    assert run not in whole.stdout


def test_a_dry_run_lists_them_and_writes_nothing(call, home):
    found = call("train", "small.toml", "--dry-run")

    assert found.returncode == 0, found.stderr
    assert found.stdout.count("trained") == 4
    assert not (home / "runs").exists()


def test_what_is_wrong_with_a_variant_is_shown_where_it_stands(call, home):
    (home / "small.toml").write_text(SUITE.replace("alpha", "alfa"), encoding="utf-8")
    found = call("recipe", "check", "small.toml")

    assert found.returncode == 2
    assert "small.toml:27:25" in found.stderr
    assert "did you mean 'alpha'?" in found.stderr


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("small.toml", "--variant", "ogn a=0.8"), "small.toml has no variant 'ogn a=0.8'"),
        (("small.toml", "--name", "x"), "--name has no effect with a suite"),
        (("small.toml", "--slurm"), "--slurm has no effect with a suite"),
        (("quickstart", "--variant", "x"), "--variant has no effect with one recipe"),
    ],
)
def test_options_without_effect_are_refused(call, words, told):
    found = call("train", *words)

    assert found.returncode == 2
    assert told in found.stderr
