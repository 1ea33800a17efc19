"""Steps that are not finite: what they leave untouched, and how they are told apart."""

import numpy as np
import pytest
import torch

from mmtool.config.schema import Plugin, Recipe
from mmtool.engine import fault
from mmtool.engine.build import build_job
from mmtool.engine.distributed import Ranks
from mmtool.engine.loop import fit
from mmtool.engine.stop import StopRequest
from mmtool.errors import NotFinite
from mmtool.testing.fakes import FakeModality, write_fake_store


def recipe(**train: object) -> Recipe:
    return Recipe.model_validate(
        {
            "data": {"dataset": "fake"},
            "model": {
                "encoders": {
                    "audio": {"name": "mlp", "hidden": (12,)},
                    "image": {"name": "cnn", "width": 4},
                }
            },
            "train": {"epochs": 1, "batch_size": 8, "lr": 0.05, "select": "last", **train},
            "log": {"every_steps": 3},
        }
    )


@pytest.fixture
def root(tmp_path):
    shapes = {
        "audio": FakeModality((6,), "spectrogram"),
        "image": FakeModality((1, 8, 8), "spectrogram"),
    }
    write_fake_store(tmp_path / "fake", shapes, splits={"train": 40, "val": 9, "test": 7})
    return tmp_path


def trained(job, folder):
    found = []
    fit(
        job,
        emit=lambda kind, **fields: found.append({"k": kind, **fields}),
        checkpoints=folder / "ckpt",
        stop=StopRequest(),
        is_resumed=False,
    )
    return found


def test_a_skipped_step_leaves_running_statistics_as_they_were(tmp_path):
    """A forward pass on numbers that are not finite would spoil batch normalisation for good."""
    shapes = {"image": FakeModality((3, 32, 32), "frames")}
    write_fake_store(tmp_path / "fake", shapes, splits={"train": 12, "val": 4, "test": 4})
    config = recipe(on_nonfinite="skip", batch_size=4, lr=1e-3)
    model = config.model.model_copy(update={"encoders": {"image": Plugin(name="resnet18")}})
    job = build_job(config.model_copy(update={"model": model}), Ranks(), data_root=tmp_path)
    with fault.planted("nan:step=1"):
        found = trained(job, tmp_path)
    state = job.model.state_dict()
    job.close()

    assert [e["step"] for e in found if e["k"] == "step" and e["skipped"]] == [1]
    assert any(name.endswith("running_mean") for name in state)
    assert all(torch.isfinite(value).all() for value in state.values())
    assert np.isfinite([e["loss"] for e in found if e["k"] == "epoch"]).all()


def test_an_overflow_of_the_loss_scale_is_not_bad_data(root, tmp_path):
    job = build_job(recipe(precision="fp16", epochs=2), Ranks(), data_root=root)
    job.precision.scale = torch.tensor(3e38)
    found = trained(job, tmp_path)
    job.close()

    skipped = [e["step"] for e in found if e["k"] == "step" and e["skipped"]]
    assert len(skipped) >= 2
    assert not [e for e in found if e.get("what") == "nonfinite"]


def test_with_fp16_data_that_is_not_finite_still_stops_the_run(root, tmp_path):
    job = build_job(recipe(precision="fp16"), Ranks(), data_root=root)
    with fault.planted("inf:step=1"), pytest.raises(NotFinite, match="step 1 was not finite"):
        trained(job, tmp_path)
    job.close()


def test_a_stored_value_that_is_not_finite_is_named_by_modality_and_sample(root, tmp_path):
    job = build_job(recipe(), Ranks(), data_root=root)
    row = int(job.dataset.rows("train")[5])
    identity = job.dataset.store.index.ids([row])[0]
    inner = job.dataset.store.gather

    def gather(column, rows, out=None):
        values, lengths = inner(column, rows, out)
        if column == "image":
            values[np.asarray(rows) == row] = np.nan
        return values, lengths

    job.dataset.store.gather = gather
    with pytest.raises(NotFinite) as caught:
        trained(job, tmp_path)
    job.close()

    assert identity in caught.value.what
    assert "the stored values of image are not" in caught.value.what
    assert "prepare the dataset again" in caught.value.fix
