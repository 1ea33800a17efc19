"""Fusions against their formulas, written out for two and three modalities."""

import pytest
import torch

from mmtool import registry

DIMS = {"audio": 3, "image": 4, "motion": 2}
NUM_CLASSES = 5


def fusion_of(name, modalities=tuple(DIMS), **options):
    module = registry.load("fusion", name)
    torch.manual_seed(0)
    dims = {m: DIMS[m] for m in modalities}
    return module.Fusion(module.Options(**options), dims, NUM_CLASSES)


def features_of(modalities=tuple(DIMS)):
    torch.manual_seed(1)
    return {m: torch.randn(6, DIMS[m]) for m in modalities}


def test_concat_gives_each_modality_its_columns_and_an_equal_share_of_the_bias():
    fusion, f = fusion_of("concat"), features_of()
    weight, bias = fusion.classifier.weight, fusion.classifier.bias
    with torch.no_grad():
        bias.copy_(torch.arange(5.0))

    parts = fusion.split(f)

    torch.testing.assert_close(parts["image"], f["image"] @ weight[:, 3:7].T + bias / 3)


def test_sum_keeps_the_whole_bias_of_each_modality():
    fusion, f = fusion_of("sum"), features_of()
    with torch.no_grad():
        fusion.classifiers["audio"].bias.fill_(2.0)
    layer = fusion.classifiers["audio"]

    torch.testing.assert_close(fusion.split(f)["audio"], f["audio"] @ layer.weight.T + 2.0)


@pytest.mark.parametrize("modalities", [("audio", "image"), tuple(DIMS)])
def test_film_scales_and_shifts_the_chosen_modality_by_the_others(modalities):
    fusion = fusion_of("film", modalities, modality="image")
    f = features_of(modalities)
    others = torch.cat([f[m] for m in modalities if m != "image"], 1)
    gamma, beta = fusion.condition(others).split([4, 4], 1)

    torch.testing.assert_close(fusion(f), fusion.classifier(gamma * f["image"] + beta))


@pytest.mark.parametrize("modalities", [("audio", "image"), tuple(DIMS)])
def test_gated_lets_the_chosen_modality_gate_the_sum_of_the_others(modalities):
    fusion = fusion_of("gated", modalities, modality="audio", dim=7)
    f = features_of(modalities)
    gate = torch.sigmoid(fusion.hidden["audio"](f["audio"]))
    others = sum(fusion.hidden[m](f[m]) for m in modalities if m != "audio")

    torch.testing.assert_close(fusion(f), fusion.classifier(gate * others))


@pytest.mark.parametrize("name", ["concat", "sum", "film", "gated"])
def test_every_feature_matters_and_every_parameter_learns(name):
    fusion = fusion_of(name)
    f = {m: x.requires_grad_() for m, x in features_of().items()}

    fusion(f).square().sum().backward()

    assert all(x.grad.abs().sum() > 0 for x in f.values())
    assert all(p.grad.abs().sum() > 0 for p in fusion.parameters())


@pytest.mark.parametrize("name", ["concat", "sum", "film", "gated"])
def test_linear_layers_start_with_zero_bias_and_xavier_weights(name):
    fusion = fusion_of(name)
    for layer in fusion.modules():
        if isinstance(layer, torch.nn.Linear):
            assert not layer.bias.any()
            expected = (2 / (layer.in_features + layer.out_features)) ** 0.5
            assert 0.5 * expected < layer.weight.std() < 1.6 * expected


@pytest.mark.parametrize("name", ["concat", "sum", "film", "gated"])
def test_the_order_in_which_features_arrive_does_not_matter(name):
    fusion, f = fusion_of(name), features_of()
    backwards = dict(reversed(f.items()))

    assert torch.equal(fusion(f), fusion(backwards))
