"""The model every recipe trains: encoders, a fusion, and logits per modality.

A modality that a sample lacks is replaced by a token, the running mean of that modality's features.
The token is a buffer and receives no gradient; before the first training step it is zero.
"""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from mmtool.errors import Bug
from mmtool.models.exchange import Exchanging, encode_together, squeeze_sums
from mmtool.models.linear import linear
from mmtool.types import Batch, Modality, UnimodalWay, sorted_modalities

_MEAN_MOMENTUM = 0.1


class _Splits(Protocol):
    """A fusion whose logits are a sum over modalities."""

    def split(self, features: Mapping[Modality, Tensor]) -> dict[Modality, Tensor]: ...


class MultimodalModel(nn.Module):
    """Encoders and a fusion, with one provider of logits per modality."""

    def __init__(
        self,
        encoders: Mapping[Modality, nn.Module],
        fusion: nn.Module,
        *,
        feature_dims: Mapping[Modality, int],
        num_classes: int,
        fusion_name: str,
        way: UnimodalWay,
    ) -> None:
        super().__init__()
        self.modalities = sorted_modalities(encoders)
        self.num_classes = num_classes
        self.fusion_name = fusion_name
        self.way: UnimodalWay = way
        self.feature_dims: dict[Modality, int] = {m: feature_dims[m] for m in self.modalities}
        self.encoders = nn.ModuleDict({m: encoders[m] for m in self.modalities})
        self.fusion = fusion
        self.is_exchanging = isinstance(fusion, Exchanging)
        self._squeezed: dict[str, Tensor] = {}
        self.heads = nn.ModuleDict()
        self.probes = nn.ModuleDict()
        self.extra = nn.ModuleDict()  # of the method, keyed by parameter group
        self.feature_mean = nn.Module()
        for modality, dim in self.feature_dims.items():
            self.feature_mean.register_buffer(modality, torch.zeros(dim))
        self.feature_count: Tensor
        self.register_buffer("feature_count", torch.zeros(len(self.modalities)))

    def add_heads(self) -> None:
        """Add an auxiliary classifier per modality that trains its encoder."""
        self.heads = self._classifiers()

    def add_probes(self) -> None:
        """Add a linear classifier per modality that only watches its encoder."""
        self.probes = self._classifiers()

    def _classifiers(self) -> nn.ModuleDict:
        # Forked, so that a run with them starts from the same other weights as one without.
        with torch.random.fork_rng(devices=[]):
            return nn.ModuleDict(
                {m: linear(dim, self.num_classes) for m, dim in self.feature_dims.items()}
            )

    def set_training(self, *, frozen: Sequence[Modality] = ()) -> None:
        """Switch to training, except for encoders that are to run as in evaluation."""
        self.train()
        for modality in frozen:
            self.encoders[modality].eval()

    def mean_feature(self, modality: Modality) -> Tensor:
        """Give the running mean of a modality's features over samples that have it; [dim]."""
        return self.feature_mean.get_buffer(modality)

    def encode(self, batch: Batch, hears: Tensor | None = None) -> dict[Modality, Tensor]:
        """Give the pooled features of a batch; what a sample lacks is the modality's token.

        `hears` says which encoders hear the others, [modality] bool on the device, None for all;
        it means something for fusions that exchange between encoders.
        """
        if not self.is_exchanging:
            return {m: self.encode_one(m, batch) for m in self.modalities}
        exchange = cast(Exchanging, self.fusion)
        encoded, squeezed = encode_together(dict(self.encoders.items()), exchange, batch, hears)
        self._squeezed = squeezed if self.training else {}
        return {m: self._or_token(m, encoded.get(m), batch) for m in self.modalities}

    def encode_one(self, modality: Modality, batch: Batch) -> Tensor:
        """Give the pooled features of one modality; [batch, dim]."""
        if modality not in batch.inputs:
            return self._or_token(modality, None, batch)
        encoded = self.encoders[modality](batch.inputs[modality], batch.lengths.get(modality))
        return self._or_token(modality, encoded, batch)

    def _or_token(self, modality: Modality, encoded: Tensor | None, batch: Batch) -> Tensor:
        token, position = self.mean_feature(modality), self.modalities.index(modality)
        if encoded is None:
            return token.expand(batch.size, -1).clone()
        has = batch.present[:, position].unsqueeze(1)  # [batch, 1]
        return torch.where(has, encoded, token.to(encoded.dtype))

    def blank_feature(self, modality: Modality, batch: Batch) -> Tensor:
        """Give the feature of an all-zero input, computed as in evaluation; [1 or batch, dim].

        One such input per batch is enough, since without batch statistics samples do not see each
        other; but of a ragged modality it depends on the length of each sample.
        """
        if modality not in batch.inputs:
            return self.mean_feature(modality)[None]
        encoder, lengths = self.encoders[modality], batch.lengths.get(modality)
        training = [module for module in encoder.modules() if module.training]
        encoder.eval()
        try:
            inputs = batch.inputs[modality]
            blank = torch.zeros_like(inputs[:1] if lengths is None else inputs)
            return cast(Tensor, encoder(blank, lengths))
        finally:
            for module in training:
                module.training = True

    def fuse(self, features: Mapping[Modality, Tensor]) -> Tensor:
        """Give the fused logits; [batch, class]."""
        return self.fusion(features)

    def unimodal(
        self, features: Mapping[Modality, Tensor], *, trained: bool = False
    ) -> dict[Modality, Tensor]:
        """Give logits per modality; unless `trained`, no gradient comes back through them."""
        with nullcontext() if trained else torch.no_grad():
            if self.way == "decompose":
                return cast(_Splits, self.fusion).split(features)
            if self.way == "ablate":
                return {m: self.fusion(self._alone(m, features)) for m in self.modalities}
            return self._from_classifiers(features, trained)

    def _alone(
        self, modality: Modality, features: Mapping[Modality, Tensor]
    ) -> dict[Modality, Tensor]:
        return {
            m: f if m == modality else self.mean_feature(m).to(f.dtype).expand_as(f)
            for m, f in features.items()
        }

    def _from_classifiers(
        self, features: Mapping[Modality, Tensor], trained: bool
    ) -> dict[Modality, Tensor]:
        if trained and not self.heads:
            raise Bug("heads were to be trained but the model has none", fix="call add_heads()")
        if not self.heads:
            return self.probe(features)
        return {m: self.heads[m](features[m]) for m in self.modalities}

    def probe(self, features: Mapping[Modality, Tensor]) -> dict[Modality, Tensor]:
        """Give the probes' logits on detached features; empty when the model has no probes."""
        if not self.probes:
            return {}
        return {m: self.probes[m](features[m].detach().float()) for m in self.modalities}

    @torch.no_grad()
    def feature_sums(
        self, features: Mapping[Modality, Tensor], batch: Batch
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Give feature sums [dim] by modality and counts [modality], over samples that have it.

        With a fusion that exchanges, squeezes of the last training batch as `modality@all` too.
        """
        counted = batch.present  # [batch, modality]
        if batch.weight is not None:
            counted = counted & (batch.weight != 0).unsqueeze(1)
        sums = {
            m: torch.where(counted[:, position, None], features[m].float(), 0.0).sum(0)
            for position, m in enumerate(self.modalities)
        }
        sums |= squeeze_sums(self._squeezed, counted, batch)
        return sums, counted.sum(0, dtype=torch.float32)

    @torch.no_grad()
    def update_feature_means(self, sums: Mapping[Modality, Tensor], counts: Tensor) -> None:
        """Move the running means towards those of a step, given sums over all ranks.

        A modality with count zero keeps its mean; the first step with samples sets it.
        """
        for position, modality in enumerate(self.modalities):
            mean, count = self.mean_feature(modality), counts[position]
            of_step = sums[modality] / count.clamp_min(1.0)
            is_first = self.feature_count[position] == 0
            moved = torch.where(is_first, of_step, mean.lerp(of_step, _MEAN_MOMENTUM))
            mean.copy_(torch.where(count > 0, moved, mean))
        self.feature_count.add_(counts)
        if self.is_exchanging:
            cast(Exchanging, self.fusion).update_averages(sums, counts)
