"""The head that all modalities share."""

import pytest
import torch

from mmtool.errors import RequestError
from mmtool.models.fusion import shared

NAMES = ("audio", "image", "motion")


def test_the_shared_head_averages_what_it_says_of_each_modality():
    torch.manual_seed(0)
    fusion = shared.Fusion(shared.Options(), dict.fromkeys(NAMES, 2), 4)
    features = {m: torch.randn(5, 2) for m in NAMES}
    whole = {m: fusion.classifier(f) for m, f in features.items()}

    torch.testing.assert_close(fusion(features), sum(whole.values()) / 3)
    torch.testing.assert_close(fusion.split(features)["image"], whole["image"] / 3)
    assert len(list(fusion.parameters())) == 2


def test_features_of_different_widths_are_refused():
    with pytest.raises(RequestError, match="shared") as caught:
        shared.Fusion(shared.Options(), {"audio": 2, "image": 3}, 4)
    assert "image: 3" in str(caught.value.why)
