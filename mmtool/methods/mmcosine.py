"""Classify by cosines, so that no modality wins by the length of its features (MMCosine).

Xu, Feng, Zhang and Hu, "MMCosine: multi-modal cosine loss towards balanced audio-visual
fine-grained learning", ICASSP 2023.

    z_c = s * sum_m cos(f_m, W_m[c]),    L = CE(z)

All of it is in the head: this is joint training with fusion "cosine", which the method requires and
which has the option `scale` for s. Any other method can be used with that fusion as well.

    point            paper                released code                 here
    s                tabulated by data    10; BalanceBenchmark 15       fusion.scale = 10
    bias             none                 none                          none
    film, gated      last layer           not there                     refused: their logits are
                     normalised                                         no sum over modalities
    other losses     -                    a noise-contrastive one, at   left out
                                          weight 0, every step
    inference        same head            BalanceBenchmark's validation same head
                                          stops with an error
    running it       -                    stops at a misspelt argument  -
"""

from typing import ClassVar

from mmtool.config import schema
from mmtool.methods._base import BalancingMethod
from mmtool.types import Needs

STAGE = "forward"
COST = "none"


class Options(schema.Options):
    """The scale is an option of the fusion: model.fusion = {name = "cosine", scale = 10.0}."""


class Method(BalancingMethod):
    """Joint training with a cosine head."""

    needs: ClassVar[Needs] = Needs(fusions=frozenset({"cosine"}))
    options: Options
