"""The first run of a new user, in real processes: the same twice, killed and resumed, diagnosed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
MMTOOL = [sys.executable, "-m", "mmtool"]
LOG_EVERY_STEP = ("-s", "log.every_steps=1")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("quickstart")


def environment() -> dict[str, str]:
    """One thread: sums then have one order, whatever else the machine does."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("MMTOOL_")}
    return {**kept, "OMP_NUM_THREADS": "1"}


def mmtool(home: Path, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*MMTOOL, *arguments],
        cwd=home,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stderr
    return done


def events(run: Path, kind: str) -> list[dict]:
    text = (run / "log" / "rank0.jsonl").read_text()
    complete, _, _being_written = text.rpartition("\n")
    return [e for e in map(json.loads, complete.splitlines()) if e["k"] == kind]


def losses(run: Path) -> dict[int, float]:
    """Loss by step; a step of a later attempt replaces that of an earlier one."""
    return {e["step"]: e["loss"] for e in events(run, "step")}


@pytest.fixture(scope="module")
def first(home):
    done = mmtool(home, "train", "quickstart")
    return done, home / done.stdout.strip()


def test_one_command_prepares_trains_and_prints_the_run(first):
    done, run = first

    assert len(done.stdout.splitlines()) == 1
    assert (run / "status.json").is_file()
    assert json.loads((run / "status.json").read_text())["state"] == "done"
    assert "preparing its bundled samples" in done.stderr
    assert "image" in done.stderr.splitlines()[-1]


def test_the_test_split_has_three_thousand_pairs(first):
    _, run = first

    (test,) = [e for e in events(run, "epoch") if e["split"] == "test"]

    assert test["n"] >= 3000


def test_unimodal_scores_of_every_epoch_are_in_the_log(first):
    _, run = first

    val = [e for e in events(run, "epoch") if e["split"] == "val"]

    assert [e["epoch"] for e in val] == list(range(12))
    assert all(set(e["m"]) == {"audio", "image"} for e in val)
    assert all(e["m"]["audio"]["how"] == "decompose" for e in val)


def test_the_same_seed_gives_the_same_losses(home, first):
    _, run = first

    again = home / mmtool(home, "train", "quickstart", "-q").stdout.strip()

    assert losses(run) == losses(again)


def test_diagnosis_names_the_voice_as_weak_and_what_would_tell_why(home, first):
    report = json.loads(mmtool(home, "diagnose", "runs/latest", "--json").stdout)

    verdict = report["metrics"]["verdict"]
    assert (verdict["code"], verdict["modalities"]) == ("inconclusive", ["audio"])
    assert "held back while image leads" in verdict["sentence"]
    assert report["findings"][0]["evidence"]["share_ci95"][1] < 0.22
    assert any("--deep" in one["command"] for one in verdict["advice"])


def test_a_run_of_the_voice_alone_shows_that_it_could_do_more(home, first):
    _, joint = first
    alone = mmtool(home, "train", "avdigits_none", "-q", "-s", "data.modalities=audio")
    arguments = ("diagnose", str(joint), alone.stdout.strip(), "--json")

    report = json.loads(mmtool(home, *arguments).stdout)

    found = report["findings"][0]
    assert (found["rule"], found["modality"]) == ("under-trained", "audio")
    assert found["severity"] == "warn"


def test_a_killed_run_continues_to_the_same_loss(home, first):
    short = ("-s", "train.epochs=3", "-s", "log.every_steps=2")
    whole = home / mmtool(home, "train", "quickstart", "-q", *short).stdout.strip()
    before = set((home / "runs").iterdir())
    every = ("-s", "train.checkpoint_every_steps=15")
    process = subprocess.Popen(
        [*MMTOOL, "train", "quickstart", "-q", *short, *every],
        cwd=home,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    run = killed_after(process, home / "runs", before, step=50)

    mmtool(home, "train", "--resume", str(run), "-q")

    assert losses(run) == losses(whole)
    resumed = [e for e in events(run, "event") if e["what"] == "resume"]
    assert len(resumed) == 1
    assert 0 < resumed[0]["step"] < 3 * 40
    final = [[e for e in events(r, "epoch") if e["split"] == "test"][-1] for r in (run, whole)]
    assert final[0]["loss"] == final[1]["loss"]


def killed_after(process: subprocess.Popen, runs: Path, before: set[Path], step: int) -> Path:
    """Kill a run with SIGKILL in the middle of an epoch, once its log has reached a step."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, "the run ended before it could be killed"
        new = [r for r in set(runs.iterdir()) - before if not r.is_symlink()]
        if (
            new
            and (new[0] / "log" / "rank0.jsonl").is_file()
            and max(losses(new[0]), default=0) > step
        ):
            process.send_signal(signal.SIGKILL)
            process.wait()
            return new[0]
    raise AssertionError("the run did not get that far")


@pytest.mark.parametrize(
    ("number", "ranks"),
    [(signal.SIGINT, ()), (signal.SIGTERM, ("--device", "cpu", "--gpus", "2"))],
    ids=["ctrl-c", "sigterm-to-two-ranks"],
)
def test_a_stop_saves_and_the_run_can_be_resumed(home, first, number, ranks):
    before = set((home / "runs").iterdir())
    process = subprocess.Popen(
        [*MMTOOL, "train", "quickstart", "-q", *ranks, *("-s", "train.epochs=3"), *LOG_EVERY_STEP],
        cwd=home,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        new = [r for r in set((home / "runs").iterdir()) - before if not r.is_symlink()]
        if new and (new[0] / "log" / "rank0.jsonl").is_file() and len(losses(new[0])) > 3:
            break
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)

    assert process.returncode == 75, stderr
    assert "mmtool train --resume" in stderr
    assert json.loads((new[0] / "status.json").read_text())["resumable"] is True
    mmtool(home, "train", "--resume", str(new[0]), "-q")


def test_two_gloo_ranks_train_through_the_launcher(home, first):
    done = mmtool(
        home, "train", "quickstart", "-q", "--device", "cpu", "--gpus", "2",
        "-s", "train.epochs=1",
    )  # fmt: skip
    run = home / done.stdout.strip()

    assert (run / "log" / "rank1.jsonl").is_file()
    head = events(run, "head")[0]
    assert head["world"] == 2


def test_a_rank_that_fails_is_named_with_its_own_error(home, first):
    plugin = home / "breaks.py"
    plugin.write_text(
        '"""Fails on rank 1."""\n'
        "import os\n"
        "from mmtool.config.schema import Options as Base\n"
        "from mmtool.methods._base import BalancingMethod\n"
        "class Options(Base):\n    pass\n"
        "class Method(BalancingMethod):\n"
        "    def end_step(self, ctx):\n"
        "        if os.environ['RANK'] == '1':\n"
        "            raise RuntimeError('planted in rank 1')\n"
    )
    done = mmtool(
        home, "train", "quickstart", "--device", "cpu", "--gpus", "2",
        "-s", "method=./breaks.py", code=1,
    )  # fmt: skip

    assert "rank 1" in done.stderr
    assert "planted in rank 1" in done.stderr


def test_profile_measures_the_recipe(home, first):
    trace = home / "trace.json"
    done = mmtool(home, "profile", "quickstart", "--steps", "8", "--trace", str(trace), "--json")
    report = json.loads(done.stdout)

    assert report["schema"].startswith("mmtool.profile/")
    assert {"audio", "image", "fusion"} <= set(report["parts"])
    assert report["samples_per_s"]["real"] > 0
    assert 0 <= report["input_bound_share"] < 1
    assert sum(report["phase_shares"].values()) == pytest.approx(1.0, abs=0.1)
    assert json.loads(trace.read_text())["traceEvents"]
