"""A run that a loop of somebody's own logs, up to the verdict."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import mmtool.log
from mmtool.diagnose.api import diagnose
from mmtool.errors import RequestError, RunDirectoryError
from mmtool.runlog.reader import load_run
from mmtool.runlog.rundir import RunDir
from mmtool.testing.small_problem import CLASSES, TwoEncoders, small_problem

BATCH = 64


def train(path: Path, *, strength=(3.0, 3.0), epochs=4, stop_after=None, logs=True):
    """Train and log as somebody would who has a loop already; give the model."""
    torch.manual_seed(0)
    model = TwoEncoders()
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    data = small_problem(512, strength=strength, seed=1)
    audio, video, label = small_problem(600, strength=strength, seed=2)
    steps = 512 // BATCH
    with mmtool.log.start(
        path, modalities=["video", "audio"], classes=CLASSES, epochs=epochs, system=False
    ) as run:
        for number in range(epochs * steps):
            if number == stop_after:
                raise ValueError("out of luck")
            with run.phase("data"):
                at = BATCH * (number % steps)
                a, v, y = (t[at : at + BATCH] for t in data)
            with run.step(number, n=BATCH, epoch=number // steps):
                with run.phase("forward"):
                    features = {"audio": model.enc["audio"](a), "video": model.enc["video"](v)}
                    logits = model.head(torch.cat(list(features.values()), dim=1))
                    loss = nn.functional.cross_entropy(logits, y)
                with run.phase("backward"):
                    optimizer.zero_grad()
                    loss.backward()
                optimizer.step()
                run.record(loss=loss, terms={"fused": loss})
                if logs:
                    for name, z in features.items():
                        run.modality(name, features=z, labels=y)
            if (number + 1) % steps == 0:
                with torch.no_grad():
                    found = {"audio": model.enc["audio"](audio), "video": model.enc["video"](video)}
                run.epoch(
                    number // steps,
                    features=found,
                    labels=label,
                    fuse=lambda f: model.head(torch.cat([f["audio"], f["video"]], dim=1)),
                )
    return model


def test_a_logged_run_has_every_table_of_a_run_of_the_engine(tmp_path):
    train(tmp_path / "mine")
    tables = load_run(tmp_path / "mine")

    assert tables.warnings == ()
    assert tables.head["modalities"] == ["audio", "video"]
    assert tables.steps["step"].tolist() == list(range(32))
    assert (tables.steps[["ms_data", "ms_forward", "ms_backward"]] > 0).all(axis=None)
    parts = tables.steps[["ms_data", "ms_forward", "ms_backward"]].sum(axis=1)
    assert (tables.steps["ms_step"] >= parts).all()
    assert tables.steps["loss"].iloc[-1] < tables.steps["loss"].iloc[0]
    assert sorted(tables.epochs["split"].unique()) == ["train", "val"]
    val = tables.epoch_modalities[tables.epoch_modalities["split"] == "val"]
    assert val[["flip", "drop", "alone", "probe", "probe_nll"]].notna().all(axis=None)
    assert tables.end == {**tables.end, "status": "done"}
    assert RunDir(tmp_path / "mine").read_status()["state"] == "done"
    assert (tmp_path / "latest").resolve() == (tmp_path / "mine").resolve()


def test_two_equal_modalities_are_diagnosed_as_balanced(tmp_path):
    train(tmp_path / "mine")
    report = diagnose([tmp_path / "mine"])

    assert report.findings[0].rule.startswith("balanced")
    assert report.findings[0].severity == "info"


def test_a_modality_of_noise_is_named_by_the_verdict(tmp_path):
    train(tmp_path / "mine", strength=(4.5, 0.0), epochs=5)
    tables = load_run(tmp_path / "mine")
    last = tables.epoch_modalities[
        (tables.epoch_modalities["split"] == "val") & (tables.epoch_modalities["epoch"] == 4)
    ].set_index("modality")

    assert last.loc["audio", "flip"] > 0.6 > 0.05 > last.loc["video", "flip"]
    assert last.loc["audio", "probe"] > 0.9
    assert last.loc["video", "probe"] < 0.4
    assert "ideo" in diagnose([tmp_path / "mine"]).verdict


def test_probes_change_nothing_of_the_training_they_watch(tmp_path):
    watched = train(tmp_path / "watched", epochs=1).state_dict()
    after = torch.rand(1)
    alone = train(tmp_path / "alone", epochs=1, logs=False).state_dict()

    assert all(torch.equal(watched[name], alone[name]) for name in alone)
    assert torch.equal(after, torch.rand(1))


def test_a_loop_that_fails_leaves_a_run_that_says_so(tmp_path):
    with pytest.raises(ValueError, match="luck"):
        train(tmp_path / "mine", stop_after=20)
    tables = load_run(tmp_path / "mine")

    assert len(tables.steps) == 20
    assert tables.end["status"] == "failed"
    assert tables.end["reason"] == "ValueError: out of luck"
    assert "failed" in {f.evidence.get("state") for f in diagnose([tmp_path / "mine"]).findings}


def test_a_killed_process_loses_no_step(tmp_path):
    code = (
        "import os, signal, mmtool.log\n"
        f"run = mmtool.log.start({str(tmp_path / 'mine')!r}, modalities=['a'], classes=2)\n"
        "for i in range(50):\n"
        "    with run.step(i, n=4):\n"
        "        run.record(loss=1 / (i + 1))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False)
    tables = load_run(tmp_path / "mine")

    assert done.returncode == -signal.SIGKILL
    assert tables.steps["loss"].tolist() == [1 / (i + 1) for i in range(50)]
    assert tables.end is None


def test_logging_numbers_imports_no_torch(tmp_path):
    code = (
        "import sys, mmtool.log\n"
        f"with mmtool.log.start({str(tmp_path / 'mine')!r}, modalities=['a', 'b']) as run:\n"
        "    with run.step(0, n=4):\n"
        "        run.record(loss=1.0)\n"
        "    run.epoch(0, loss=1.0, acc=0.5, modalities={'a': {'flip': 0.1}})\n"
        "assert 'torch' not in sys.modules and 'pandas' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    row = load_run(tmp_path / "mine").epoch_modalities.iloc[0]
    assert (row["modality"], row["flip"]) == ("a", 0.1)


def test_a_run_that_is_continued_takes_back_what_it_does_again(tmp_path):
    with pytest.raises(ValueError, match="luck"):
        train(tmp_path / "mine", stop_after=20)
    train(tmp_path / "mine", epochs=1)
    tables = load_run(tmp_path / "mine")

    assert tables.steps["step"].tolist() == list(range(8))
    assert [head["attempt"] for head in tables.attempts] == [1, 2]
    assert tables.end["status"] == "done"


def test_each_rank_has_its_own_log_and_all_count(tmp_path):
    for rank in (1, 0):
        with mmtool.log.start(
            tmp_path / "mine", modalities=["a", "b"], rank=rank, system=False
        ) as run:
            for number in range(3):
                with run.step(number, n=4):
                    pass
    assert load_run(tmp_path / "mine").steps["rank"].tolist() == [0, 0, 0, 1, 1, 1]


def test_one_directory_has_one_writer(tmp_path):
    with (
        mmtool.log.start(tmp_path / "mine", modalities=["a", "b"], system=False),
        pytest.raises(RunDirectoryError, match="is being written by process"),
    ):
        mmtool.log.start(tmp_path / "mine", modalities=["a", "b"], system=False)


def test_what_cannot_be_logged_is_refused_with_the_way_out(tmp_path):
    with pytest.raises(RequestError, match="distinct"):
        mmtool.log.start(tmp_path / "none", modalities=["a", "a"])
    with mmtool.log.start(tmp_path / "mine", modalities=["a", "b"], system=False) as run:
        with pytest.raises(RequestError, match="outside a step"):
            run.record(loss=1.0)
        with run.step(0), pytest.raises(RequestError, match="no modality 'c'"):
            run.modality("c", gnorm=1.0)
        with run.step(1), pytest.raises(RequestError, match="classes") as caught:
            run.modality("a", features=torch.zeros(2, 3), labels=torch.zeros(2))
        assert "classes=" in caught.value.fix
    with pytest.raises(RequestError, match="was closed"):
        run.event("checkpoint")


def test_a_loss_that_is_not_finite_is_logged_as_missing(tmp_path):
    with mmtool.log.start(tmp_path / "mine", modalities=["a"], system=False) as run:
        with run.step(0):
            run.record(loss=torch.tensor(float("nan")))
        run.event("checkpoint", file="x")
    written = RunDir(tmp_path / "mine").log_path(0).read_text().splitlines()
    line = next(line for line in map(json.loads, written) if line["k"] == "step")
    assert (line["loss"], line["bad"]) == (None, ["loss"])
    assert load_run(tmp_path / "mine").events["what"].tolist() == ["checkpoint"]


def test_a_run_of_one_modality_is_a_reference_for_one_of_several(tmp_path):
    audio, video, label = small_problem(400, seed=2)
    with mmtool.log.start(
        tmp_path / "joint",
        modalities=["audio", "video"],
        classes=CLASSES,
        system=False,
        dataset="x",
    ) as run:
        for epoch in range(3):
            found = {"audio": audio, "video": video}
            run.epoch(epoch, features=found, labels=label, fuse=lambda f: f["audio"][:, :CLASSES])
    with mmtool.log.start(
        tmp_path / "solo", modalities=["video"], classes=CLASSES, system=False, dataset="x"
    ) as run:
        run.epoch(0, acc=0.9, loss=0.3, n=400)
    balance = diagnose([tmp_path / "joint", tmp_path / "solo"]).metrics["balance"]
    references = {m["modality"]: m["reference"] for m in balance["modalities"]}

    assert references["audio"] is None
    assert references["video"]["value"] == 0.9


class Far:
    """A number on a device, reading which would make the host wait."""

    device = SimpleNamespace(type="cuda")

    def __init__(self, reads):
        self.reads = reads

    def item(self):
        self.reads.append(1)
        return 0.5


def test_numbers_on_a_device_are_fetched_ten_steps_at_a_time_and_none_is_lost(tmp_path):
    reads = []
    with mmtool.log.start(tmp_path / "mine", modalities=["a"], system=False) as run:
        for number in range(13):
            with run.step(number):
                run.record(loss=Far(reads))
                run.modality("a", gnorm=Far(reads))
            assert len(reads) == (20 if number >= 9 else 0)
    tables = load_run(tmp_path / "mine")

    assert tables.steps["step"].tolist() == list(range(13))
    assert (tables.steps["loss"] == 0.5).all()
    assert (tables.step_modalities["gnorm"] == 0.5).all()


def test_what_is_told_about_a_run_may_be_anything_with_a_name(tmp_path):
    with mmtool.log.start(
        tmp_path / "mine",
        modalities=["a"],
        system=False,
        dataset=Path("data/x"),
        seed=torch.tensor(3),
    ):
        pass
    head = load_run(tmp_path / "mine").head

    assert (head["dataset"], head["seed"]) == ("data/x", 3)


def test_the_machine_is_sampled_while_a_run_is_open(tmp_path):
    with mmtool.log.start(tmp_path / "mine", modalities=["a"]):
        pass
    assert load_run(tmp_path / "mine").system["rss_mb"].iloc[-1] > 0
