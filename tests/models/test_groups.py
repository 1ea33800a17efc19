import pytest
from torch import nn

from mmtool.config.schema import ModelConfig
from mmtool.models.build import build_model
from mmtool.models.groups import parameter_groups
from mmtool.types import InputSpec


def model_of(fusion="concat", *, heads=False, probes=True):
    config = ModelConfig.model_validate(
        {"encoders": {"image": "mlp", "audio": "mlp"}, "fusion": fusion}
    )
    spec = InputSpec("spectrogram", (1, 2, 2))
    return build_model(config, {"image": spec, "audio": spec}, 3, heads=heads, probes=probes)


@pytest.mark.parametrize("fusion", ["concat", "sum", "film", "gated"])
@pytest.mark.parametrize("heads", [False, True])
@pytest.mark.parametrize("probes", [False, True])
def test_every_parameter_is_in_exactly_one_group(fusion, heads, probes):
    model = model_of(fusion, heads=heads, probes=probes)
    model.extra = nn.ModuleDict({"audio": nn.Linear(2, 2), "fusion": nn.Linear(2, 2)})

    listed = [pair for members in parameter_groups(model).values() for pair in members]

    assert {name: id(p) for name, p in listed} == {n: id(p) for n, p in model.named_parameters()}
    assert len(listed) == len(list(model.parameters()))


def test_groups_are_modalities_sorted_then_fusion_then_probes():
    assert list(parameter_groups(model_of())) == ["audio", "image", "fusion", "probes"]
    assert list(parameter_groups(model_of(probes=False))) == ["audio", "image", "fusion"]


def test_a_modality_owns_its_encoder_its_head_and_what_a_method_added():
    model = model_of(heads=True)
    model.extra = nn.ModuleDict({"audio": nn.Linear(2, 2)})

    names = {name.rpartition(".")[0] for name, _ in parameter_groups(model)["audio"]}

    assert {"heads.audio", "extra.audio"} < names
    assert all(name.split(".")[1] == "audio" for name in names)
