import numpy as np
import pytest
import torch

from mmtool.config.schema import DataConfig
from mmtool.data.dataset import open_dataset
from mmtool.data.loader import Loader
from mmtool.data.samplers import Visits, block_shuffled, num_batches, rank_share, shuffled
from mmtool.errors import EnvironmentLacks, RequestError, StoreError
from mmtool.testing.fakes import FakeModality, write_fake_store

BATCH = 16


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("MMTOOL_CACHE", str(tmp_path / "cache"))
    modalities = {"image": FakeModality((1, 8, 8), "frames"), "motion": FakeModality((3,))}
    write_fake_store(
        tmp_path / "fake", modalities, splits={"train": 560, "val": 14}, rows_per_shard=7
    )
    return tmp_path


@pytest.fixture
def remote(root):
    found = open_dataset(
        DataConfig(dataset=f"file://{root / 'fake'}", normalize="none"), root / "nowhere"
    )
    yield found
    found.store.close()


def test_the_order_goes_by_shards_where_they_have_to_be_fetched(root, remote):
    visits = Visits(remote.rows("train"))
    arguments = {"seed": 4, "epoch": 2}
    local = open_dataset(DataConfig(dataset="fake"), root)

    by_shards = remote.epoch_order(visits, batch_size=BATCH, **arguments)
    anyhow = local.epoch_order(visits, batch_size=BATCH, **arguments)

    starts = remote.store.shard_starts
    wanted = block_shuffled(visits, starts, batch_size=BATCH, **arguments)
    assert np.array_equal(by_shards.rows, wanted.rows)
    assert np.array_equal(anyhow.rows, shuffled(visits, **arguments).rows)
    assert not np.array_equal(by_shards.rows, anyhow.rows)
    local.store.close()


def loaded_rows(dataset, *, from_consumed=0, world=1):
    """Rows and images of an epoch from a number of consumed samples on, over all ranks."""
    visits = Visits(dataset.rows("train"))
    visits = dataset.epoch_order(visits, seed=0, epoch=1, batch_size=BATCH)
    steps = range(from_consumed // BATCH, num_batches(len(visits), BATCH))
    found: dict[int, list] = {}
    for rank in range(world):
        shares = (rank_share(visits, s, batch_size=BATCH, rank=rank, world=world) for s in steps)
        loader = Loader(dataset, device=torch.device("cpu"), seed=0)
        for share in loader.run(shares, epoch=None):
            found.setdefault(share.step, []).extend(share.batches)
    batches = [batch for step in sorted(found) for batch in found[step]]
    rows = torch.cat([b.index for b in batches]).numpy()
    return rows, torch.cat([b.inputs["image"] for b in batches])


def test_training_order_arrives_and_resumes_from_one_integer_on_other_ranks(root, remote):
    rows, images = loaded_rows(remote)
    consumed = 11 * BATCH

    rest, rest_images = loaded_rows(remote, from_consumed=consumed, world=2)

    assert sorted(rows) == remote.rows("train").tolist()
    assert np.array_equal(rest, rows[consumed:])
    assert torch.equal(rest_images, images[consumed:])
    local = open_dataset(DataConfig(dataset="fake", normalize="none"), root)
    raw, _ = local.store.gather("image", rows)
    assert torch.allclose(images, torch.from_numpy(raw).float() / 255)
    local.store.close()


def test_a_cache_smaller_than_what_the_order_draws_from_is_refused(root, monkeypatch):
    monkeypatch.setenv("MMTOOL_CACHE_GB", "0.00003")
    with pytest.raises(EnvironmentLacks, match="draws from 64 shards at a time"):
        open_dataset(DataConfig(dataset=f"file://{root / 'fake'}"), root)


def test_recipes_are_checked_against_a_remote_store_too(root):
    url = f"file://{root / 'fake'}"
    with pytest.raises(RequestError, match="no modality 'sound'"):
        open_dataset(DataConfig(dataset=url, modalities=("sound",)), root)
    with pytest.raises(StoreError, match="no prepared dataset here"):
        open_dataset(DataConfig(dataset=f"file://{root / 'other'}"), root)


def test_rows_are_announced_before_they_are_gathered(root, monkeypatch):
    told: list[tuple[str, list[int]]] = []
    opened = open_dataset(DataConfig(dataset="fake"), root)
    store = opened.store
    will_need, gather = store.will_need, store.gather

    def announced(columns, rows):
        told.append(("announced", rows.tolist()))
        will_need(columns, rows)

    def gathered(column, rows, out=None):
        if column == "image":
            told.append(("gathered", rows.tolist()))
        return gather(column, rows, out)

    monkeypatch.setattr(store, "will_need", announced)
    monkeypatch.setattr(store, "gather", gathered)
    visits = Visits(opened.rows("train")[:48])
    shares = [rank_share(visits, s, batch_size=BATCH) for s in range(3)]
    list(Loader(opened, device=torch.device("cpu"), seed=0).run(shares, epoch=0))

    assert [what for what, _ in told] == [
        "announced", "announced", "gathered", "announced", "gathered", "gathered",
    ]  # fmt: skip
    for kind in ("announced", "gathered"):
        found = [row for what, rows in told if what == kind for row in rows]
        assert found == visits.rows.tolist()
    store.close()
