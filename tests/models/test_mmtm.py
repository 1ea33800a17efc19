"""Encoders that hear each other: what the gates are, who hears whom, and what is refused."""

from dataclasses import replace

import pytest
import torch

from mmtool.config.schema import ModelConfig
from mmtool.engine.build import build_job
from mmtool.engine.distributed import Ranks
from mmtool.engine.evaluate import encode_rows, evaluate, evaluation_mode
from mmtool.errors import RequestError
from mmtool.models.build import build_model, check_decomposition
from mmtool.models.groups import exchange_views, parameter_groups
from mmtool.testing.cases import Case, contract_recipe, write_contract_store
from mmtool.testing.training import train_here
from mmtool.types import Batch, InputSpec

CLASSES = 3
SPECS = {
    "image": InputSpec("frames", (3, 16, 16)),
    "clip": InputSpec("frames", (2, 3, 16, 16)),
    "voice": InputSpec("spectrogram", (1, 16, 20)),
}
CNN = {"name": "cnn", "width": 4}
MLP = {"name": "mlp", "hidden": (7, 6, 5)}


def model_of(encoders, *, fusion="mmtm", seed=0, **options):
    torch.manual_seed(seed)
    config = ModelConfig.model_validate(
        {"encoders": encoders, "fusion": {"name": fusion, **options}}
    )
    return build_model(config, {m: SPECS[m] for m in encoders}, CLASSES)


def batch_of(*modalities, size=4, seed=1, present=None):
    generator = torch.Generator().manual_seed(seed)
    names = tuple(sorted(modalities))
    inputs = {m: torch.randn(size, *SPECS[m].shape, generator=generator) for m in names}
    return Batch(
        inputs=inputs,
        lengths={},
        present=torch.ones(size, len(names), dtype=torch.bool) if present is None else present,
        label=torch.arange(size) % CLASSES,
        index=torch.arange(size),
        modalities=names,
    )


def hears(model, *modalities):
    return torch.tensor([m in modalities for m in model.modalities])


def changed(batch, modality):
    other = torch.randn(batch.inputs[modality].shape, generator=torch.Generator().manual_seed(9))
    return replace(batch, inputs={**batch.inputs, modality: other})


@pytest.mark.parametrize(
    "image",
    [CNN, {**CNN, "norm": "batch"}, {"name": "resnet18", "norm": "group"}, MLP],
    ids=["cnn", "cnn-batch", "resnet18", "mlp"],
)
def test_with_open_gates_encoders_give_what_they_give_on_their_own(image):
    model = model_of({"image": image, "clip": image})
    for excite in model.fusion.excites.parameters():
        torch.nn.init.zeros_(excite)  # 2 sigmoid(0) = 1
    batch = batch_of("image", "clip")
    model.eval()

    found = model.encode(batch)

    for modality in ("image", "clip"):
        alone = model.encoders[modality](batch.inputs[modality])
        assert torch.allclose(found[modality], alone, rtol=1e-4, atol=1e-5)


def test_stages_hold_every_layer_of_an_encoder_once():
    for encoder in (CNN, {"name": "resnet18"}, MLP):
        own = model_of({"image": encoder, "voice": CNN}).encoders["image"]
        staged = [p for stage in own.stages() for p in stage.parameters()]
        assert [id(p) for p in staged] == [id(p) for p in own.parameters()]
        assert len(own.stages()) == len(own.stage_dims)
        assert own.stage_dims[-1] == own.out_dim


def test_a_late_fusion_does_not_touch_stages(monkeypatch):
    model = model_of({"image": CNN, "voice": CNN}, fusion="concat")
    for encoder in model.encoders.values():
        monkeypatch.setattr(encoder, "stages", None)
    batch = batch_of("image", "voice")

    assert not model.is_exchanging
    assert exchange_views(model) == {}
    assert torch.equal(model.encode(batch)["image"], model.encoders["image"](batch.inputs["image"]))


def test_gates_are_those_of_the_formula():
    model = model_of({"image": MLP, "voice": MLP}, depths=1, ratio=5)
    fusion, batch = model.fusion, batch_of("image", "voice", size=2)
    squeezed = {m: model.encoders[m](batch.inputs[m]) for m in ("image", "voice")}  # 5 each
    assert fusion.squeezes[0].weight.shape == (2, 10)

    found = model.encode(batch)

    joint = fusion.squeezes[0].weight @ torch.cat([*squeezed.values()], 1).T
    joint = (joint + fusion.squeezes[0].bias[:, None]).clamp_min(0)
    for modality in ("image", "voice"):
        layer = fusion.excites[0][modality]
        gate = 2 / (1 + torch.exp(-(layer.weight @ joint + layer.bias[:, None]).T))
        assert torch.allclose(found[modality], squeezed[modality] * gate, atol=1e-6)


def test_every_frame_of_a_clip_is_gated_alike():
    model = model_of({"clip": CNN, "voice": CNN}, depths=1)
    batch = batch_of("clip", "voice")
    swapped = replace(batch, inputs={**batch.inputs, "clip": batch.inputs["clip"].flip(1)})

    assert torch.allclose(model.encode(batch)["clip"], model.encode(swapped)["clip"], atol=1e-6)


def test_an_encoder_hears_the_other_only_where_it_may():
    model, batch = model_of({"image": CNN, "voice": MLP}), batch_of("image", "voice")
    other = changed(batch, "voice")

    for allowed, moves in (((), False), (("image",), True), (("voice",), False)):
        mask = hears(model, *allowed)
        one, two = model.encode(batch, mask), model.encode(other, mask)
        assert torch.equal(one["image"], two["image"]) != moves


def test_what_is_not_heard_gets_no_gradient():
    model, batch = model_of({"image": CNN, "voice": MLP}), batch_of("image", "voice")

    for allowed in ((), ("image",)):
        model.zero_grad()
        model.encode(batch, hears(model, *allowed))["image"].square().sum().backward()
        reached = [p.grad for p in model.encoders["voice"].parameters()]
        assert any(g is not None and bool(g.any()) for g in reached) == bool(allowed)


def test_who_lacks_a_modality_is_told_its_average():
    model = model_of({"image": CNN, "voice": MLP})
    for average in model.fusion.averages.buffers():
        average.uniform_()
    present = torch.tensor([[True, True], [True, False], [True, True], [True, False]])
    batch = batch_of("image", "voice", present=present)

    found = model.encode(batch)["image"]

    live, told = model.encode(batch_of("image", "voice")), model.encode(batch, hears(model))
    assert torch.allclose(found[0::2], live["image"][0::2])
    assert torch.allclose(found[1::2], told["image"][1::2])
    assert not torch.allclose(live["image"][1::2], told["image"][1::2])
    assert torch.allclose(model.encode(batch.only(["image"]))["image"], told["image"])


def test_averages_are_means_over_steps_of_the_samples_that_have_the_modality():
    model = model_of({"image": MLP, "voice": MLP}, depths=1)
    model.train()
    seen = []
    for seed, weight in ((3, None), (4, torch.tensor([1.0, 1.0, 0.0, 1.0]))):
        batch = replace(batch_of("image", "voice", seed=seed), weight=weight)
        kept = [0, 1, 2, 3] if weight is None else [0, 1, 3]
        seen.append(model.encoders["image"](batch.inputs["image"])[kept].mean(0))
        encoded = model.encode(batch)
        model.update_feature_means(*model.feature_sums(encoded, batch))
    average = model.fusion.averages.get_buffer("image")
    assert torch.allclose(average, torch.stack(seen).mean(0), atol=1e-6)

    before = average.clone()
    batch = batch_of("image", "voice", seed=5)
    sums, counts = model.feature_sums(model.encode(batch), batch)
    sums["image@all"][:] = torch.nan  # as after a step that was not finite, which counts nothing
    model.update_feature_means(sums, counts * 0)
    assert torch.equal(average, before)
    assert model.fusion.num_steps.tolist() == [2.0, 2.0]


def test_evaluation_leaves_the_averages_alone():
    model, batch = model_of({"image": CNN, "voice": MLP}), batch_of("image", "voice")
    model.eval()
    sums, _ = model.feature_sums(model.encode(batch), batch)

    assert set(sums) == {"image", "voice"}


def test_logits_per_modality_add_up_for_any_number_of_modalities():
    model = model_of({"image": CNN, "voice": MLP, "clip": CNN})
    features = model.encode(batch_of("image", "voice", "clip"))

    assert model.way == "decompose"
    check_decomposition(model, features)
    each = [model.fusion.classifiers[m](features[m]) for m in model.modalities]
    assert torch.allclose(model.fuse(features), torch.stack(each).mean(0), atol=1e-6)


@pytest.mark.parametrize("way", ["head", "ablate"])
def test_other_ways_to_unimodal_logits_work_as_well(way):
    config = ModelConfig.model_validate(
        {"encoders": {"image": CNN, "voice": MLP}, "fusion": "mmtm", "unimodal": way}
    )
    model = build_model(config, {m: SPECS[m] for m in ("image", "voice")}, CLASSES, heads=True)

    logits = model.unimodal(model.encode(batch_of("image", "voice")))

    assert {m: tuple(z.shape) for m, z in logits.items()} == {"image": (4, 3), "voice": (4, 3)}


def test_what_lets_an_encoder_hear_has_a_name_and_belongs_to_the_fusion():
    model = model_of({"image": CNN, "voice": MLP}, depths=2)
    views, groups = exchange_views(model), parameter_groups(model)

    assert set(views) == {"exchange.image", "exchange.voice"}
    of_image, of_voice = ({name for name, _ in views[f"exchange.{m}"]} for m in ("image", "voice"))
    assert of_image & of_voice == {
        f"squeezes.{d}.{kind}" for d in range(2) for kind in ("weight", "bias")
    }
    assert all(".image." in name for name in of_image - of_voice)
    everywhere = [id(p) for members in groups.values() for _, p in members]
    assert len(everywhere) == len(set(everywhere))
    fusion = {id(p) for _, p in groups["fusion"]}
    assert all(id(p) in fusion for members in views.values() for _, p in members)


def test_an_encoder_without_stages_is_refused():
    torch.manual_seed(0)
    config = ModelConfig.model_validate(
        {"encoders": {"image": CNN, "motion": "series"}, "fusion": "mmtm"}
    )
    specs = {"image": SPECS["image"], "motion": InputSpec("series", (3,), ragged=True)}

    with pytest.raises(RequestError, match="'motion' has none") as told:
        build_model(config, specs, CLASSES)
    assert told.value.where == "model.encoders.motion"


def test_more_depths_than_stages_are_refused():
    with pytest.raises(RequestError, match="4 depths") as told:
        model_of({"image": {"name": "resnet18"}, "voice": CNN}, depths=4)
    assert told.value.fix == "-s model.fusion.depths=3"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mmtm")
    write_contract_store(folder / "fake")
    return folder


CASE = Case(
    fusion="mmtm",
    modalities=("audio", "image"),
    encoders={"audio": {"name": "mlp", "hidden": (12, 8, 8)}, "image": CNN},
)


@pytest.mark.parametrize(("key", "value"), [("compile", True), ("streams", True), ("sync", "fsdp")])
def test_ways_to_run_encoders_as_wholes_are_refused(root, key, value):
    recipe = contract_recipe("none", CASE)
    launch = recipe.launch.model_copy(update={key: value})

    with pytest.raises(RequestError, match=f"launch.{key}.* does not work with fusion 'mmtm'"):
        build_job(recipe.model_copy(update={"launch": launch}), Ranks(), data_root=root)


def drop_of(model, encoded, modality):
    """Drop of accuracy over the seeded permutations that evaluation uses, of isolated features."""
    label, features = encoded.label, encoded.isolated
    generator = torch.Generator().manual_seed(20_230_517)

    def accuracy(of):
        return (model.fuse(of).argmax(1) == label).float().mean().item()

    drops = []
    for _ in range(3):
        cycle = torch.randperm(len(label), generator=generator)
        swapped = features[modality].clone()
        swapped[cycle] = features[modality][cycle.roll(1)]
        drops.append(accuracy(features) - accuracy({**features, modality: swapped}))
    return sum(drops) / 3


def test_numbers_of_a_modality_are_those_of_one_that_hears_averages(root, tmp_path):
    events = []
    train_here(
        contract_recipe("none", CASE),
        data_root=root,
        checkpoints=tmp_path,
        emit=lambda kind, **fields: events.append((kind, fields)),
    )
    job = build_job(contract_recipe("none", CASE), Ranks(), data_root=root)
    try:
        for average in job.model.fusion.averages.buffers():
            average.uniform_()
        rows = job.dataset.rows("val")
        encoded = encode_rows(job, rows, isolated=True)
        row = evaluate(job, "val", rows)["m"]["image"]
        with evaluation_mode(job.model):
            own = job.model.unimodal(encoded.isolated)["image"]
            live = job.model.unimodal(encoded.features)["image"]
            expected = drop_of(job.model, encoded, "image")
    finally:
        job.close()

    loss = torch.nn.functional.cross_entropy(own, encoded.label).item()
    assert row["nll"] == pytest.approx(loss, rel=1e-5)
    assert loss != pytest.approx(torch.nn.functional.cross_entropy(live, encoded.label).item())
    # Permuting moves what the model relies on, which others that heard it could not give away.
    assert row["drop"] == pytest.approx(expected, abs=1e-6)
    assert row["flip"] > 0
    evaluations = [fields for kind, fields in events if kind == "epoch"]
    assert evaluations
    assert all(
        {"acc", "alone", "probe", "drop", "flip"} <= set(f["m"]["audio"]) for f in evaluations
    )
