"""Encoders that hear each other between their stages, for fusions that exchange there.

A fusion that has `connect` and `gates` is such a one. Every encoder runs stage by stage; after each
of the last `num_depths` stages its feature maps are squeezed to one number per channel, and the
fusion answers the squeezes of all modalities with a gate per channel for each encoder. The feature
is the mean of the last gated maps. Encoders that have no stages are refused.

What a sample, or a whole batch, does not tell, because it lacks the modality or an encoder is not
to hear the others, is replaced by the running average of that squeeze over training.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn

from mmtool.errors import RequestError
from mmtool.types import Batch, Modality


@runtime_checkable
class Staged(Protocol):
    """An encoder that can be run stage by stage."""

    stage_dims: tuple[int, ...]
    """Channels after each stage."""
    folds_frames: ClassVar[bool]
    """Whether its stages take the frames of a clip as samples of their own."""

    def stages(self) -> Sequence[nn.Module]:
        """Give the stages in order; each gives [n, channel] or [n, channel, height, width]."""


@runtime_checkable
class Exchanging(Protocol):
    """A fusion that lets encoders hear each other."""

    num_depths: int

    def connect(self, dims: Mapping[Modality, Sequence[int]]) -> None:
        """Build the layers for encoders with these channels after each of their stages."""

    def gates(
        self, depth: int, squeezed: Mapping[Modality, Tensor], heard: Mapping[Modality, Tensor]
    ) -> dict[Modality, Tensor]:
        """Give factors [batch, channel] for each encoder that has a squeeze.

        `heard[m]` says of whom m hears a sample's own squeeze; [batch, modality] bool.
        """

    def update_averages(self, sums: Mapping[str, Tensor], counts: Tensor) -> None:
        """Move the running averages, given sums of squeezes (`modality@all`) and counts."""

    def exchange_parameters(self, modality: Modality) -> list[tuple[str, nn.Parameter]]:
        """Give the parameters through which an encoder hears the others."""


def connect(fusion: nn.Module, fusion_name: str, encoders: Mapping[Modality, nn.Module]) -> None:
    """Build what an exchanging fusion needs between these encoders; others are left alone."""
    if not isinstance(fusion, Exchanging):
        return
    for modality, encoder in encoders.items():
        if not isinstance(encoder, Staged):
            raise RequestError(
                f"fusion {fusion_name!r} exchanges between the stages of encoders, "
                f"and that of {modality!r} has none",
                where=f"model.encoders.{modality}",
                why="only encoders that declare their stages can hear others, such as cnn",
                fix=f"-s model.encoders.{modality}=cnn, or -s model.fusion=concat",
            )
    fusion.connect({m: cast(Staged, encoder).stage_dims for m, encoder in encoders.items()})


def encode_together(
    encoders: Mapping[Modality, nn.Module],
    fusion: Exchanging,
    batch: Batch,
    hears: Tensor | None,
) -> tuple[dict[Modality, Tensor], dict[str, Tensor]]:
    """Give features [batch, dim] by modality, and its squeezes of all depths as `modality@all`.

    `hears` says which encoders hear the others, [modality] bool on the device; None for all.
    """
    staged = {m: cast(Staged, encoders[m]) for m in batch.inputs}
    stages = {m: list(encoder.stages()) for m, encoder in staged.items()}
    maps = {m: _folded(x) if staged[m].folds_frames else x for m, x in batch.inputs.items()}
    heard = _heard(batch, hears)
    kept: dict[str, list[Tensor]] = {f"{m}@all": [] for m in stages}
    for m, own in stages.items():
        for stage in own[: len(own) - fusion.num_depths]:
            maps[m] = stage(maps[m])
    for depth in range(fusion.num_depths):
        for m, own in stages.items():
            maps[m] = own[len(own) - fusion.num_depths + depth](maps[m])
        squeezed = {m: _squeezed(x, batch.size) for m, x in maps.items()}
        for m, value in squeezed.items():
            kept[f"{m}@all"].append(value.detach())
        for m, gate in fusion.gates(depth, squeezed, heard).items():
            maps[m] = _gated(maps[m], gate.to(maps[m].dtype))
    features = {m: _squeezed(x, batch.size) for m, x in maps.items()}
    return features, {name: torch.cat(each, 1) for name, each in kept.items()}


def _heard(batch: Batch, hears: Tensor | None) -> dict[Modality, Tensor]:
    """Give of whom each modality hears a sample's own squeeze; [batch, modality] bool."""
    if hears is None:
        return dict.fromkeys(batch.inputs, batch.present)
    return {m: batch.present & hears[batch.modalities.index(m)] for m in batch.inputs}


def _folded(x: Tensor) -> Tensor:
    return x.flatten(0, 1) if x.dim() == 5 else x


def _gated(maps: Tensor, gate: Tensor) -> Tensor:
    frames = maps.shape[0] // gate.shape[0]
    repeated = gate.repeat_interleave(frames, 0) if frames > 1 else gate
    return maps * (repeated if maps.dim() == 2 else repeated[:, :, None, None])


def _squeezed(maps: Tensor, size: int) -> Tensor:
    """Give the mean of each sample's feature maps, over its frames too; [batch, channel]."""
    if maps.dim() == 2:
        return maps
    if maps.shape[0] == size:
        return maps.mean((2, 3))
    return maps.unflatten(0, (size, -1)).mean((1, 3, 4))


@torch.no_grad()
def squeeze_sums(
    squeezed: Mapping[str, Tensor], counted: Tensor, batch: Batch
) -> dict[str, Tensor]:
    """Give sums of squeezes over the samples that have the modality; [channel] each."""
    sums = {}
    for name, value in squeezed.items():
        position = batch.modalities.index(name.rpartition("@")[0])
        sums[name] = torch.where(counted[:, position, None], value.float(), 0.0).sum(0)
    return sums
