"""What a resumed run promises: the same samples in the same order, and bit for bit the same run."""

import collections
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from mmtool.config.schema import Recipe
from mmtool.engine.build import build_job
from mmtool.engine.distributed import Ranks
from mmtool.engine.loop import fit
from mmtool.engine.stop import StopRequest
from mmtool.errors import RequestError, StoppedResumable
from mmtool.testing.fakes import FakeModality, write_fake_store
from mmtool.testing.ranks import run_ranks
from mmtool.testing.training import StopAfter, ignore, train_here

EPOCHS, NUM_TRAIN, BATCH = 3, 53, 12
STEPS = 5  # of an epoch; its last batch has 5 samples
PLUGIN = Path(__file__).with_name("resuming.py")
TOLERANCE = 2e-5


def recipe(method: object = "none", **train: object) -> Recipe:
    return Recipe.model_validate(
        {
            "data": {"dataset": "fake"},
            "model": {
                "encoders": {
                    "audio": {"name": "mlp", "hidden": (12,)},
                    "image": {"name": "cnn", "width": 4},
                }
            },
            "method": method,
            "train": {
                "epochs": EPOCHS,
                "batch_size": BATCH,
                "lr": 0.01,
                "optimizer": "adamw",
                "schedule": "cosine",
                "select": "last",  # else the weights may be those of before something happened
                **train,
            },
        }
    )


def plain(**train: object) -> Recipe:
    """A recipe without batch normalisation, whose statistics differ between ranks."""
    found = recipe(**train)
    same = found.model.encoders["audio"]
    encoders = {**found.model.encoders, "image": same}
    return found.model_copy(update={"model": found.model.model_copy(update={"encoders": encoders})})


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    shapes = {
        "audio": FakeModality((6,), "spectrogram"),
        "image": FakeModality((1, 8, 8), "frames", missing=0.1),
    }
    splits = {"train": NUM_TRAIN, "val": 11, "test": 7}
    write_fake_store(folder / "fake", shapes, splits=splits, rows_per_shard=7)
    return folder


METHODS = {
    "plain": "none",
    "dropping": "modality_dropout",
    "freezing": {"name": str(PLUGIN), "what": "freeze"},
    "re-initialising": {"name": str(PLUGIN), "what": "restart"},
    "resampling by state": {"name": str(PLUGIN), "what": "resample"},
}
STOPS = {"inside of an epoch": STEPS + 2, "at the end of an epoch": STEPS, "early": 1}


@pytest.fixture(scope="module")
def wholes(root, tmp_path_factory):
    found = {}

    def whole(name):
        if name not in found:
            folder = tmp_path_factory.mktemp("whole")
            found[name] = train_here(recipe(METHODS[name]), data_root=root, checkpoints=folder)
        return found[name]

    return whole


@pytest.mark.parametrize("stop", STOPS)
@pytest.mark.parametrize("name", METHODS)
def test_a_stopped_run_continues_bit_for_bit(name, stop, root, wholes, tmp_path):
    config = recipe(METHODS[name])
    train_here(config, data_root=root, checkpoints=tmp_path, stop_after=STOPS[stop])
    found = train_here(config, data_root=root, checkpoints=tmp_path, is_resumed=True)

    assert all(torch.equal(found[n], value) for n, value in wholes(name).items())


def test_the_methods_do_something(wholes):
    plain = wholes("plain")

    for name in list(METHODS)[1:]:
        other = wholes(name)
        assert any(not torch.equal(plain[n], other[n]) for n in plain), name


def test_the_number_of_loader_threads_does_not_matter(root, wholes, tmp_path):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        train_here(recipe(), data_root=root, checkpoints=tmp_path / "a", stop_after=7)
        torch.set_num_threads(3)  # what the loader's threads are counted by
        job = build_job(recipe(), Ranks(), data_root=root)
        assert job.loader._gatherer._num_threads == 3
        torch.set_num_threads(1)
        fit(
            job,
            emit=ignore,
            checkpoints=tmp_path / "a",
            stop=StopRequest(),
            is_resumed=True,
        )
        found = {n: v.detach().clone() for n, v in job.model.state_dict().items()}
        job.close()
        expected = train_here(recipe(), data_root=root, checkpoints=tmp_path / "two")
    finally:
        torch.set_num_threads(before)

    assert all(torch.equal(found[n], value) for n, value in expected.items())


class Listing:
    """Notes the rows of every step that a rank trains on."""

    def __init__(self, job, rank):
        self.visits = []
        self.job, self.rank = job, rank
        inner = job.loader.run

        def run(shares, *, epoch):
            for loaded in inner(shares, epoch=epoch):
                if epoch is not None:
                    for batch in loaded.batches:
                        kept = (
                            batch.index if batch.weight is None else batch.index[batch.weight > 0]
                        )
                        self.visits += [(epoch, loaded.step, row) for row in kept.tolist()]
                yield loaded

        job.loader.run = run

    def write(self, file):
        with file.open("a", encoding="utf-8") as stream:
            stream.writelines(f"{e} {s} {row}\n" for e, s, row in self.visits)


def listed(ranks: Ranks, root: str, out: str, stop_after: str, is_resumed: str) -> None:
    """Train on these ranks and leave what was visited; called in each rank process."""
    job = build_job(recipe(), ranks, data_root=Path(root))
    listing = Listing(job, ranks.rank)
    stop = StopAfter(int(stop_after)) if int(stop_after) else StopRequest()
    try:
        fit(
            job,
            emit=ignore,
            checkpoints=Path(out) / "ckpt",
            stop=stop,
            is_resumed=is_resumed == "yes",
        )
    except StoppedResumable:
        assert int(stop_after)
    finally:
        listing.write(Path(out) / f"visits.{ranks.world}.{ranks.rank}.txt")
        job.close()


@pytest.mark.slow
def test_every_sample_is_visited_once_an_epoch_over_ranks_and_restarts(root, tmp_path):
    """A sharded store, three attempts on 2, 3 and 1 ranks, stopped inside of epochs."""
    target = f"{Path(__file__)}:listed"
    run_ranks(2, target, str(root), str(tmp_path), "3", "no")
    run_ranks(3, target, str(root), str(tmp_path), "6", "yes")
    listed(Ranks(), str(root), str(tmp_path), "0", "yes")

    job = build_job(recipe(), Ranks(), data_root=root)
    rows, shards = sorted(job.dataset.rows("train").tolist()), job.dataset.store.manifest.shards
    job.close()
    lines = [
        tuple(map(int, line.split()))
        for file in tmp_path.glob("visits.*.txt")
        for line in file.read_text(encoding="utf-8").splitlines()
    ]
    counts = collections.Counter((epoch, row) for epoch, _, row in lines)
    files = {file.name for file in tmp_path.glob("visits.*.txt")}

    assert len(shards) > 5
    assert files == {f"visits.{w}.{r}.txt" for w in (1, 2, 3) for r in range(w)}
    for epoch in range(EPOCHS):
        assert sorted(row for e, row in counts if e == epoch) == rows, epoch
    assert set(counts.values()) == {1}


def train_small(ranks: Ranks, root: str, out: str) -> None:
    """Train with batches smaller than the number of ranks; called in each rank process."""
    found = train_here(
        plain(batch_size=13), data_root=Path(root), checkpoints=Path(out) / "small", ranks=ranks
    )
    save_file(found, f"{out}/small.rank{ranks.rank}.safetensors")


@pytest.mark.slow
def test_a_last_batch_smaller_than_the_number_of_ranks_is_exact(root, tmp_path):
    """53 samples in batches of 13 leave one for the last: two of three ranks get none."""
    run_ranks(3, f"{Path(__file__)}:train_small", str(root), str(tmp_path))
    config = plain(batch_size=13, accumulate=3)
    whole = train_here(config, data_root=root, checkpoints=tmp_path / "whole")

    ranks = [load_file(tmp_path / f"small.rank{rank}.safetensors") for rank in range(3)]
    for name, value in whole.items():
        assert all(torch.equal(ranks[0][name], other[name]) for other in ranks[1:]), name
        assert torch.allclose(ranks[0][name], value, atol=TOLERANCE), name


def test_a_recipe_may_change_where_and_how_it_runs_but_not_what_it_computes(root, tmp_path):
    train_here(recipe(), data_root=root, checkpoints=tmp_path, stop_after=2)
    free = recipe(checkpoint_every_steps=3, on_oom="halve").model_copy(
        update={"log": recipe().log.model_copy(update={"every_steps": 3})}
    )
    train_here(free, data_root=root, checkpoints=tmp_path, stop_after=2, is_resumed=True)

    for changed, key in (
        (recipe(lr=0.5), "train.lr: 0.01 -> 0.5"),
        (recipe(batch_size=6), "train.batch_size: 12 -> 6"),
        (recipe({"name": "ogm"}), 'method.name: "none" -> "ogm"'),
    ):
        with pytest.raises(RequestError, match="the recipe is not the one") as caught:
            train_here(changed, data_root=root, checkpoints=tmp_path, is_resumed=True)
        assert key in caught.value.why
        assert caught.value.exit_code == 2
