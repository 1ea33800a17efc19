import pytest
import torch

from mmtool import registry
from mmtool.config.schema import ModelConfig
from mmtool.errors import RecipeError, RequestError
from mmtool.models.build import build_model
from mmtool.types import InputSpec

SPECS = {"audio": InputSpec("spectrogram", (1, 4, 4)), "image": InputSpec("frames", (3, 8, 8))}
MLPS = {"audio": "mlp", "image": "mlp"}


def build(*, inputs=None, heads=False, probes=True, relative_to=None, **section):
    config = ModelConfig.model_validate({"encoders": MLPS, **section})
    return build_model(
        config, inputs or SPECS, 3, heads=heads, probes=probes, relative_to=relative_to
    )


def test_auto_decomposes_additive_fusions_and_ablates_the_others():
    ways = {f: build(fusion=f).way for f in ("concat", "sum", "film", "gated")}

    assert ways == {"concat": "decompose", "sum": "decompose", "film": "ablate", "gated": "ablate"}


def test_decomposing_a_fusion_that_is_no_sum_is_refused():
    with pytest.raises(RequestError, match="film") as caught:
        build(fusion="film", unimodal="decompose")
    assert caught.value.fix == "-s model.unimodal=ablate"


def test_heads_without_any_classifier_are_refused():
    with pytest.raises(RequestError, match="classifier per modality"):
        build(unimodal="head", probes=False)


def test_an_encoder_that_cannot_read_the_input_names_those_that_can():
    with pytest.raises(RequestError, match="'tokens' cannot read 'image'") as caught:
        build(encoders={"audio": "mlp", "image": "tokens"})
    assert "resnet18" in caught.value.why
    assert caught.value.fix.startswith("-s model.encoders.image=")


def test_a_modality_without_an_encoder_is_refused_and_a_typo_is_pointed_out():
    with pytest.raises(RequestError, match="no encoder for modality 'image'") as caught:
        build(encoders={"audio": "mlp", "imagee": "mlp"})
    assert caught.value.fix == "rename model.encoders.imagee to model.encoders.image"


@pytest.mark.parametrize("name", ["clear", "training", "fusion", "front.camera"])
def test_a_modality_whose_name_torch_or_the_engine_uses_is_refused(name):
    with pytest.raises(RequestError, match=f"cannot be called '{name}'") as caught:
        build(inputs={name: SPECS["image"]}, encoders={name: "mlp"})
    assert "another name" in caught.value.fix


def test_encoders_of_modalities_that_are_not_used_are_left_out():
    model = build(inputs={"audio": SPECS["audio"]})

    assert model.modalities == ("audio",)
    assert list(model.encoders) == ["audio"]


def test_a_wrong_option_of_a_plugin_is_refused():
    with pytest.raises(RecipeError, match="mlp"):
        build(encoders={"audio": {"name": "mlp", "hiden": [3]}, "image": "mlp"})


@pytest.mark.parametrize("fusion", ["film", "gated"])
def test_a_fusion_told_of_an_unknown_modality_refuses(fusion):
    with pytest.raises(RequestError, match="no modality 'imag'") as caught:
        build(fusion={"name": fusion, "modality": "imag"})
    assert caught.value.fix == "did you mean 'image'?"


def test_an_encoder_from_a_file_beside_the_recipe_is_used(tmp_path):
    (tmp_path / "mean.py").write_text(
        '"""Mean of an input."""\n'
        "from torch import nn\n"
        "class Encoder(nn.Module):\n"
        '    accepts = frozenset({"spectrogram"})\n'
        "    def __init__(self, options, spec):\n"
        "        super().__init__()\n"
        "        self.out_dim = 1\n"
        "    def forward(self, x, lengths=None):\n"
        "        return x.flatten(1).mean(1, keepdim=True)\n"
    )

    model = build(encoders={"audio": "./mean.py", "image": "mlp"}, relative_to=tmp_path)

    assert model.feature_dims["audio"] == 1


def test_the_same_seed_gives_the_same_model():
    torch.manual_seed(3)
    first = build().state_dict()
    torch.manual_seed(3)
    second = build().state_dict()

    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("kind", ["encoders", "fusion", "methods"])
def test_every_plugin_has_options_that_default_and_a_page(kind):
    names = registry.names(kind)
    assert len(names) >= 4
    for name in names:
        module = registry.load(kind, name)
        module.Options()
        assert len(registry.docstring(registry.get(kind, name)).splitlines()) >= 3
        assert registry.summary(registry.get(kind, name)).endswith(".")
