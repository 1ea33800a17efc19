"""Everything that is measured on a job that was just trained, on tiny stores."""

import numpy as np
import pytest
import torch

from mmtool.config.schema import Recipe
from mmtool.engine.build import build_job
from mmtool.engine.deep.api import Asked, measure_deep
from mmtool.engine.deep.measure import untrained
from mmtool.engine.distributed import Ranks
from mmtool.engine.evaluate import evaluate
from mmtool.engine.loop import fit
from mmtool.engine.stop import StopRequest
from mmtool.errors import RequestError
from mmtool.runlog.deep import read_deep
from mmtool.testing.cases import contract_recipe, write_contract_store
from mmtool.testing.fakes import FakeModality, write_fake_store
from mmtool.testing.training import ignore, weights

TASKS = ("single_label", "multi_label", "regression")


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for task in TASKS:
        write_contract_store(folder / task / "fake", task)
    return folder


def trained(recipe, data_root, checkpoints):
    job = build_job(recipe, Ranks(), data_root=data_root)
    fit(job, emit=ignore, checkpoints=checkpoints, stop=StopRequest(), is_resumed=False)
    return job


@pytest.fixture(scope="module", params=TASKS)
def measured(request, root, tmp_path_factory):
    """A trained job, its weights before it was measured, and both records."""
    out = tmp_path_factory.mktemp("out")
    recipe = contract_recipe("none", task=request.param)
    job = trained(recipe, root / request.param, out / "ckpt")
    before = weights(job)
    sentences = []
    measure_deep(job, out / "run", tell=sentences.append)
    yield job, before, read_deep(out / "run", "val"), read_deep(out / "run", "train"), sentences
    job.close()


def test_the_whole_model_answers_as_in_its_evaluation(measured):
    job, _, val, _, _ = measured
    fields = evaluate(job, "val", job.dataset.rows("val"))
    right = val.arrays["fused.right"].mean()
    if job.dataset.task == "regression":
        spread = val.arrays["label"].var()
        right = 1 - right / spread

    assert right == pytest.approx(fields["acc"], abs=1e-5)
    np.testing.assert_array_equal(val.arrays["mean.right"][0], val.arrays["fused.right"])
    np.testing.assert_array_equal(val.arrays["row"], job.dataset.rows("val"))


def test_neither_weights_nor_progress_change(measured):
    job, before, val, _, _ = measured

    assert all(torch.equal(value, before[name]) for name, value in weights(job).items())
    assert val.head["step"] == job.progress.step


def test_a_missing_modality_is_marked_wherever_it_is_alone(measured):
    job, _, val, _, _ = measured
    absent = ~val.arrays["present"][:, 2]
    alone = [name for name in val.arrays if "/motion." in name and not name.endswith(".answer")]

    assert 0 < absent.sum() < len(absent)
    assert len(alone) >= 12
    for name in alone:
        assert np.isnan(val.arrays[name][absent]).all(), name
        assert np.isfinite(val.arrays[name][~absent]).all(), name
    if job.dataset.task == "single_label":
        assert (val.arrays["probe/motion.answer"][absent] == -1).all()
        assert (val.arrays["probe/motion.answer"][~absent] >= 0).all()
    assert np.isfinite(val.arrays["permute.right"]).all()


def test_every_array_has_the_shape_of_the_contract(measured):
    job, _, val, train, _ = measured
    n, task = val.n, job.dataset.task

    for record in (val, train):
        assert record.arrays["permute.gain"].shape == (8, 5, n)
        assert record.arrays["mean.gain"].shape == (8, n)
        for source in ("probe", "floor", "headroom"):
            for modality in val.modalities:
                assert record.arrays[f"{source}/{modality}.right"].shape == (n,)
    for kind in ("noise", "blank", "swapped"):
        assert val.arrays[f"{kind}/audio.gain"].shape == (n,)
        assert f"{kind}/audio.gain" not in train.arrays
    assert ("mean.answer" in val.arrays) == (task == "single_label")
    assert ("conf" in val.arrays) == (task != "regression")
    assert "solo_joint.right" not in val.arrays


def test_the_head_says_what_was_measured(measured):
    job, _, val, train, _ = measured
    head = val.head

    assert head["modalities"] == ["audio", "image", "motion"]
    assert head["dataset_hash"] == job.dataset.store.hash
    assert head["emap"]["how"] == "additive"
    assert train.head["emap"] is None
    assert head["headroom"] == {"epochs": 1, "share": 0.5}
    assert head["solo"] == {}
    assert set(head["seconds"]) == {
        "encode", "probe", "floor", "headroom", "removals", "emap", "corruptions",
    }  # fmt: skip
    assert all(moved > 0 for moved in head["update_norm"].values())
    for modality, rank in head["effective_rank"].items():
        assert 1 < rank <= job.model.feature_dims[modality]
    assert sum(head["prior"]) == pytest.approx(1.0) or job.dataset.task != "single_label"


def test_the_samples_of_train_are_as_many_and_ascending(measured):
    job, _, val, train, _ = measured

    assert train.n == val.n
    assert (np.diff(train.arrays["row"]) > 0).all()
    assert set(train.arrays["row"]) <= set(job.dataset.rows("train"))


def test_progress_is_told_in_sentences(measured):
    *_, sentences = measured

    assert sentences[0] == "encoding 30 samples of val"
    assert sum("alone, 1 epoch" in sentence for sentence in sentences) == 3


def single(root, out, **changed):
    recipe = contract_recipe("none")
    job = trained(recipe, root / "single_label", out / "ckpt")
    try:
        measure_deep(job, out / "run", asked=Asked(**changed))
    finally:
        job.close()
    return read_deep(out / "run", "val"), read_deep(out / "run", "train")


def test_the_same_weights_give_the_same_arrays(root, tmp_path):
    first = single(root, tmp_path / "a")
    again = single(root, tmp_path / "b")

    for one, other in zip(first, again, strict=True):
        assert one.arrays.keys() == other.arrays.keys()
        for name, array in one.arrays.items():
            np.testing.assert_array_equal(array, other.arrays[name], err_msg=name)


def test_fewer_samples_are_a_part_of_them_and_headroom_can_be_left_out(root, tmp_path):
    val, train = single(root, tmp_path, samples=12, headroom=False)

    assert val.n == train.n == 12
    assert (np.diff(val.arrays["row"]) > 0).all()
    assert not any(name.startswith("headroom") for name in val.arrays)
    assert val.head["headroom"] is None


def test_the_untrained_model_is_the_one_the_run_began_with(root):
    job = build_job(contract_recipe("none"), Ranks(), data_root=root / "single_label")
    try:
        model, began = untrained(job), job.model.state_dict()
        found = model.state_dict()
    finally:
        job.close()

    encoders = [name for name in began if name.startswith(("encoders.", "fusion."))]
    assert len(encoders) > 4
    assert all(torch.equal(found[name], began[name]) for name in encoders)


def planted(tmp_path, modalities, splits=None, method="none", **sections):
    shapes = {
        m: FakeModality((6,), "spectrogram", signal=signal) for m, signal in modalities.items()
    }
    splits = splits or {"train": 200, "val": 100, "test": 10}
    write_fake_store(tmp_path / "fake", shapes, splits=splits)
    encoders = {m: {"name": "mlp", "hidden": (8,)} for m in modalities}
    recipe = Recipe.model_validate(
        {
            "data": {"dataset": "fake"},
            "model": {"encoders": encoders, **sections.get("model", {})},
            "method": {"name": method, **sections.get("options", {})},
            "train": {"epochs": 3, "batch_size": 20, "lr": 0.05},
        }
    )
    job = trained(recipe, tmp_path, tmp_path / "ckpt")
    try:
        measure_deep(job, tmp_path / "run")
    finally:
        job.close()
    return read_deep(tmp_path / "run", "val")


def test_a_modality_without_a_signal_is_told_from_one_with(tmp_path):
    record = planted(tmp_path, {"loud": 4.0, "mute": 0.0})

    def mean(name):
        return float(np.nanmean(record.arrays[name]))

    full = mean("fused.right")
    swapped = record.arrays["permute.right"].mean((1, 2))
    assert full > 0.95
    assert mean("probe/loud.right") > 0.95
    assert mean("probe/mute.right") < 0.55
    assert full - swapped[record.subset("mute")] > 0.4
    assert full - swapped[record.subset("loud")] < 0.05
    assert mean("blank/mute.right") > 0.9
    assert mean("noise/loud.right") < full
    assert mean("swapped/loud.right") < 0.6
    assert abs(mean("emap.full_right") - mean("emap.right")) < 0.02


def test_the_floor_is_not_the_probe(tmp_path):
    record = planted(tmp_path, {"loud": 1.0, "other": 1.0})

    floor, probe = (record.arrays[f"{source}/loud.gain"] for source in ("floor", "probe"))
    assert not np.allclose(floor, probe)


def test_five_modalities_are_measured_along_sampled_orders(tmp_path):
    record = planted(tmp_path, dict.fromkeys("abcde", 1.5), {"train": 60, "val": 20, "test": 5})
    kept, order = record.arrays["kept"], record.arrays["order"]

    assert order.shape == (32, 5)
    assert record.arrays["permute.right"].shape == (len(kept), 5, 20)
    assert record.subset(*"abcde") == 0
    assert record.subset() == len(kept) - 1


def test_one_modality_has_readouts_and_corruptions(tmp_path):
    record = planted(tmp_path, {"only": 3.0})

    assert record.head["emap"] is None
    assert record.arrays["kept"].tolist() == [[True], [False]]
    assert np.nanmean(record.arrays["probe/only.right"]) > 0.9
    assert np.nanmean(record.arrays["swapped/only.right"]) < 0.7


def test_a_method_that_predicts_with_one_modality_rests_on_it(tmp_path):
    record = planted(
        tmp_path, {"one": 3.0, "two": 3.0}, method="unimodal", options={"modality": "two"}
    )
    gain = record.arrays["permute.gain"]

    np.testing.assert_allclose(gain[record.subset("two")], gain[0], atol=1e-5)
    assert gain[record.subset("one")].mean() < gain[0].mean() - 0.5
    assert record.head["update_norm"]["one"] == 0.0
    assert record.head["trainable"] == {"one": False, "two": True}


def test_encoders_that_hear_each_other_are_taken_apart(root, tmp_path):
    job = trained(contract_recipe("greedy"), root / "single_label", tmp_path / "ckpt")
    try:
        measure_deep(job, tmp_path / "run")
        fields = evaluate(job, "val", job.dataset.rows("val"))
    finally:
        job.close()
    record = read_deep(tmp_path / "run", "val")

    assert record.arrays["fused.right"].mean() == pytest.approx(fields["acc"])
    assert not np.allclose(record.arrays["fused.gain"], record.arrays["mean.gain"][0])
    assert np.isfinite(record.arrays["swapped/audio.gain"]).all()
    assert np.isfinite(record.arrays["headroom/image.gain"]).all()


def test_an_encoder_that_was_not_trained_reads_as_its_floor_and_has_room(tmp_path):
    shapes = dict.fromkeys(("one", "two"), FakeModality((8,), "spectrogram", signal=2.0))
    splits = {"train": 300, "val": 120, "test": 5}
    write_fake_store(tmp_path / "fake", shapes, splits=splits, num_classes=6)
    recipe = Recipe.model_validate(
        {
            "data": {"dataset": "fake"},
            "model": {"encoders": {m: {"name": "mlp", "hidden": (32, 4)} for m in shapes}},
            "train": {"epochs": 36, "batch_size": 20, "lr": 0.02},
        }
    )
    job = build_job(recipe, Ranks(), data_root=tmp_path)
    try:
        measure_deep(job, tmp_path / "run")
    finally:
        job.close()
    record = read_deep(tmp_path / "run", "val")

    assert record.head["headroom"] == {"epochs": 12, "share": pytest.approx(1 / 3)}
    assert record.head["update_norm"] == {"one": 0.0, "two": 0.0}
    for modality in shapes:
        probe, floor, headroom = (
            record.arrays[f"{source}/{modality}.right"] for source in ("probe", "floor", "headroom")
        )
        np.testing.assert_array_equal(probe, floor)
        assert headroom.mean() > probe.mean() + 0.08


def test_without_validation_samples_nothing_is_measured(tmp_path):
    write_fake_store(
        tmp_path / "fake",
        {"a": FakeModality((6,), "spectrogram")},
        splits={"train": 20, "test": 5},
    )
    recipe = Recipe.model_validate(
        {
            "data": {"dataset": "fake"},
            "model": {"encoders": {"a": {"name": "mlp"}}},
            "train": {"epochs": 1, "batch_size": 10, "select": "last"},
        }
    )
    job = build_job(recipe, Ranks(), data_root=tmp_path)
    try:
        with pytest.raises(RequestError, match="no validation samples"):
            measure_deep(job, tmp_path / "run")
    finally:
        job.close()
