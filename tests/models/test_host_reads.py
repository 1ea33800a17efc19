"""The model reads nothing back to the host: meta tensors have no values to read."""

import pytest
import torch

from mmtool.config.schema import ModelConfig
from mmtool.models.build import build_model
from mmtool.types import Batch, InputSpec

META = torch.device("meta")
SPECS = {
    "audio": InputSpec("spectrogram", (1, 33, 40)),
    "image": InputSpec("frames", (2, 3, 32, 32)),
    "motion": InputSpec("series", (3,), ragged=True),
    "text": InputSpec("tokens", (), ragged=True),
}
ENCODERS = {"audio": "mlp", "image": "resnet18", "motion": "series", "text": "tokens"}


@pytest.mark.parametrize("fusion", ["concat", "sum", "film", "gated"])
def test_no_part_of_a_step_reads_a_device_value(fusion):
    config = ModelConfig.model_validate({"encoders": ENCODERS, "fusion": fusion})
    model = build_model(config, SPECS, 3, heads=True).to(META)
    inputs = {
        "audio": torch.zeros(4, 1, 33, 40, device=META),
        "image": torch.zeros(4, 2, 3, 32, 32, device=META),
        "motion": torch.zeros(4, 9, 3, device=META),
        "text": torch.zeros(4, 7, dtype=torch.int32, device=META),
    }
    lengths = torch.zeros(4, dtype=torch.int64, device=META)
    batch = Batch(
        inputs=inputs,
        lengths={"motion": lengths, "text": lengths},
        present=torch.zeros(4, 4, dtype=torch.bool, device=META),
        label=lengths,
        index=lengths,
        modalities=tuple(SPECS),
        weight=torch.zeros(4, device=META),
    )

    features = model.encode(batch)
    logits = model.fuse(features)
    unimodal = model.unimodal(features, trained=True)
    torch.stack([logits, *unimodal.values(), *model.probe(features).values()]).sum().backward()
    model.update_feature_means(*model.feature_sums(features, batch))

    assert logits.shape == (4, 3)
    assert all(p.grad is not None for p in model.encoders.parameters())
