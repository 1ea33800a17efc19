"""Pull slow modalities towards the mean features of their classes (PMR).

Fan, Xu, Wang, Wang and Guo, "PMR: prototypical modal rebalance for multimodal learning", CVPR 2023.

    P_m[c] = mean of f_m over class c, renewed every epoch:
             P <- (1 - momentum) P_new + momentum P
    S_m    = -|f_m - P_m[c]| over classes c
    s_m    = mean of softmax(S_m) at the true class,   rho_m = s_m / mean of the others' s
    L      = CE(z) + alpha sum_m clip(1 / rho_m - 1, 0, 1) CE(S_m)
                   - entropy sum_m clip(rho_m - 1, 0, 1) H(softmax(S_m))

The first sum speeds up the modalities that are behind. The second keeps the leaders from settling
too early and is left out from `entropy_epochs` on. Works on features alone, with any fusion. A
class without samples keeps its prototype; one that never had any is left out of S, and its samples
out of the two sums.

    point            paper                released code                 here
    coefficients     clipped leads        alpha for the one behind,     the paper's;
                                          0 for the other               variant = "released": alpha
                                                                        where rho < 1, else 0
    entropy          in the first epochs  not there                     the paper's; the weight 0.1
                                                                        and 10 epochs are ours;
                                                                        variant = "released": none
    prototypes       of some samples      the first 10 % of the         share = 0.1 of the samples,
                                          training loader, training     the same ones every epoch,
                                          mode                          evaluation mode
    empty classes    -                    divides by zero               see above
    s                of the batch         sum over one device's batch   of the step before, all
                                                                  ranks
    |f - P|          -                    two Python loops              one matrix product
    more than two    -                    -; BalanceBenchmark scales    the mean of the others
                                          gradients as OGM does
    momentum         -                    0.2; BalanceBenchmark 0.5     0.2
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from mmtool.config import schema
from mmtool.methods._base import BalancingMethod, EpochContext, ModelFacts, StepContext
from mmtool.methods._scores import COUNT, SCORE, counted, mean_scores, ratios
from mmtool.methods._task import sample_loss
from mmtool.types import Batch, GradGroups, GroupName, Modality, Needs, Outputs

STAGE = "objective"
COST = "distances to class means; a pass over part of the training split per epoch"

_ENTROPY = "entropy"
_PROTOTYPE_SCORE, _PROTOTYPE_COUNT = f"prototype_{SCORE}", f"prototype_{COUNT}"


class Options(schema.Options):
    """Strength of the two sums, and how prototypes are made."""

    alpha: schema.Positive = 1.0
    """Weight of the prototype losses."""
    entropy: Annotated[float, Field(ge=0.0)] = 0.1
    """Weight of the entropy of modalities that are ahead."""
    entropy_epochs: Annotated[int, Field(ge=0)] = 10
    """Epochs at the start with the entropy."""
    start_epoch: Annotated[int, Field(ge=0)] = 0
    """First epoch with the two sums, counted from 0."""
    end_epoch: int | None = 100
    """Last epoch with them, included; unset never ends."""
    momentum: schema.Fraction = 0.2
    """What prototypes keep of the epoch before."""
    share: Annotated[float, Field(gt=0.0, le=1.0)] = 0.1
    """Share of the training samples that prototypes are made of."""
    variant: Literal["paper", "released"] = "paper"
    """Coefficients that grow with the lead, or a switch without entropy."""


class Method(BalancingMethod):
    """Prototypical modal rebalance."""

    needs: ClassVar[Needs] = Needs(
        epoch_statistics=frozenset({"class_means"}),
        min_modalities=2,
        tasks=frozenset({"single_label"}),
    )
    options: Options

    def setup(self, facts: ModelFacts) -> Mapping[GroupName, torch.nn.Module]:
        """Start without prototypes and with no modality known to be ahead."""
        classes, device = facts.num_classes, facts.device
        self._prototypes = {
            m: torch.zeros(classes, facts.feature_dims[m], device=device) for m in facts.modalities
        }
        self._known = {
            m: torch.zeros(classes, dtype=torch.bool, device=device) for m in facts.modalities
        }
        self._scores = torch.full((len(facts.modalities),), torch.nan, device=device)
        return {}

    def begin_epoch(self, ctx: EpochContext) -> None:
        """Renew the prototypes."""
        if not self._is_active(ctx.epoch):
            return
        found = ctx.collect("class_means", share=self.options.share)
        for m in ctx.modalities:
            self._prototypes[m], self._known[m] = renewed(
                self._prototypes[m],
                self._known[m],
                found[m].to(self._prototypes[m]),
                found[f"{m}.count"] > 0,
                self.options.momentum,
            )

    def losses(self, outputs: Outputs, batch: Batch, ctx: StepContext) -> dict[str, Tensor]:
        """Give the fused loss, and of each modality the prototype loss and the entropy."""
        terms = {"fused": sample_loss(outputs.logits, batch)}
        if not self._is_active(ctx.epoch):
            return terms
        for position, modality in enumerate(batch.modalities):
            logs = self._log_probabilities(modality, outputs)
            has = batch.present[:, position] & self._known[modality][batch.label]
            loss, entropy = prototype_terms(logs, batch.label, has)
            terms[modality] = loss
            if self._has_entropy(ctx.epoch):
                terms[f"{_ENTROPY}.{modality}"] = entropy
        return terms

    def compose(self, terms: Mapping[str, Tensor], ctx: StepContext) -> Tensor:
        """Weigh the terms by how far each modality is behind or ahead."""
        if not self._is_active(ctx.epoch):
            return terms["fused"]
        behind, ahead = coefficients(self._scores, self.options.variant)
        total = terms["fused"]
        for position, modality in enumerate(ctx.modalities):
            total = total + self.options.alpha * behind[position] * terms[modality]
            if self._has_entropy(ctx.epoch):
                entropy = terms[f"{_ENTROPY}.{modality}"]
                total = total - self.options.entropy * ahead[position] * entropy
        return total

    def statistics(self, outputs: Outputs, batch: Batch, ctx: StepContext) -> dict[str, Tensor]:
        """Give the probabilities of the true class by the distances to the prototypes."""
        if not self._is_active(ctx.epoch):
            return {}
        sums, counts = [], []
        has = counted(batch)
        for position, modality in enumerate(batch.modalities):
            logs = self._log_probabilities(modality, outputs).detach()
            right = logs.gather(1, batch.label.unsqueeze(1)).squeeze(1).exp()
            counts.append(has[:, position] & self._known[modality][batch.label])
            sums.append(torch.where(counts[-1], right, 0.0).sum())
        return {
            _PROTOTYPE_SCORE: torch.stack(sums),
            _PROTOTYPE_COUNT: torch.stack([c.sum(dtype=torch.float32) for c in counts]),
        }

    def edit_grads(self, grads: GradGroups, ctx: StepContext) -> None:
        """Log scores and coefficients."""
        del grads
        if self._is_active(ctx.epoch):
            ctx.log_each("prototype_score", _means(ctx.stats))
            behind, ahead = coefficients(self._scores, self.options.variant)
            ctx.log_each("coef", self.options.alpha * behind)
            if self._has_entropy(ctx.epoch):
                ctx.log_each("entropy_coef", self.options.entropy * ahead)

    def end_step(self, ctx: StepContext) -> None:
        """Remember this step's scores for the next one, unless it was skipped."""
        if not self._is_active(ctx.epoch):
            return
        scores = _means(ctx.stats).to(self._scores)
        if ctx.is_skipped is not None:
            scores = torch.where(ctx.is_skipped, self._scores, scores)
        self._scores = scores

    def _log_probabilities(self, modality: Modality, outputs: Outputs) -> Tensor:
        return log_probabilities(
            outputs.features[modality], self._prototypes[modality], self._known[modality]
        )

    def _is_active(self, epoch: int) -> bool:
        last = self.options.end_epoch
        return self.options.start_epoch <= epoch and (last is None or epoch <= last)

    def _has_entropy(self, epoch: int) -> bool:
        options = self.options
        is_used = options.variant == "paper" and options.entropy > 0
        return is_used and epoch < options.entropy_epochs

    def state_dict(self) -> dict[str, Any]:
        """Give prototypes and the scores of the last step."""
        return {
            "prototypes": dict(self._prototypes),
            "known": dict(self._known),
            "scores": self._scores,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take them back."""
        self._scores = state["scores"].to(self._scores)
        for m in self._prototypes:
            self._prototypes[m] = state["prototypes"][m].to(self._prototypes[m])
            self._known[m] = state["known"][m].to(self._known[m])


def _means(stats: Mapping[str, Tensor]) -> Tensor:
    return mean_scores({SCORE: stats[_PROTOTYPE_SCORE], COUNT: stats[_PROTOTYPE_COUNT]})


def renewed(
    before: Tensor, was_known: Tensor, found: Tensor, is_found: Tensor, momentum: float
) -> tuple[Tensor, Tensor]:
    """Give prototypes [class, dim] moved to new means, and which classes have one; [class].

    The first mean of a class is taken as it is; a class without a new mean stays as it was.
    """
    moved = (1 - momentum) * found + momentum * before
    first_or_moved = torch.where(was_known.unsqueeze(1), moved, found)
    prototypes = torch.where(is_found.unsqueeze(1), first_or_moved, before)
    return prototypes, was_known | is_found


def distances(features: Tensor, prototypes: Tensor) -> Tensor:
    """Give |f - P[c]| of [batch, dim] and [class, dim]; [batch, class].

    The gradient at a distance of zero is zero.
    """
    with torch.autocast(features.device.type, enabled=False):
        exact = features if features.dtype == torch.float64 else features.float()
        centre = prototypes.mean(0)  # squares of small numbers lose fewer digits in the difference
        f, p = exact - centre, prototypes.to(exact.dtype) - centre
        squared = f.square().sum(1, keepdim=True) + p.square().sum(1) - 2 * f @ p.T
        is_zero = squared <= 1e-12
        return torch.where(is_zero, 0.0, torch.where(is_zero, 1.0, squared).sqrt())


def log_probabilities(features: Tensor, prototypes: Tensor, known: Tensor) -> Tensor:
    """Give log softmax over the classes that have a prototype; [batch, class], -inf elsewhere.

    Without any, all classes are equal.
    """
    similarity = -distances(features, prototypes)
    counts = known | ~known.any()
    return torch.where(counts, similarity, -torch.inf).log_softmax(1)


def prototype_terms(logs: Tensor, label: Tensor, has: Tensor) -> tuple[Tensor, Tensor]:
    """Give cross entropy and entropy of each sample, zero where not `has`; [batch] each."""
    # Chosen before the product: minus infinity times zero would reach the features' gradient.
    finite = torch.where(logs.isfinite(), logs, 0.0)
    probability = torch.where(logs.isfinite(), logs.exp(), 0.0)
    right = finite.gather(1, label.unsqueeze(1)).squeeze(1)
    entropy = -(probability * finite).sum(1)
    return torch.where(has, -right, 0.0), torch.where(has, entropy, 0.0)


def coefficients(
    scores: Tensor, variant: Literal["paper", "released"] = "paper"
) -> tuple[Tensor, Tensor]:
    """Give how far each modality is behind and ahead, from 0 to 1; [modality] each."""
    rho = ratios(scores)
    if variant == "released":
        return (rho < 1).to(rho.dtype), torch.zeros_like(rho)
    return (1 / rho - 1).clamp(0.0, 1.0), (rho - 1).clamp(0.0, 1.0)
