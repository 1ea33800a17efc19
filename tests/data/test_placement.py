import numpy as np
import pytest
import torch

from mmtool.config.schema import DataConfig
from mmtool.data import resident
from mmtool.data.dataset import open_dataset
from mmtool.data.loader import Loader
from mmtool.data.samplers import Visits, num_batches, rank_share, shuffled
from mmtool.data.transfer import tensors_of
from mmtool.errors import EnvironmentLacks
from mmtool.testing.fakes import FakeModality, write_fake_store

CPU = torch.device("cpu")
AUGMENT = {"image": {"size": 6, "crop_scale": (0.2, 1.0), "flip": True}}


@pytest.fixture
def root(tmp_path):
    modalities = {
        "audio": FakeModality((5,), "spectrogram"),
        "image": FakeModality((1, 8, 8), "frames"),
        "motion": FakeModality((3,), "series", missing=0.3),
    }
    write_fake_store(tmp_path / "fake", modalities)
    return tmp_path


def opened(root, **data):
    return open_dataset(
        DataConfig.model_validate({"dataset": "fake", "augment": AUGMENT, **data}), root
    )


def epoch_of(loader, *, epoch=3, batch_size=16):
    visits = shuffled(Visits(loader.dataset.rows("train")), seed=0, epoch=0)
    keep = np.random.default_rng(0).random((len(visits), 3)) > 0.2
    visits = Visits(visits.rows, keep, np.linspace(0, 1, len(visits), dtype=np.float32))
    steps = range(num_batches(len(visits), batch_size))
    shares = [rank_share(visits, s, batch_size=batch_size, micro_batches=2) for s in steps]
    return [b for share in loader.run(shares, epoch=epoch) for b in share.batches]


def assert_equal(found, wanted):
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        pairs = zip(tensors_of(one), tensors_of(other), strict=True)
        assert all(a.dtype == b.dtype and torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("normalize", ["train", "none"])
def test_columns_on_the_device_give_the_same_bits(root, normalize):
    on_host = Loader(opened(root, placement="host", normalize=normalize), device=CPU, seed=1)
    on_device = Loader(opened(root, placement="device", normalize=normalize), device=CPU, seed=1)

    assert not on_host.is_resident
    assert on_device.is_resident
    assert_equal(epoch_of(on_device), epoch_of(on_host))
    assert_equal(epoch_of(on_device, epoch=None), epoch_of(on_host, epoch=None))


def test_parts_and_threads_change_no_bit(root, monkeypatch):
    whole = epoch_of(Loader(opened(root), device=CPU, seed=1))
    monkeypatch.setattr("mmtool.data.gather._PART_BYTES", 100)
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        parts = epoch_of(Loader(opened(root), device=CPU, seed=1))
    finally:
        torch.set_num_threads(threads)

    assert_equal(parts, whole)


def test_a_cpu_keeps_columns_on_disk_unless_told(root):
    assert not Loader(opened(root), device=CPU, seed=0).is_resident


def test_columns_are_loaded_in_chunks_of_any_size(root, monkeypatch):
    whole = epoch_of(Loader(opened(root, placement="device"), device=CPU, seed=1))
    monkeypatch.setattr(resident, "_CHUNK_BYTES", 1)

    one_by_one = epoch_of(Loader(opened(root, placement="device"), device=CPU, seed=1))

    assert_equal(one_by_one, whole)


def test_the_size_of_the_columns_is_that_of_their_values(root):
    dataset = opened(root)
    columns = resident.resident_columns(opened(root, placement="device"), CPU)
    held = sum(c.values.numel() * c.values.element_size() for c in columns.values())

    # One spare time step keeps a column without any from being empty.
    assert held - resident.num_bytes(dataset) == 3 * 4


def test_columns_that_do_not_fit_are_refused(root, monkeypatch):
    monkeypatch.setattr(resident, "available_bytes", lambda: 1000)

    with pytest.raises(EnvironmentLacks, match="free") as caught:
        Loader(opened(root, placement="device"), device=CPU, seed=0)
    assert "data.placement=host" in f"{caught.value.fix}"


def test_a_second_epoch_reuses_the_loader_while_the_first_is_unfinished(root):
    loader = Loader(opened(root), device=CPU, seed=1)
    shares = [rank_share(Visits(np.arange(20)), s, batch_size=4) for s in range(5)]
    first = loader.run(shares, epoch=0)
    held = next(first).batches[0]
    copy = held.inputs["image"].clone()

    second = list(loader.run(shares, epoch=0))
    rest = list(first)

    assert torch.equal(held.inputs["image"], copy)
    assert len(rest) == 4
    assert_equal([s.batches[0] for s in rest], [s.batches[0] for s in second[1:]])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_gets_the_same_batches_from_host_and_device(root):
    device = torch.device("cuda", 0)
    on_host = Loader(opened(root, placement="host"), device=device, seed=1)
    automatic = Loader(opened(root), device=device, seed=1)

    assert automatic.is_resident
    assert_equal(epoch_of(automatic), epoch_of(on_host))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_no_buffer_is_refilled_before_its_copy_is_done(tmp_path):
    large = {"image": FakeModality((3, 256, 256), "frames")}
    write_fake_store(tmp_path / "fake", large, splits={"train": 128, "val": 1, "test": 1})
    config = DataConfig(dataset="fake", normalize="none", placement="host")
    dataset = open_dataset(config, tmp_path)
    loader = Loader(dataset, device=torch.device("cuda", 0), seed=0, num_slots=2)
    rows = np.random.default_rng(0).integers(0, 128, 64 * 40)
    shares = [rank_share(Visits(rows), s, batch_size=64) for s in range(40)]

    for loaded in loader.run(shares, epoch=None):
        (batch,) = loaded.batches
        torch.cuda._sleep(2_000_000)  # the training stream falls behind the loader
        raw, _ = dataset.store.gather("image", batch.index.cpu().numpy())
        wanted = torch.from_numpy(raw).double().sum((1, 2, 3)) / 255
        assert torch.allclose(batch.inputs["image"].double().sum((1, 2, 3)).cpu(), wanted)
