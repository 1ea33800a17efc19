"""Linear layers as the reference recipes start them."""

from torch import nn


def linear(num_inputs: int, num_outputs: int) -> nn.Linear:
    """Give a linear layer with Xavier-normal weights and a zero bias."""
    layer = nn.Linear(num_inputs, num_outputs)
    nn.init.xavier_normal_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
