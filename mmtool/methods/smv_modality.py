"""Visit some samples again with one modality alone, where it is worth less than the others (SMV).

Wei, Feng, Wang and Hu, "Enhancing multimodal cooperation via sample-level modality valuation",
CVPR 2024; the coarse variant, one decision per modality.

    v(S)    = |S| if the fusion of the modalities S alone gives the right class, else 0
    phi_m   = mean over a share of the training split of the Shapley value of m
    d_m     = mean of the others' phi - phi_m;  two modalities: the difference of the gaps 1 - phi
    p_m     = clip(f(2/3 d_m), 0, 1) if d_m > 0, else 0,    f(x) = alpha x

round(p_m N) of the N training samples, drawn anew in each epoch, are visited once more with
modality m alone. Values are found before an epoch by a pass of the encoders over the share; epochs
get longer by the copies, and the schedule of the learning rate goes by the share of the epoch done.

    paper               | released code             | here
    a random share      | drawn anew                | the same samples every time
    the others zero     | features zero, after the  | the others absent: their mean feature stands
                        |   encoders                |   for them in both places
    p N copies          | int(p N), short by one    | rounded
                        |   where p N is whole      |
    two modalities      | as in the paper           | any number, by d_m as above
    -                   | f also tanh or square     | form = "linear" (default), "tanh", "square"
    -                   | crashes in a warm-up of   | warm-up epochs visit each sample once
                        |   more than one epoch     |

A copy of a sample that lacks the modality is empty: it counts neither in the loss nor in its mean.
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from mmtool.config import schema
from mmtool.methods._base import BalancingMethod, DataPlan, EpochContext, ModelFacts, StepContext
from mmtool.methods._task import sample_loss
from mmtool.methods._valuation import mean_values, sample_values
from mmtool.randomness import sample_uniform
from mmtool.types import Batch, GradGroups, GroupName, Needs, Outputs

STAGE = "data"
COST = "one pass over a share of the training split per epoch, and up to N more visits per modality"

Form = Literal["linear", "tanh", "square"]
_SALT = 0x53F7


class Options(schema.Options):
    """When and on how much modalities are valued, and how much is added."""

    alpha: schema.Positive = 1.0
    """How many samples are added for a given difference."""
    form: Form = "linear"
    """f(x): alpha x, tanh(alpha x) or alpha x^2."""
    share: Annotated[float, Field(gt=0.0, le=1.0)] = 0.2
    """Share of the training split that is valued."""
    warmup_epochs: Annotated[int, Field(ge=0)] = 5
    """Epochs at the start that visit each sample once."""
    every: schema.Count = 1
    """Epochs for which a valuation is used before the next one."""


class Method(BalancingMethod):
    """Sample-level modality valuation, one decision per modality."""

    needs: ClassVar[Needs] = Needs(
        epoch_statistics=frozenset({"features"}),
        sample_index=True,
        min_modalities=2,
        max_modalities=8,
        tasks=frozenset({"single_label"}),
    )
    options: Options

    def setup(self, facts: ModelFacts) -> Mapping[GroupName, torch.nn.Module]:
        """Start without values."""
        self._values = torch.full((len(facts.modalities),), torch.nan, device=facts.device)
        return {}

    def plan_epoch(self, ctx: EpochContext) -> DataPlan | None:
        """Value the modalities and add samples that show those which are worth less."""
        options = self.options
        since = ctx.epoch - options.warmup_epochs
        if since < 0:
            return None
        if bool(self._values.isnan().any()) or since % options.every == 0:
            collected = ctx.collect("features", share=options.share)
            values = sample_values(collected, ctx.modalities, ctx.fuse, ctx.absent)
            self._values = mean_values(values, collected["present"].bool()).to(self._values)
        shares = added_shares(self._values.double(), options.alpha, options.form)
        return plan((shares * ctx.train_size).round().long(), ctx.train_size, ctx.seed, ctx.epoch)

    def losses(self, outputs: Outputs, batch: Batch, ctx: StepContext) -> dict[str, Tensor]:
        """Give the fused loss of samples that show anything."""
        del ctx
        return {"fused": torch.where(batch.present.any(1), sample_loss(outputs.logits, batch), 0.0)}

    def statistics(self, outputs: Outputs, batch: Batch, ctx: StepContext) -> dict[str, Tensor]:
        """Give how many samples count."""
        del outputs, ctx
        counts = batch.present.any(1)
        if batch.weight is not None:
            counts = counts & (batch.weight != 0)
        return {"weight": counts.sum(dtype=torch.float32)}

    def edit_grads(self, grads: GradGroups, ctx: StepContext) -> None:
        """Log what each modality is worth, and how long the epoch is."""
        del grads
        ctx.log_each("value", self._values)
        ctx.log("steps", torch.full_like(self._values[0], float(ctx.steps_per_epoch)))

    def state_dict(self) -> dict[str, Any]:
        """Give the values that are in use."""
        return {"values": self._values}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back the values."""
        self._values = state["values"].to(self._values)


def added_shares(values: Tensor, alpha: float, form: Form = "linear") -> Tensor:
    """Give the share of samples to visit again with each modality alone; [modality]."""
    num_others = max(len(values) - 1, 1)
    behind = ((values.sum() - values) / num_others - values).clamp_min(0)
    x = 2 / 3 * behind
    forms = {
        "linear": alpha * x,
        "tanh": torch.tanh(alpha * x),
        "square": alpha * x.square(),
    }
    return forms[form].clamp(0, 1)


def plan(added: Tensor, num_samples: int, seed: int, epoch: int) -> DataPlan:
    """Give an epoch of each sample as it is and of some drawn ones with one modality alone.

    `added` is how many for each modality; a sample is drawn at most once for each.
    """
    everyone = torch.arange(num_samples, device=added.device)
    num_modalities = len(added)
    index = [everyone]
    keep = [torch.ones(num_samples, num_modalities, dtype=torch.bool, device=added.device)]
    for position in range(num_modalities):
        number = int(added[position])
        drawn = sample_uniform(everyone, seed, epoch, _SALT, position)
        alone = torch.zeros(number, num_modalities, dtype=torch.bool, device=added.device)
        alone[:, position] = True
        index.append(drawn.argsort(stable=True)[:number])
        keep.append(alone)
    return DataPlan(torch.cat(index), torch.cat(keep))
