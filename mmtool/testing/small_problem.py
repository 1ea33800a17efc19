"""A small classification problem of two modalities, and a model as somebody else writes one."""

import torch
from torch import Tensor, nn

CLASSES = 4


class TwoEncoders(nn.Module):
    """Two encoders and a head that is given their outputs side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.enc = nn.ModuleDict(
            {m: nn.Sequential(nn.Linear(12, 16), nn.ReLU()) for m in ("audio", "video")}
        )
        self.head = nn.Linear(32, CLASSES)

    def forward(self, audio: Tensor, video: Tensor) -> Tensor:
        """Give the logits of the classes."""
        logits: Tensor = self.head(
            torch.cat([self.enc["audio"](audio), self.enc["video"](video)], dim=1)
        )
        return logits


def small_problem(
    num_samples: int, *, strength: tuple[float, float] = (3.0, 3.0), seed: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """Give audio, video and labels: class means of these strengths in noise."""
    prototypes = torch.randn(2, CLASSES, 12, generator=torch.Generator().manual_seed(1))
    prototypes = nn.functional.normalize(prototypes, dim=-1)
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, CLASSES, (num_samples,), generator=generator)
    made = [
        s * p[labels] + torch.randn(num_samples, 12, generator=generator)
        for s, p in zip(strength, prototypes, strict=True)
    ]
    return made[0], made[1], labels
