"""Let convolutional encoders gate each other's channels between stages, then average their logits.

    s_m = mean of m's feature maps over space and time         the squeeze, [channel]
    h   = relu(A [s_1; ...; s_M] + a)                          one joint layer per depth
    maps of m <- 2 sigmoid(B_m h + b_m) * maps of m            the gates of m
    z   = 1/M sum_m (W_m f_m + c_m)                            f_m: mean of the last gated maps

Joze, Shaban, Iuzzolino and Koishida, "MMTM: multimodal transfer module for CNN fusion", CVPR 2020,
for any number of modalities; averaged logits as in Wu et al., "Characterizing and overcoming the
greedy nature of learning in multi-modal deep neural networks", ICML 2022, whose code leaves out the
factor 2. A modality that is not to hear the others, or whose partner a sample lacks, takes the
running average of the partner's squeeze over all training steps, which is what the numbers of a
modality alone are measured with. Logits per modality are its part of z.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from mmtool.config import schema
from mmtool.errors import RequestError
from mmtool.models.linear import linear
from mmtool.types import Modality, sorted_modalities


class Options(schema.Options):
    """Where encoders hear each other, and how finely."""

    depths: schema.Count = 3
    """Number of stages after which they exchange, the last ones of each encoder."""
    ratio: schema.Count = 4
    """Numbers in the squeezes of a depth for each unit of its joint layer."""


class Fusion(nn.Module):
    """Gates between stages and a mean of linear classifiers."""

    additive: ClassVar[bool] = True

    def __init__(self, options: Options, dims: Mapping[Modality, int], num_classes: int) -> None:
        super().__init__()
        self.modalities = sorted_modalities(dims)
        self.num_depths = options.depths
        self._ratio = options.ratio
        self.classifiers = nn.ModuleDict({m: linear(dims[m], num_classes) for m in self.modalities})
        self.squeezes = nn.ModuleList()
        self.excites = nn.ModuleList()
        self.averages = nn.Module()
        """Running average of each modality's squeezes, all depths in one tensor."""
        self._widths: dict[Modality, list[int]] = {}
        self.num_steps: Tensor
        self.register_buffer("num_steps", torch.zeros(len(self.modalities)))

    def connect(self, dims: Mapping[Modality, Sequence[int]]) -> None:
        """Build the gates for encoders with these channels after each of their stages."""
        fewest = min(dims, key=lambda m: len(dims[m]))
        if self.num_depths > len(dims[fewest]):
            raise RequestError(
                f"fusion mmtm cannot exchange at {self.num_depths} depths",
                where="model.fusion.depths",
                why=f"the encoder of {fewest!r} has {len(dims[fewest])} stages",
                fix=f"-s model.fusion.depths={len(dims[fewest])}",
            )
        for depth in range(self.num_depths):
            channels = {m: dims[m][len(dims[m]) - self.num_depths + depth] for m in self.modalities}
            total = sum(channels.values())
            width = max(1, total // self._ratio)
            self.squeezes.append(nn.Linear(total, width))
            self.excites.append(
                nn.ModuleDict({m: nn.Linear(width, c) for m, c in channels.items()})
            )
            for modality, count in channels.items():
                self._widths.setdefault(modality, []).append(count)
        for modality, widths in self._widths.items():
            self.averages.register_buffer(modality, torch.zeros(sum(widths)))

    def gates(
        self, depth: int, squeezed: Mapping[Modality, Tensor], heard: Mapping[Modality, Tensor]
    ) -> dict[Modality, Tensor]:
        """Give factors [batch, channel]; each encoder hears its own squeeze and what it may."""
        found = {}
        excites: nn.Module = self.excites[depth]
        for modality, own in squeezed.items():
            parts = [
                own
                if m == modality
                else self._told(m, depth, squeezed.get(m), own, heard[modality])
                for m in self.modalities
            ]
            joint = torch.relu(self.squeezes[depth](torch.cat(parts, 1)))
            excite: nn.Module = excites.get_submodule(modality)
            found[modality] = 2 * torch.sigmoid(excite(joint))
        return found

    def average(self, modality: Modality, depth: int) -> Tensor:
        """Give the running average of a modality's squeeze at one depth; [channel]."""
        return self.averages.get_buffer(modality).split(self._widths[modality])[depth]

    def _told(
        self, modality: Modality, depth: int, live: Tensor | None, like: Tensor, heard: Tensor
    ) -> Tensor:
        """Give what others are told of a modality: its squeeze, or the average of it."""
        average = self.average(modality, depth).to(like.dtype)
        if live is None:
            return average.expand(like.shape[0], -1)
        position = self.modalities.index(modality)
        return torch.where(heard[:, position, None], live, average)

    @torch.no_grad()
    def update_averages(self, sums: Mapping[str, Tensor], counts: Tensor) -> None:
        """Add a step to the means over all steps; a modality with count zero keeps its own."""
        has = counts > 0
        self.num_steps.add_(has)
        shares = 1.0 / self.num_steps.clamp_min(1.0)
        for position, modality in enumerate(self.modalities):
            name = f"{modality}@all"
            if name not in sums:  # the modality was left out of the step
                continue
            average = self.averages.get_buffer(modality)
            of_step = sums[name] / counts[position].clamp_min(1.0)
            moved = average.lerp(of_step, shares[position])
            average.copy_(torch.where(has[position], moved, average))

    def exchange_parameters(self, modality: Modality) -> list[tuple[str, nn.Parameter]]:
        """Give a modality's gates, and the joint layers that all share."""
        return [
            (name, parameter)
            for name, parameter in self.named_parameters()
            if name.startswith("squeezes.")
            or (name.startswith("excites.") and name.split(".")[2] == modality)
        ]

    def forward(self, features: Mapping[Modality, Tensor]) -> Tensor:
        """Give the fused logits; [batch, class]."""
        return torch.stack(list(self.split(features).values())).sum(0)

    def split(self, features: Mapping[Modality, Tensor]) -> dict[Modality, Tensor]:
        """Give logits per modality that add up to the fused ones; [batch, class] each."""
        count = len(self.modalities)
        return {m: self.classifiers[m](features[m]) / count for m in self.modalities}
