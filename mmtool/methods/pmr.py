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
from mmtool.types import Batch, GradGroups, GroupName, Needs, Outputs

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
        count = len(facts.modalities)
        self._known = torch.zeros(count, classes, dtype=torch.bool, device=device)
        self._take(torch.full((count,), torch.nan, device=device))
        return {}

    def begin_epoch(self, ctx: EpochContext) -> None:
        """Renew the prototypes."""
        if not self._is_active(ctx.epoch):
            return
        found = ctx.collect("class_means", share=self.options.share)
        is_found = torch.stack([found[f"{m}.count"] > 0 for m in ctx.modalities])
        for position, m in enumerate(ctx.modalities):
            self._prototypes[m] = renewed(
                self._prototypes[m],
                self._known[position],
                found[m].to(self._prototypes[m]),
                is_found[position],
                self.options.momentum,
            )
        self._known = self._known | is_found

    def losses(self, outputs: Outputs, batch: Batch, ctx: StepContext) -> dict[str, Tensor]:
        """Give the fused loss, the prototype loss of each modality and the leaders' entropy."""
        terms = {"fused": sample_loss(outputs.logits, batch)}
        if not self._is_active(ctx.epoch):
            return terms
        self._logs = self._log_probabilities(outputs)
        has = batch.present.T & self._known_labels(batch)
        loss, entropy = prototype_terms(self._logs, batch.label, has)
        terms |= dict(zip(batch.modalities, loss.unbind(), strict=True))
        if self._has_entropy(ctx.epoch):
            terms[_ENTROPY] = self._ahead.to(entropy.dtype) @ entropy
        return terms

    def compose(self, terms: Mapping[str, Tensor], ctx: StepContext) -> Tensor:
        """Weigh the prototype losses by how far each modality is behind."""
        if not self._is_active(ctx.epoch):
            return terms["fused"]
        losses = torch.stack([terms[m] for m in ctx.modalities])
        total = terms["fused"] + self.options.alpha * (self._behind.to(losses.dtype) @ losses)
        if _ENTROPY in terms:
            total = total - self.options.entropy * terms[_ENTROPY]
        return total

    def statistics(self, outputs: Outputs, batch: Batch, ctx: StepContext) -> dict[str, Tensor]:
        """Give the probabilities of the true class by the distances to the prototypes."""
        del outputs
        if not self._is_active(ctx.epoch):
            return {}
        counts = counted(batch).T & self._known_labels(batch)  # [modality, batch]
        right = _at_label(self._logs.detach(), batch.label).exp()
        return {
            _PROTOTYPE_SCORE: torch.where(counts, right, 0.0).sum(1),
            _PROTOTYPE_COUNT: counts.sum(1, dtype=torch.float32),
        }

    def edit_grads(self, grads: GradGroups, ctx: StepContext) -> None:
        """Log scores and coefficients."""
        del grads
        if self._is_active(ctx.epoch):
            ctx.log_each("prototype_score", _means(ctx.stats))
            ctx.log_each("coef", self.options.alpha * self._behind)
            if self._has_entropy(ctx.epoch):
                ctx.log_each("entropy_coef", self.options.entropy * self._ahead)

    def end_step(self, ctx: StepContext) -> None:
        """Remember this step's scores for the next one, unless it was skipped."""
        if not self._is_active(ctx.epoch):
            return
        scores = _means(ctx.stats).to(self._scores)
        if ctx.is_skipped is not None:
            scores = torch.where(ctx.is_skipped, self._scores, scores)
        self._take(scores)

    def _take(self, scores: Tensor) -> None:
        """Take scores and what follows from them for the coming step."""
        self._scores = scores
        self._behind, self._ahead = coefficients(scores, self.options.variant)

    def _log_probabilities(self, outputs: Outputs) -> Tensor:
        """Give those of every modality, [modality, batch, class]."""
        similarity = torch.stack(
            [-distances(outputs.features[m], p) for m, p in self._prototypes.items()]
        )
        return log_probabilities(similarity, self._known)

    def _known_labels(self, batch: Batch) -> Tensor:
        return self._known[:, batch.label]  # [modality, batch]

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
            "known": self._known,
            "scores": self._scores,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take them back."""
        self._take(state["scores"].to(self._scores))
        self._known = state["known"].to(self._known)
        for m, prototypes in self._prototypes.items():
            self._prototypes[m] = state["prototypes"][m].to(prototypes)


def _means(stats: Mapping[str, Tensor]) -> Tensor:
    return mean_scores({SCORE: stats[_PROTOTYPE_SCORE], COUNT: stats[_PROTOTYPE_COUNT]})


def renewed(
    before: Tensor, was_known: Tensor, found: Tensor, is_found: Tensor, momentum: float
) -> Tensor:
    """Give prototypes [class, dim] moved to new means.

    The first mean of a class is taken as it is; a class without a new mean stays as it was.
    """
    moved = found + momentum * (before - found)  # means that did not change stay bit for bit
    first_or_moved = torch.where(was_known.unsqueeze(1), moved, found)
    return torch.where(is_found.unsqueeze(1), first_or_moved, before)


def distances(features: Tensor, prototypes: Tensor) -> Tensor:
    """Give |f - P[c]| of [batch, dim] and [class, dim]; [batch, class].

    The gradient at a distance of zero is zero.
    """
    with torch.autocast(features.device.type, enabled=False):
        exact = features if features.dtype == torch.float64 else features.float()
        # Differences of squares of small numbers lose fewer digits.
        centre = prototypes.mean(0)
        return torch.cdist(exact - centre, prototypes.to(exact.dtype) - centre)


def log_probabilities(similarity: Tensor, known: Tensor) -> Tensor:
    """Give log softmax of [modality, batch, class] over the classes with a prototype.

    `known` is [modality, class]; other classes get -inf. Without any, all classes are equal.
    """
    counts = known | ~known.any(1, keepdim=True)
    return torch.where(counts.unsqueeze(1), similarity, -torch.inf).log_softmax(2)


def prototype_terms(logs: Tensor, label: Tensor, has: Tensor) -> tuple[Tensor, Tensor]:
    """Give cross entropy and entropy, zero where not `has`; [modality, batch] each.

    `logs` is [modality, batch, class], `label` [batch], `has` [modality, batch].
    """
    # Minus infinity times zero would reach the gradient of the features.
    finite = logs.clamp_min(torch.finfo(logs.dtype).min)
    entropy = -(logs.exp() * finite).sum(2)
    loss = -_at_label(finite, label)
    return torch.where(has, loss, 0.0), torch.where(has, entropy, 0.0)


def _at_label(values: Tensor, label: Tensor) -> Tensor:
    return values.gather(2, label.expand(len(values), -1).unsqueeze(2)).squeeze(2)


def coefficients(
    scores: Tensor, variant: Literal["paper", "released"] = "paper"
) -> tuple[Tensor, Tensor]:
    """Give how far each modality is behind and ahead, from 0 to 1; [modality] each."""
    rho = ratios(scores)
    if variant == "released":
        return (rho < 1).to(rho.dtype), torch.zeros_like(rho)
    return (1 / rho - 1).clamp(0.0, 1.0), (rho - 1).clamp(0.0, 1.0)
