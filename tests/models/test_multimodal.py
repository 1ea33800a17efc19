import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmtool.config.schema import ModelConfig
from mmtool.errors import Bug
from mmtool.models.build import build_model, check_decomposition
from mmtool.types import Batch, InputSpec

NAMES = ("audio", "image", "motion", "text")
NUM_CLASSES = 4
FUSIONS = ("concat", "sum", "film", "gated")
ADDITIVE = ("concat", "sum")


def model_of(num_modalities=2, fusion="concat", unimodal="auto", **more):
    """Small encoders with a different feature size each."""
    names = NAMES[:num_modalities]
    encoders = {m: {"name": "mlp", "hidden": [3 + at]} for at, m in enumerate(names)}
    config = ModelConfig.model_validate(
        {"encoders": encoders, "fusion": fusion, "unimodal": unimodal}
    )
    torch.manual_seed(5)
    return build_model(
        config, {m: InputSpec("spectrogram", (1, 2, 3)) for m in names}, NUM_CLASSES, **more
    )


def batch_of(num_modalities=2, size=6, present=None, weight=None, inputs=None):
    names = NAMES[:num_modalities]
    generator = torch.Generator().manual_seed(9)
    data = {m: torch.randn(size, 1, 2, 3, generator=generator) for m in names}
    return Batch(
        inputs={m: x for m, x in data.items() if inputs is None or m in inputs},
        lengths={},
        present=torch.ones(size, num_modalities, dtype=torch.bool) if present is None else present,
        label=torch.arange(size) % NUM_CLASSES,
        index=torch.arange(size),
        modalities=names,
        weight=weight,
    )


@settings(max_examples=20, deadline=None)
@given(fusion=st.sampled_from(ADDITIVE), num=st.integers(1, 4), bias=st.floats(-5, 5))
def test_parts_of_an_additive_fusion_add_up_to_the_fused_logits(fusion, num, bias):
    model = model_of(num, fusion)
    with torch.no_grad():
        for parameter in model.fusion.parameters():
            parameter.add_(bias)
    features = model.encode(batch_of(num))

    total = sum(model.unimodal(features).values())

    torch.testing.assert_close(total, model.fuse(features), atol=1e-4, rtol=1e-4)
    check_decomposition(model, features)


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("num", [1, 2, 3, 4])
@pytest.mark.parametrize("way", ["auto", "head", "ablate"])
def test_every_fusion_gives_logits_per_modality_for_any_number(fusion, num, way):
    model = model_of(num, fusion, way, heads=True)
    features = model.encode(batch_of(num))

    assert model.fuse(features).shape == (6, NUM_CLASSES)
    for trained in (False, True):
        unimodal = model.unimodal(features, trained=trained)
        assert list(unimodal) == list(NAMES[:num])
        assert all(z.shape == (6, NUM_CLASSES) for z in unimodal.values())
        assert all(z.requires_grad == trained for z in unimodal.values())


def test_a_split_that_does_not_add_up_is_found():
    model = model_of()
    features = model.encode(batch_of())
    model.fusion.split = lambda f: {m: model.fuse(f) for m in f}

    with pytest.raises(Bug, match="do not add up"):
        check_decomposition(model, features)


def test_ablation_replaces_the_other_modalities_by_their_means():
    model = model_of(3, "film")
    batch = batch_of(3)
    features = model.encode(batch)
    model.update_feature_means(*model.feature_sums(features, batch))

    alone = model.unimodal(features)["image"]

    means = {m: f.mean(0).expand_as(f) for m, f in features.items()}
    expected = model.fuse({**means, "image": features["image"]})
    torch.testing.assert_close(alone, expected)


def test_unimodal_gradients_reach_the_encoder_of_that_modality_alone():
    for way in ("decompose", "head", "ablate"):
        model = model_of(2, "concat", way, heads=True)
        features = model.encode(batch_of())
        model.unimodal(features, trained=True)["audio"].sum().backward()
        assert all(p.grad is not None for p in model.encoders["audio"].parameters())
        assert all(p.grad is None for p in model.encoders["image"].parameters())


def test_probes_leave_the_encoders_alone():
    model = model_of()
    features = model.encode(batch_of())

    torch.stack(list(model.probe(features).values())).sum().backward()

    assert all(p.grad is not None for p in model.probes.parameters())
    assert all(p.grad is None for p in model.encoders.parameters())


def test_probes_and_heads_do_not_change_the_other_initial_weights():
    plain = model_of(probes=False).state_dict()
    more = model_of(probes=True, heads=True).state_dict()

    assert len(plain) < len(more)
    assert all(torch.equal(value, more[name]) for name, value in plain.items())


def test_probes_do_not_change_what_is_drawn_after_the_model():
    model_of(probes=False)
    without = torch.rand(3)
    model_of(probes=True)

    assert torch.equal(torch.rand(3), without)


def test_training_heads_that_do_not_exist_is_a_bug():
    model = model_of(2, "film", "head")

    with pytest.raises(Bug, match="heads"):
        model.unimodal(model.encode(batch_of()), trained=True)


def test_a_sample_without_a_modality_gets_its_mean_feature():
    model = model_of()
    full = batch_of()
    features = model.encode(full)
    model.update_feature_means(*model.feature_sums(features, full))
    present = torch.ones(6, 2, dtype=torch.bool)
    present[2, 1] = False

    lacking = model.encode(batch_of(present=present))

    torch.testing.assert_close(lacking["image"][2], features["image"].mean(0))
    assert torch.equal(lacking["image"][3], features["image"][3])
    assert torch.equal(lacking["audio"], features["audio"])


def test_no_gradient_flows_through_the_token():
    model = model_of()
    present = torch.tensor([[True, False]]).expand(6, 2)

    features = model.encode(batch_of(present=present))
    model.fuse(features).sum().backward()

    assert not features["image"].any()
    assert all(not p.grad.any() for p in model.encoders["image"].parameters())


def test_a_modality_left_out_of_a_sub_step_is_not_encoded():
    model = model_of()
    batch = batch_of().only(("audio",))

    features = model.encode(batch)
    model.fuse(features).sum().backward()

    assert features["image"].shape == (6, model.feature_dims["image"])
    assert all(p.grad is None for p in model.encoders["image"].parameters())


def test_feature_sums_leave_out_absent_and_padding_samples():
    model = model_of()
    present = torch.ones(6, 2, dtype=torch.bool)
    present[0, 0] = False
    weight = torch.tensor([1.0, 1, 1, 1, 1, 0])
    batch = batch_of(present=present, weight=weight)
    features = model.encode(batch)

    sums, counts = model.feature_sums(features, batch)

    assert counts.tolist() == [4, 5]
    torch.testing.assert_close(sums["audio"], features["audio"][1:5].sum(0))
    torch.testing.assert_close(sums["image"], features["image"][:5].sum(0))
    assert not sums["audio"].requires_grad


def test_the_first_mean_is_copied_and_later_ones_move_towards_the_step():
    model = model_of()
    sums = {"audio": torch.full((3,), 8.0), "image": torch.full((4,), float("nan"))}
    counts = torch.tensor([4.0, 0.0])

    model.update_feature_means(sums, counts)
    assert model.mean_feature("audio").tolist() == [2.0] * 3
    model.update_feature_means({**sums, "audio": torch.full((3,), 16.0)}, counts)

    torch.testing.assert_close(model.mean_feature("audio"), torch.full((3,), 2.2))
    assert model.mean_feature("image").tolist() == [0.0] * 4  # never seen


def test_the_model_survives_a_save_and_a_load():
    model, other = model_of(), model_of()
    batch = batch_of()
    model.update_feature_means(*model.feature_sums(model.encode(batch), batch))

    other.load_state_dict(model.state_dict())

    assert torch.equal(other.mean_feature("audio"), model.mean_feature("audio"))
    assert model.mean_feature("audio").any()


def test_bfloat16_features_are_accepted():
    model = model_of()
    batch = batch_of()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        features = model.encode(batch)
        logits = model.fuse(features)
    sums, _ = model.feature_sums(features, batch)

    assert logits.dtype == torch.bfloat16
    assert sums["audio"].dtype == torch.float32
    assert all(z.dtype == torch.float32 for z in model.probe(features).values())
