import numpy as np
import pytest
import torch

from mmtool.config.schema import Augment, DataConfig
from mmtool.data.dataset import open_dataset
from mmtool.data.loader import Loader
from mmtool.data.samplers import Visits, num_batches, rank_share, shuffled
from mmtool.data.transforms import augmented
from mmtool.errors import DatasetNotPrepared, RequestError
from mmtool.testing.fakes import FakeModality, write_fake_store

CPU = torch.device("cpu")


@pytest.fixture
def root(tmp_path):
    modalities = {
        "image": FakeModality((1, 8, 8), "frames"),
        "motion": FakeModality((3,), "series", missing=0.3),
    }
    write_fake_store(tmp_path / "fake", modalities)
    return tmp_path


def loaded_epoch(dataset, *, batch_size=16, micro=2, epoch=0):
    visits = shuffled(Visits(dataset.rows("train")), seed=0, epoch=0)
    steps = range(num_batches(len(visits), batch_size))
    shares = [rank_share(visits, s, batch_size=batch_size, micro_batches=micro) for s in steps]
    loader = Loader(dataset, device=CPU, seed=0, num_slots=3)
    return visits, list(loader.run(shares, epoch=epoch))


def test_every_sample_arrives_once_with_its_own_values(root):
    dataset = open_dataset(DataConfig(dataset="fake", normalize="none"), root)
    store = dataset.store

    visits, loaded = loaded_epoch(dataset)

    batches = [b for share in loaded for b in share.batches]
    rows = torch.cat([b.index for b in batches]).numpy()
    assert np.array_equal(rows, visits.rows)
    raw, _ = store.gather("image", rows)
    images = torch.cat([b.inputs["image"] for b in batches])
    assert torch.allclose(images, torch.from_numpy(raw).float() / 255)
    labels = torch.cat([b.label for b in batches]).numpy()
    assert np.array_equal(labels, store.index.label[rows])
    for batch in batches:
        wanted, lengths = store.gather("motion", batch.index.numpy())
        assert np.array_equal(batch.lengths["motion"].numpy(), lengths)
        assert np.allclose(batch.inputs["motion"].numpy()[:, : wanted.shape[1]], wanted)
    store.close()


@pytest.mark.parametrize(("task", "outputs"), [("multi_label", 3), ("regression", 1)])
@pytest.mark.parametrize("placement", ["host", "device"])
def test_batches_of_other_tasks_carry_an_answer_for_each_output(tmp_path, task, outputs, placement):
    modalities = {"image": FakeModality((1, 8, 8), "frames")}
    write_fake_store(tmp_path / "fake", modalities, task=task, without_value=0.2)
    config = DataConfig(dataset="fake", normalize="none", task=task, placement=placement)
    dataset = open_dataset(config, tmp_path)

    visits, loaded = loaded_epoch(dataset)

    batches = [b for share in loaded for b in share.batches]
    label = torch.cat([b.label for b in batches])
    assert {b.task for b in batches} == {task}
    assert label.dtype == torch.float32
    assert label.shape == (len(visits), outputs)
    index = dataset.store.index
    if task == "multi_label":
        assert np.array_equal(label.numpy(), index.answers(visits.rows, 3))
    else:
        assert np.allclose(label[:, 0].numpy(), index.value[visits.rows])
        assert np.isfinite(label.numpy()).all()
    dataset.store.close()


def test_batches_keep_their_values_while_the_ring_is_refilled(root):
    dataset = open_dataset(DataConfig(dataset="fake", normalize="none"), root)

    _, loaded = loaded_epoch(dataset, batch_size=4, micro=1)

    # The list holds all batches although the ring has three slots.
    for share in loaded:
        for batch in share.batches:
            raw, _ = dataset.store.gather("image", batch.index.numpy())
            assert torch.allclose(batch.inputs["image"], torch.from_numpy(raw).float() / 255)
    dataset.store.close()


def test_more_micro_batches_than_slots_do_not_block(root):
    dataset = open_dataset(DataConfig(dataset="fake"), root)

    _, loaded = loaded_epoch(dataset, batch_size=61, micro=20)

    assert len(loaded[0].batches) == 20
    dataset.store.close()


def test_a_consumer_that_leaves_early_ends_the_thread(root):
    dataset = open_dataset(DataConfig(dataset="fake"), root)
    visits = Visits(dataset.rows("train"))
    shares = (rank_share(visits, s % 10, batch_size=6) for s in range(10**9))
    stream = Loader(dataset, device=CPU, seed=0).run(shares, epoch=None)

    next(stream)
    stream.close()

    dataset.store.close()


def test_an_error_while_gathering_reaches_the_consumer(root):
    dataset = open_dataset(DataConfig(dataset="fake"), root)
    loader = Loader(dataset, device=CPU, seed=0)
    bad = rank_share(Visits(np.array([10**6])), 0, batch_size=1)

    with pytest.raises(IndexError):
        list(loader.run([bad], epoch=None))
    dataset.store.close()


def test_absent_modalities_stay_marked(root):
    dataset = open_dataset(DataConfig(dataset="fake", modalities=("motion",)), root)

    _, loaded = loaded_epoch(dataset)

    batch = loaded[0].batches[0]
    at = dataset.store.modalities.index("motion")
    assert batch.present.shape[1] == 1
    assert np.array_equal(
        batch.present[:, 0].numpy(), dataset.store.index.present[batch.index.numpy()][:, at]
    )
    dataset.store.close()


def test_unknown_store_protocol_modality_and_column_are_explained(root):
    cases = [
        (DataConfig(dataset="fke"), DatasetNotPrepared, "did you mean 'fake'"),
        (DataConfig(dataset="fake", split="speaker"), RequestError, "default"),
        (DataConfig(dataset="fake", modalities=("imag",)), RequestError, "did you mean 'image'"),
        (DataConfig(dataset="fake", columns={"image": "motion"}), RequestError, "image"),
    ]
    for config, kind, part in cases:
        with pytest.raises(kind) as caught:
            open_dataset(config, root)
        assert part in f"{caught.value}"


def test_augmentation_depends_on_sample_and_epoch_not_on_the_batch():
    frames = torch.rand(6, 1, 12, 16)
    index = torch.arange(6) * 11
    augment = Augment(size=10, crop_scale=(0.2, 1.0), flip=True)

    whole = augmented(frames, index, augment, seed=1, epoch=4)
    parts = [
        augmented(frames[i : i + 1], index[i : i + 1], augment, seed=1, epoch=4) for i in range(6)
    ]

    assert whole.shape == (6, 1, 10, 10)
    assert torch.allclose(whole, torch.cat(parts), atol=1e-6)
    assert not torch.allclose(whole, augmented(frames, index, augment, seed=1, epoch=5))


def test_evaluation_only_resizes():
    frames = torch.rand(3, 2, 1, 8, 8)
    augment = Augment(crop_scale=(0.1, 0.2), flip=True)

    same = augmented(frames, torch.arange(3), augment, seed=1, epoch=None)

    assert torch.allclose(same, frames, atol=1e-5)


def test_a_mirrored_frame_is_the_frame_backwards():
    frames = torch.rand(64, 1, 4, 6)

    flipped = augmented(frames, torch.arange(64), Augment(flip=True), seed=0, epoch=0)

    is_flipped = [
        torch.allclose(f, o.flip(-1), atol=1e-5) for f, o in zip(flipped, frames, strict=True)
    ]
    is_same = [torch.allclose(f, o, atol=1e-5) for f, o in zip(flipped, frames, strict=True)]
    assert all(a != b for a, b in zip(is_flipped, is_same, strict=True))
    assert 16 < sum(is_flipped) < 48
