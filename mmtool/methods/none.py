"""Plain joint training, without balancing.

    L = CE(z, y)

The baseline of every comparison: the cross entropy of the fused logits alone. Unimodal accuracies
are measured all the same and cost no gradient.

    point            paper                released code                 here
    objective        cross entropy        cross entropy                 the task's loss: multi-label
                                                                        and regression as well
"""

from mmtool.config import schema
from mmtool.methods._base import BalancingMethod

STAGE = "baseline"
COST = "nothing"


class Options(schema.Options):
    """Joint training takes no options."""


class Method(BalancingMethod):
    """Joint training."""
