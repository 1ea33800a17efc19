"""Pull each encoder's features towards those of a frozen model of that modality alone (UMT).

Du, Teng, Li, Liu, Yuan, Wang, Yuan and Zhao, "On uni-modal feature learning in supervised
multi-modal learning", ICML 2023 (uni-modal teacher).

    L = CE(z) + weight sum_m MSE(f_m, f_m of the teacher)

The teacher of m is the same encoder trained on m alone and frozen. MSE is the mean over dimensions,
averaged over the batch; 0 for a sample that lacks the modality. `mmtool train` trains the teachers
first, as ordinary runs under runs/teachers, and finds them again for the next run that needs them.

    paper                              released code (toolkit)    here
    weight about 50, set per dataset   10                         weight = 10
    teachers trained before            another trainer, which     runs of their own, trained first
                                       crashes; their path is     or named by `teachers`
                                       guessed
    teacher of equal width             as in the paper            other widths are refused
    every sample has every modality    as in the paper            terms leave out what is missing
"""

from collections.abc import Mapping
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from mmtool.methods._base import BalancingMethod, StepContext
from mmtool.methods._task import sample_loss
from mmtool.methods._teachers import TeacherOptions, feature_distance, present
from mmtool.types import Batch, Needs, Outputs

STAGE = "objective"
COST = "a forward pass of each frozen teacher, and training them once"

FUSED = "fused"


class Options(TeacherOptions):
    """Which models teach, and how much they count."""

    weight: Annotated[float, Field(ge=0.0)] = 10.0
    """Weight of each modality's distance to its teacher."""


class Method(BalancingMethod):
    """Unimodal teachers."""

    needs: ClassVar[Needs] = Needs(teachers=True, teacher_width=True)
    options: Options

    def losses(self, outputs: Outputs, batch: Batch, ctx: StepContext) -> dict[str, Tensor]:
        """Give the fused loss and a distance per modality."""
        del ctx
        terms = {FUSED: sample_loss(outputs.logits, batch)}
        for modality, target in outputs.teacher_features.items():
            distance = feature_distance(outputs.features[modality], target)
            terms[modality] = present(batch, modality, distance)
        return terms

    def compose(self, terms: Mapping[str, Tensor], ctx: StepContext) -> Tensor:
        """Add the weighted distances to the fused loss."""
        distances = torch.stack([terms[m] for m in ctx.modalities]).sum()
        return terms[FUSED] + self.options.weight * distances
