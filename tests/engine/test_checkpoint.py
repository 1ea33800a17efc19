"""Checkpoints on disk: whole or absent, verified, and never the last good one lost."""

import json
import os
import pickle
import shutil

import pytest
import torch
from safetensors.torch import load_file

from mmtool.config.schema import Recipe
from mmtool.engine import fault
from mmtool.engine.build import build_job
from mmtool.engine.checkpoint import load_checkpoint, take_snapshot, write_snapshot
from mmtool.engine.choose import STATE, WEIGHTS, choose_checkpoint
from mmtool.engine.distributed import Ranks
from mmtool.engine.manifest import MANIFEST, need_room, newest_first, prune, seal, verify
from mmtool.engine.saving import Saver
from mmtool.errors import CheckpointError, NotWritable
from mmtool.testing.fakes import FakeModality, write_fake_store
from mmtool.testing.training import train_here


def recipe(**train: object) -> Recipe:
    return Recipe.model_validate(
        {
            "data": {"dataset": "fake"},
            "model": {
                "encoders": {"audio": {"name": "mlp", "hidden": (12,)}, "image": {"name": "mlp"}}
            },
            "train": {"epochs": 2, "batch_size": 8, "lr": 0.05, "optimizer": "adamw", **train},
            "log": {"every_steps": 1, "probes": True},
        }
    )


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    shape = FakeModality((6,), "spectrogram")
    splits = {"train": 40, "val": 11, "test": 7}
    write_fake_store(folder / "fake", {"audio": shape, "image": shape}, splits=splits)
    return folder


@pytest.fixture
def job(root):
    made = build_job(recipe(), Ranks(), data_root=root)
    yield made
    made.close()


def saved(job, folder, steps):
    for step in steps:
        job.progress.step = step
        write_snapshot(take_snapshot(job), folder)
    return list(reversed(newest_first(folder, "step")))


def events_of(found):
    return lambda kind, **fields: found.append({"k": kind, **fields})


def change_everything(job):
    with torch.no_grad():
        for value in job.model.state_dict().values():
            value.add_(1)
    for slots in job.optimizer.state.values():
        for value in slots.values():
            value.add_(1)


def test_what_is_written_is_what_was_there_when_it_was_taken(job, root, tmp_path):
    train_here(recipe(), data_root=root, checkpoints=tmp_path / "begun", stop_after=2)
    load_checkpoint(job, choose_checkpoint(tmp_path / "begun")[0])
    model = {name: value.clone() for name, value in job.model.state_dict().items()}
    slots = [value.clone() for s in job.optimizer.state.values() for value in s.values()]

    snapshot = take_snapshot(job)
    change_everything(job)
    path = write_snapshot(snapshot, tmp_path / "ckpt")

    written = load_file(path / WEIGHTS)
    state = torch.load(path / STATE, weights_only=True)["optimizer"]["state"]
    found = [value for s in state.values() for value in s.values()]
    assert written.keys() == model.keys()
    assert all(torch.equal(written[name], value) for name, value in model.items())
    assert len(slots) == len(found) > 0
    assert all(torch.equal(a, b) for a, b in zip(slots, found, strict=True))


def test_a_run_resumes_bit_for_bit_from_a_write_that_training_went_past(root, tmp_path):
    """The writing thread is held until training has gone one step further."""
    held, kept = tmp_path / "held", tmp_path / "kept"
    whole = train_here(recipe(), data_root=root, checkpoints=tmp_path / "whole")
    went_past = []

    def emit(kind, **fields):
        if kind == "step" and fields["step"] == 2:
            while not held.exists():
                os.sched_yield()
            went_past.append(not (tmp_path / "run" / "step00000002").exists())
            held.unlink()
        if fields.get("name") == "step00000002":
            shutil.copytree(tmp_path / "run" / "step00000002", kept / "step00000002")

    with fault.planted(f"hold:during=save,step=2,file={held}"):
        train_here(
            recipe(checkpoint_every_steps=2),
            data_root=root,
            checkpoints=tmp_path / "run",
            emit=emit,
        )
    resumed = train_here(recipe(), data_root=root, checkpoints=kept, is_resumed=True)

    assert went_past == [True]
    assert all(torch.equal(resumed[name], value) for name, value in whole.items())


def test_a_step_not_yet_logged_is_logged_before_a_save(root, tmp_path):
    """Otherwise a run killed after the save would never log it: the resume begins behind it."""
    config = recipe(checkpoint_every_steps=2)
    config = config.model_copy(update={"log": config.log.model_copy(update={"every_steps": 50})})
    found = []
    train_here(config, data_root=root, checkpoints=tmp_path, emit=events_of(found))

    for at, event in enumerate(found):
        if event.get("what") == "checkpoint":
            steps = [e["step"] for e in found[:at] if e["k"] == "step"]
            assert steps[: event["step"]] == list(range(event["step"]))


def truncate(path):
    os.truncate(path / STATE, (path / STATE).stat().st_size - 100)


def flip(path):
    data = bytearray((path / WEIGHTS).read_bytes())
    data[-3] ^= 1
    (path / WEIGHTS).write_bytes(data)


def lose_manifest(path):
    (path / MANIFEST).unlink()


class Evil:
    def __reduce__(self):
        return (os.system, ("touch evil",))


def reseal(path):
    facts = json.loads((path / MANIFEST).read_text())
    (path / MANIFEST).unlink()
    seal(path, {k: v for k, v in facts.items() if k not in ("files", "schema")})


def plant_code(path):
    """A pickle that runs code, under a manifest that is right about it."""
    torch.save({"progress": Evil()}, path / STATE)
    reseal(path)


def plant_plain_pickle(path):
    (path / STATE).write_bytes(pickle.dumps(Evil()))
    reseal(path)


def cut_weights(path):
    (path / WEIGHTS).write_bytes((path / WEIGHTS).read_bytes()[:200])
    reseal(path)


def empty_manifest(path):
    (path / MANIFEST).write_text("[]")


HARMS = {
    truncate: "bytes instead of",
    flip: "does not match its checksum",
    lose_manifest: "manifest.json is unreadable",
    empty_manifest: "manifest.json is unreadable",
    plant_code: "state.pt is refused",
    plant_plain_pickle: "state.pt is refused",
    cut_weights: "model.safetensors is refused",
}


@pytest.mark.parametrize("harm", HARMS, ids=lambda harm: harm.__name__)
def test_a_harmed_checkpoint_is_refused_and_the_previous_one_taken(
    harm, job, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    older, newer = saved(job, tmp_path, (3, 4))
    harm(newer)

    path, refused = choose_checkpoint(tmp_path)

    assert path == older
    assert len(refused) == 1
    assert newer.name in refused[0]
    assert HARMS[harm] in refused[0]
    assert not (tmp_path / "evil").exists()


def test_with_all_of_them_bad_there_is_no_silent_start_from_scratch(job, root, tmp_path):
    for path in saved(job, tmp_path, (3, 4)):
        flip(path)

    with pytest.raises(CheckpointError, match="no usable checkpoint") as caught:
        train_here(recipe(), data_root=root, checkpoints=tmp_path, is_resumed=True)
    assert caught.value.exit_code == 65
    assert "step00000003" in caught.value.why
    assert "step00000004" in caught.value.why


def test_a_resume_says_what_it_passed_over_and_stays_bit_exact(root, tmp_path):
    whole = train_here(recipe(), data_root=root, checkpoints=tmp_path / "whole")
    config = recipe(checkpoint_every_steps=1)
    train_here(config, data_root=root, checkpoints=tmp_path / "run", stop_after=4)
    newest = newest_first(tmp_path / "run", "step")[0]
    flip(newest)
    found = []
    resumed = train_here(
        config,
        data_root=root,
        checkpoints=tmp_path / "run",
        is_resumed=True,
        emit=events_of(found),
    )

    warnings = [e["message"] for e in found if e.get("what") == "warning"]
    assert any(f"passed over: {newest.name}" in text for text in warnings)
    assert [e["step"] for e in found if e.get("what") == "resume"] == [3]
    assert all(torch.equal(resumed[name], value) for name, value in whole.items())


def test_the_newest_is_found_by_its_number_and_not_by_its_name(tmp_path):
    for name in ("step00000009", "step100000000", "step99999999", "stepping", "step1x"):
        (tmp_path / name).mkdir()

    names = [path.name for path in newest_first(tmp_path, "step")]
    assert names == ["step100000000", "step99999999", "step00000009"]


def test_rotation_keeps_the_two_that_are_known_to_be_good(job, tmp_path):
    """After a fall-back, damaged newer ones must not push the good ones out."""
    one, two, three, four = saved(job, tmp_path, (1, 2, 8, 9))
    flip(three)
    flip(four)
    chosen, _ = choose_checkpoint(tmp_path)
    saver = Saver(job, tmp_path, events_of([]), in_background=False)
    saver.trust(chosen)
    job.progress.step = 3
    saver.save()

    assert chosen == two
    assert [p.name for p in newest_first(tmp_path, "step")] == ["step00000003", "step00000002"]
    assert choose_checkpoint(tmp_path)[0].name == "step00000003"
    assert not one.exists()


def test_rotation_removes_nothing_before_two_good_ones_are_known(job, tmp_path):
    saved(job, tmp_path, (1, 2))
    saver = Saver(job, tmp_path, events_of([]), in_background=False)
    job.progress.step = 3
    saver.save()

    assert len(newest_first(tmp_path, "step")) == 3


def test_pruning_begins_with_the_oldest_and_clears_what_was_unfinished(job, tmp_path):
    *_, last = saved(job, tmp_path, (1, 2, 3))
    (tmp_path / ".step00000009.partial").mkdir()
    (tmp_path / ".best00000009.partial").mkdir()

    prune(tmp_path, "step", {last})

    assert sorted(p.name for p in tmp_path.iterdir()) == [".best00000009.partial", last.name]


def test_a_checkpoint_of_the_same_step_is_replaced_whole(job, tmp_path):
    (first,) = saved(job, tmp_path, (3,))
    change_everything(job)
    saved(job, tmp_path, (3,))

    assert verify(first) is None
    assert [p.name for p in tmp_path.iterdir()] == [first.name]
    found, now = load_file(first / WEIGHTS), job.model.state_dict()
    assert all(torch.equal(found[n], v) for n, v in now.items())


def test_room_is_asked_for_before_anything_is_written(job, tmp_path):
    (only,) = saved(job, tmp_path, (1,))
    free = shutil.disk_usage(tmp_path).free

    with pytest.raises(NotWritable, match="the disk has") as caught:
        need_room(tmp_path, free * 2)
    assert caught.value.exit_code == 74
    assert take_snapshot(job).num_bytes > (only / WEIGHTS).stat().st_size * 0.5
    need_room(tmp_path, 1000)


def test_a_write_that_fails_once_is_a_warning(root, tmp_path):
    whole = train_here(recipe(), data_root=root, checkpoints=tmp_path / "whole")
    found = []
    with fault.planted("raise:during=save,step=4"):
        weights = train_here(
            recipe(checkpoint_every_steps=2),
            data_root=root,
            checkpoints=tmp_path / "run",
            emit=events_of(found),
        )

    warnings = [e["message"] for e in found if e.get("what") == "warning"]
    assert any("step 4 could not be written" in text for text in warnings)
    assert {e["step"] for e in found if e.get("what") == "checkpoint"} >= {2, 6, 8, 10}
    assert all(torch.equal(weights[name], value) for name, value in whole.items())


@pytest.mark.parametrize(
    ("planted", "step", "said"),
    [
        ("raise:during=save,step=2,until=90", 4, "3 checkpoints in a row"),
        ("raise:during=save,step=10", 10, ""),
    ],
    ids=["three in a row", "the last one"],
)
def test_a_run_that_could_not_be_continued_ends_with_an_error(planted, step, said, root, tmp_path):
    config = recipe(checkpoint_every_steps=1, select="last")
    with fault.planted(planted), pytest.raises(NotWritable, match=f"step {step} ") as caught:
        train_here(config, data_root=root, checkpoints=tmp_path)

    assert caught.value.exit_code == 74
    assert said in caught.value.why
    assert choose_checkpoint(tmp_path)[0].name == f"step{1 if step == 4 else 9:08d}"


def test_best_weights_that_could_not_be_written_are_written_later(job, tmp_path):
    found = []
    saver = Saver(job, tmp_path, events_of(found), in_background=False)
    best = {name: value.clone() for name, value in job.model.state_dict().items()}
    job.progress.step = 5
    with fault.planted("raise:during=save,step=5"):
        saver.save_best()
    change_everything(job)
    job.progress.step = 6
    saver.save()
    saver.finish()

    written = load_file(choose_checkpoint(tmp_path, "best")[0] / WEIGHTS)
    assert any("training goes on" in e.get("message", "") for e in found)
    assert all(torch.equal(written[name], value) for name, value in best.items())
