"""Spoilt inputs of one modality: what reaches the encoder, and of whom it is told."""

import numpy as np
import pytest
import torch

from mmtool.config.schema import Recipe
from mmtool.data.transforms import ColumnTransform
from mmtool.engine.build import build_job
from mmtool.engine.deep.corruptions import Given, blank, corrupt, noise, spoilt_batch
from mmtool.engine.deep.record import Judge
from mmtool.engine.distributed import Ranks
from mmtool.engine.evaluate import encode_rows, evaluation_mode
from mmtool.testing.fakes import FakeModality, write_fake_store
from mmtool.types import Batch


def given(values, lengths=None, kind="series", mean=None, deviation=None, seed=3):
    numbers = [None if x is None else torch.tensor(x) for x in (mean, deviation)]
    lengths = None if lengths is None else torch.tensor(lengths)
    return Given(values, lengths, ColumnTransform(kind, *numbers, None, 0), seed)


def test_noise_is_as_strong_as_the_signal():
    values = 5.0 * torch.randn(4000, 3, generator=torch.Generator().manual_seed(0)) + 2.0
    added = noise(given(values)) - values

    assert float(added.std()) == pytest.approx(float(values.std()), rel=0.05)
    assert abs(float(added.mean())) < 0.2
    assert torch.equal(noise(given(values)), noise(given(values)))
    assert not torch.equal(noise(given(values)), noise(given(values, seed=4)))


def test_padding_stays_what_it_is():
    values = torch.randn(2, 4, 3)
    values[0, 2:] = 0.0
    spoilt = noise(given(values, [2, 4]))
    empty = blank(given(values, [2, 4], mean=[1.0, 1.0, 1.0], deviation=[2.0, 2.0, 2.0]))

    assert (spoilt[0, 2:] == 0).all()
    assert (spoilt[0, :2] != values[0, :2]).all()
    assert (empty[0, 2:] == 0).all()
    assert (empty[0, :2] == -0.5).all()
    assert (empty[1] == -0.5).all()


def test_half_of_the_tokens_come_from_elsewhere():
    values = torch.arange(1, 2001).view(100, 20)
    spoilt = noise(given(values, [20] * 100, kind="tokens"))

    assert spoilt.dtype == values.dtype
    assert float((spoilt != values).float().mean()) == pytest.approx(0.5, abs=0.05)
    assert set(spoilt.flatten().tolist()) <= set(values.flatten().tolist())


def test_blank_is_what_zeros_in_the_store_become():
    values = torch.randn(2, 1, 4, 4)
    mean, deviation = [[[0.5]]], [[[0.25]]]

    assert (blank(given(values, kind="frames", mean=mean, deviation=deviation)) == -2.0).all()
    assert (blank(given(values, kind="frames")) == 0.0).all()
    assert (blank(given(torch.ones(2, 3, dtype=torch.int64), kind="tokens")) == 0).all()


@pytest.fixture
def job(tmp_path):
    shapes = {
        "audio": FakeModality((3,), "series", signal=2.0, missing=0.3),
        "image": FakeModality((1, 8, 8), "frames", signal=2.0),
    }
    write_fake_store(tmp_path / "fake", shapes, splits={"train": 40, "val": 40, "test": 5})
    recipe = Recipe.model_validate(
        {
            "data": {"dataset": "fake"},
            "model": {"encoders": {"audio": {"name": "series"}, "image": {"name": "mlp"}}},
            "train": {"epochs": 1, "batch_size": 16},
        }
    )
    job = build_job(recipe, Ranks(), data_root=tmp_path)
    yield job
    job.close()


def batch_of(job) -> Batch:
    from mmtool.data.samplers import Share, Visits

    rows = job.dataset.rows("val")[:12]
    (loaded,) = job.loader.run([Share(0, 12, (Visits(rows),))], epoch=None)
    return loaded.batches[0]


def test_inputs_are_swapped_among_those_that_have_one_with_their_lengths(job):
    batch = batch_of(job)
    members = batch.present[:, 0].nonzero().squeeze(1)
    changed = spoilt_batch(job, batch, "audio", members, "swapped")

    assert 2 < len(members) < 12
    for at, place in enumerate(members.tolist()):
        source = members[at - 1]
        assert torch.equal(changed.inputs["audio"][place], batch.inputs["audio"][source])
        assert changed.lengths["audio"][place] == batch.lengths["audio"][source]
    others = [place for place in range(12) if place not in members.tolist()]
    assert torch.equal(changed.inputs["audio"][others], batch.inputs["audio"][others])
    assert torch.equal(changed.inputs["image"], batch.inputs["image"])


def test_a_batch_is_spoilt_only_where_it_is_asked(job):
    batch = batch_of(job)
    before = {m: x.clone() for m, x in batch.inputs.items()}
    every = torch.arange(12)
    changed = spoilt_batch(job, batch, "image", every, "noise")

    assert not torch.equal(changed.inputs["image"], before["image"])
    assert all(torch.equal(batch.inputs[m], x) for m, x in before.items())


def test_answers_are_those_of_the_spoilt_features(job):
    encoded = encode_rows(job, job.dataset.rows("val"), isolated=True)
    judge = Judge(encoded.label, "single_label", torch.ones(1))
    with evaluation_mode(job.model):
        found = corrupt(job, encoded, judge)
        transform = job.loader.transforms["image"]
        empty = -transform.mean / transform.deviation
        one = job.model.encoders["image"](empty.expand(1, 1, 8, 8), None)
        features = {**encoded.features, "image": one.expand(40, -1)}
        expected = job.model.fuse(features).argmax(1)

    assert found["blank/image.answer"].tolist() == expected.tolist()
    has = encoded.present[:, 0].numpy()
    for name in ("noise", "blank", "swapped"):
        right = found[f"{name}/audio.right"]
        assert np.isnan(right[~has]).all()
        assert np.isfinite(right[has]).all()
        assert (found[f"{name}/audio.answer"][~has] == -1).all()


def test_who_is_alone_in_having_a_modality_swaps_with_nobody(job):
    rows = job.dataset.rows("val")
    has = job.dataset.store.index.present[rows][:, 0]
    alone = np.sort(np.concatenate([rows[has][:1], rows[~has][:3]]))
    encoded = encode_rows(job, alone, isolated=True)
    judge = Judge(encoded.label, "single_label", torch.ones(1))
    with evaluation_mode(job.model):
        found = corrupt(job, encoded, judge)

    assert np.isnan(found["swapped/audio.right"]).all()
    assert np.isfinite(found["noise/audio.right"]).sum() == 1
