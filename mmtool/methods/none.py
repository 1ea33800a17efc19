"""Plain joint training, without balancing.

    L = CE(z, y)

The baseline of every comparison: the cross entropy of the fused logits alone. Unimodal accuracies
are measured all the same and cost no gradient.
"""

from mmtool.config import schema
from mmtool.methods._base import BalancingMethod


class Options(schema.Options):
    """Joint training takes no options."""


class Method(BalancingMethod):
    """Joint training."""
