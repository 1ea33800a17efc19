"""How many operators a step is made of, told by the graph that autograd keeps for its losses.

Every differentiable operator of a forward pass leaves one node, and costs about two more in the
backward pass. Nothing is run for the count, and it is the same on every device.
"""

from collections.abc import Iterable
from typing import Any

from torch import Tensor


def count_operators(losses: Iterable[Tensor]) -> int:
    """Give the number of differentiable operators behind some losses; leaves do not count."""
    waiting: list[Any] = [loss.grad_fn for loss in losses if loss.grad_fn is not None]
    seen = set(waiting)
    count = 0
    while waiting:
        node = waiting.pop()
        inputs = [function for function, _ in node.next_functions if function is not None]
        count += bool(inputs)  # what accumulates into a parameter has none
        new = [function for function in inputs if function not in seen]
        seen.update(new)
        waiting.extend(dict.fromkeys(new))
    return count
