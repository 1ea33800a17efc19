"""Set encoders back towards their first weights, the more they overfit (diagnosing, re-learning).

Wei, Li, Feng and Hu, "Diagnosing and re-learning for balanced multimodal learning", ECCV 2024.

    purity  = share of samples whose class is the most frequent one of their k-means cluster
    P_m     = |purity of modality m on the training split - on the held-out split|
    w_m     = tanh(lam P_m)
    theta_m <- w_m theta_m at the start + (1 - w_m) theta_m        for all weights of encoder m

After every `every` epochs, `times` times at most and never after the last epoch, which would leave
nothing to learn again in. As many clusters as classes, on features whose columns are scaled to
[-1, 1], for each split and modality by itself. A modality that is ahead fits the training split
better than it generalises and is set back; one that learnt little has no gap and goes on. The best
weights of the run are kept before encoders are set back.

    paper               | released code                | here
    a held-out split    | part of the training split   | the protocol's validation split; refused
                        |                              |   without one
    k-means             | scikit-learn, one seed       | k-means++ and Lloyd in torch, `starts`
                        |                              |   tries, the same on every rank
    augmented training  | a misspelt split name leaves | the recipe decides
                        |   augmentation out           |
    weights             | parameters; not the running  | as in the released code
                        |   statistics of batch norm   |
    not said            | momentum is kept             | momentum = "keep" (default) or "forget"
    every modality      | as in the paper              | purity over the samples that have it

A small held-out split has a higher purity by chance alone (few rows per cluster): with fewer than
some 30 rows per class the gap says little.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from mmtool.config import schema
from mmtool.methods._base import BalancingMethod, EpochContext, ModelFacts, StepContext
from mmtool.methods._clusters import k_means, purity, scaled
from mmtool.types import GradGroups, GroupName, Modality, Needs

STAGE = "parameters"
COST = "a pass over both splits and k-means every `every` epochs"


class Options(schema.Options):
    """When and how far encoders are set back."""

    lam: schema.Positive = 3.0
    """How far: the larger, the closer to the first weights for the same gap."""
    every: schema.Count = 20
    """Epochs between two diagnoses."""
    times: schema.Count = 3
    """Diagnoses in a run, at most."""
    starts: schema.Count = 1
    """Starts of k-means, of which the best is taken."""
    share: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Share of the training split that is clustered, for large ones."""
    momentum: Literal["keep", "forget"] = "keep"
    """Whether the optimiser keeps its state for encoders that were set back."""


class Method(BalancingMethod):
    """Diagnosing and re-learning."""

    needs: ClassVar[Needs] = Needs(
        epoch_statistics=frozenset({"features"}),
        snapshots=frozenset({"initial"}),
        held_out=True,
        tasks=frozenset({"single_label"}),
    )
    options: Options

    def setup(self, facts: ModelFacts) -> Mapping[GroupName, torch.nn.Module]:
        """Start with no diagnosis made."""
        self._found = torch.full((2, len(facts.modalities)), torch.nan, device=facts.device)
        return {}

    def edit_parameters(
        self, parameters: Mapping[GroupName, Sequence[Tensor]], ctx: EpochContext
    ) -> None:
        """Diagnose and set encoders back, where it is time."""
        options = self.options
        if not is_due(ctx.epoch + 1, options.every, options.times, ctx.epochs):
            return
        train, held_out = (
            ctx.collect("features", share=options.share),
            ctx.collect("features", "val"),
        )
        starts, count = options.starts, ctx.num_classes
        for position, modality in enumerate(ctx.modalities):
            gap = (
                cluster_purity(train, modality, position, count, starts)
                - cluster_purity(held_out, modality, position, count, starts)
            ).abs()
            weight = set_back(gap, options.lam)
            self._found[:, position] = torch.stack([gap, weight]).to(self._found)
            pull(parameters[modality], parameters[f"{modality}@initial"], weight)
        if options.momentum == "forget":
            ctx.forget_momentum(ctx.modalities)

    def edit_grads(self, grads: GradGroups, ctx: StepContext) -> None:
        """Log what the last diagnosis found."""
        del grads
        ctx.log_each("gap", self._found[0])
        ctx.log_each("coef", self._found[1])

    def state_dict(self) -> dict[str, Any]:
        """Give what the last diagnosis found."""
        return {"found": self._found}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what the last diagnosis found."""
        self._found = state["found"].to(self._found)


def is_due(done: int, every: int, times: int, epochs: int) -> bool:
    """Give whether encoders are set back after so many epochs are done."""
    return done % every == 0 and done // every <= times and done < epochs


def set_back(gap: Tensor, lam: float) -> Tensor:
    """Give the share of the first weights that a gap asks for; the shape of gap."""
    return torch.tanh(lam * gap)


def cluster_purity(
    collected: Mapping[str, Tensor],
    modality: Modality,
    position: int,
    num_clusters: int,
    num_starts: int = 1,
) -> Tensor:
    """Give the purity of one modality's features over the samples that have it; 0-d."""
    has = collected["present"][:, position].bool()
    features, label = collected[modality][has], collected["label"][has]
    if not len(label):
        return purity(label, label)
    return purity(k_means(scaled(features), num_clusters, num_starts=num_starts), label)


@torch.no_grad()
def pull(values: Sequence[Tensor], first: Sequence[Tensor], weight: Tensor) -> None:
    """Move values in place towards the first ones by a share of the way."""
    for value, initial in zip(values, first, strict=True):
        value.lerp_(initial.to(value), weight.to(value))
