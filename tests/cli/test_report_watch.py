"""`mmtool diagnose --watch` beside a job that is really being trained."""

import itertools
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mmtool.cli.report_watch import WatchedRun
from mmtool.diagnose.steady import judgement_of
from mmtool.runlog.rundir import RunDir, create_run
from mmtool.runlog.writer import EventWriter
from mmtool.testing.fakes import FakeModality, write_fake_store

PATIENCE_S = 240
RECIPE = """data.dataset = "fake"

[model]
encoders.audio = {name = "mlp", hidden = [8]}
encoders.image = {name = "mlp", hidden = [8]}

[train]
epochs = 100000
batch_size = 8
lr = 0.05

[launch]
device = "cpu"

[log]
every_steps = 1
"""


class Screen:
    """A process on a terminal of its own, and what it has drawn there so far."""

    def __init__(self, words, environment, cwd):
        self.master, slave = pty.openpty()
        os.set_blocking(self.master, False)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mmtool", *words],
            env={**environment, "TERM": "xterm", "COLUMNS": "110", "LINES": "60"},
            stdin=slave,
            stdout=slave,
            stderr=slave,
            cwd=cwd,
            start_new_session=True,
            # Where these tests run in the background, Ctrl-C is ignored, and children inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        os.close(slave)
        self.text = ""

    def read(self):
        """Take what was drawn since the last time; false once the terminal is closed."""
        ready, _, _ = select.select([self.master], [], [], 0.5)
        if not ready:
            return True
        try:
            found = os.read(self.master, 65_536)
        except OSError:
            return False
        self.text += found.decode("utf-8", "replace")
        return bool(found)

    def until(self, is_there):
        """Wait for something to be drawn."""
        end = time.monotonic() + PATIENCE_S
        while not is_there(self.text) and self.read():
            assert time.monotonic() < end, self.text[-3000:]
        assert is_there(self.text), self.text[-3000:]

    def finished(self):
        """Wait for the process to end and give its exit code."""
        end = time.monotonic() + PATIENCE_S
        while self.read():
            if self.process.poll() is not None and not select.select([self.master], [], [], 0)[0]:
                break
            assert time.monotonic() < end, f"still there: {self.text[-3000:]}"
        return self.process.wait(timeout=PATIENCE_S)


@pytest.fixture
def home(tmp_path):
    shape = FakeModality((6,), "spectrogram")
    splits = {"train": 24, "val": 8, "test": 8}
    write_fake_store(tmp_path / "data" / "fake", {"audio": shape, "image": shape}, splits=splits)
    (tmp_path / "job.toml").write_text(RECIPE, encoding="utf-8")
    return tmp_path


@pytest.fixture
def environment(home):
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("RANK", "SLURM_", "NO_COLOR"))}
    folders = {"MMTOOL_DATA": str(home / "data"), "MMTOOL_RUNS": str(home / "runs")}
    return kept | folders | {"OMP_NUM_THREADS": "1"}


@pytest.fixture
def job(home, environment):
    """A job that trains until it is told to stop."""
    process = subprocess.Popen(
        [sys.executable, "-m", "mmtool", "train", str(home / "job.toml"), "-q"],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=home,
        start_new_session=True,
    )
    end = time.monotonic() + PATIENCE_S
    while not list((home / "runs").glob("latest/log/rank0.jsonl")):
        assert process.poll() is None
        assert time.monotonic() < end
        select.select([], [], [], 0.2)
    yield process
    if process.poll() is None:
        process.kill()
        process.wait()


def steps_drawn(text):
    return {int(step) for step in re.findall(r"epoch \d+ of 100000, step (\d+)", text)}


@pytest.mark.slow
def test_the_watch_follows_a_job_leaves_at_ctrl_c_and_ends_with_the_job(home, environment, job):
    words = ["diagnose", "latest", "--watch"]
    left = Screen(words, environment, home)
    left.until(lambda text: len(steps_drawn(text)) >= 3 and "verdict:" in text)
    left.process.send_signal(signal.SIGINT)

    assert left.finished() == 0
    assert "the job goes on" in left.text
    assert "Traceback" not in left.text
    assert job.poll() is None

    stays = Screen(words, environment, home)
    stays.until(lambda text: len(steps_drawn(text)) >= 2)
    job.send_signal(signal.SIGTERM)

    assert stays.finished() == 0
    assert job.wait(timeout=PATIENCE_S) == 75
    last = stays.text[stays.text.rindex("mmtool.diagnose/1") - 4000 :]
    assert "stopped" in last
    assert "\x1b[?25h" in stays.text, "the cursor is shown again"


@pytest.fixture
def run(tmp_path):
    made = create_run(tmp_path / "runs", "demo")
    made.write_recipe("", "")
    return made


def write_epochs(run, epochs, audio=0.9):
    facts = {"modalities": ["audio", "video"], "classes": ["a", "b"], "method": "none"}
    facts |= {"batch_size": 8, "epochs": 40, "steps_per_epoch": 4, "chance": 0.5}
    facts |= {"num_train": 32, "num_val": 400, "dataset": "demo", "dataset_hash": "d" * 16}
    with EventWriter(run.log_path(0)) as log:
        if epochs.start == 0:
            log.write(
                "head", schema="mmtool-log/1.0", run=run.name, rank=0, world=1, attempt=1, **facts
            )
        for epoch in epochs:
            for step in range(4 * epoch, 4 * epoch + 4):
                log.write("step", step=step, epoch=epoch, n=8, loss=1 / (step + 1), ms={"step": 9})
            strong = {"acc": 0.9, "alone": 0.9, "drop": 0.4, "flip": audio, "probe": 0.9}
            weak = {"acc": 0.8, "alone": 0.5, "drop": 0.1, "flip": 0.9 - audio, "probe": 0.85}
            for split in ("train", "val"):
                log.write(
                    "epoch",
                    epoch=epoch,
                    step=4 * epoch + 4,
                    split=split,
                    n=400,
                    loss=0.4,
                    acc=0.9,
                    m={"audio": strong, "video": weak},
                )


def test_a_job_whose_process_is_gone_is_not_waited_for(run):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    host = os.uname().nodename
    run.write_status(state="running", pid=gone.pid, host=host)

    assert not WatchedRun(run.path).is_running()
    run.write_status(state="running", pid=os.getpid(), host=host)
    assert WatchedRun(run.path).is_running()
    run.write_status(state="running", pid=gone.pid, host="another-machine")
    assert WatchedRun(run.path).is_running()
    run.write_status(state="done")
    assert not WatchedRun(run.path).is_running()


def test_a_process_that_nobody_has_waited_for_counts_as_gone(run):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, gone.pid, os.WEXITED | os.WNOWAIT)
    run.write_status(state="running", pid=gone.pid, host=os.uname().nodename)

    assert not WatchedRun(run.path).is_running()
    gone.wait()


def test_a_run_is_judged_anew_only_when_an_epoch_was_validated(run, monkeypatch):
    write_epochs(run, range(3))
    watched = WatchedRun(run.path)
    judged = []
    monkeypatch.setattr(WatchedRun, "judge", lambda _: judged.append(1))
    watched.look()
    watched.look()
    assert len(judged) == 1
    with EventWriter(run.log_path(0)) as log:
        log.write("step", step=99, epoch=3, n=8, loss=0.1, ms={"step": 9})
    watched.look()
    assert len(judged) == 1
    write_epochs(run, range(3, 4))
    monkeypatch.setattr("mmtool.cli.report_watch.time.monotonic", lambda: 1e12)
    watched.look()
    assert len(judged) == 2


def test_judging_that_takes_long_is_done_less_often(run, monkeypatch):
    write_epochs(run, range(3))
    watched, now, judged = WatchedRun(run.path), [100.0], []
    monkeypatch.setattr("mmtool.cli.report_watch.time.monotonic", lambda: now[0])

    def judge(_):
        judged.append(now[0])
        now[0] += 2.0

    monkeypatch.setattr(WatchedRun, "judge", judge)
    for second in range(30):
        write_epochs(run, range(3 + second, 4 + second))
        watched.look()
        now[0] += 1.0
    assert 3 <= len(judged) <= 4
    assert all(later - earlier >= 10 for earlier, later in itertools.pairwise(judged))


def test_the_panel_keeps_a_verdict_until_another_one_lasted(run):
    write_epochs(run, range(6), audio=0.9)
    watched = WatchedRun(run.path)
    watched.judge()
    held = judgement_of(watched.shown)
    seen = []
    for epoch in range(6, 10):
        write_epochs(run, range(epoch, epoch + 1), audio=0.45)
        watched.judge()
        seen.append(judgement_of(watched.shown) == held)

    assert judgement_of(watched.report) != held
    assert seen == [True, True, False, False]


def test_epochs_that_went_by_before_anybody_watched_count(run):
    write_epochs(run, range(6))
    watched = WatchedRun(run.path)
    watched.look()

    assert watched._verdict.held is not None
    assert "no verdict yet" not in watched._verdict.words


def test_a_run_without_a_line_is_waited_for(tmp_path):
    made = create_run(tmp_path / "runs", "empty")
    assert isinstance(made, RunDir)
    made.write_recipe("", "")
    made.write_status(state="running", pid=os.getpid(), host=os.uname().nodename)
    watched = WatchedRun(Path(made.path))
    watched.look()

    assert watched.is_running()
