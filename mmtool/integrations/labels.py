"""Finds the class numbers in a batch of unknown make."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NAMES = ("labels", "label", "targets", "target", "y")


def labels_of(batch: Any) -> Any:
    """Give the entry of that name, or the last part of a tuple; None if there is neither."""
    if isinstance(batch, Mapping):
        return next((batch[name] for name in NAMES if name in batch), None)
    return batch[-1] if isinstance(batch, list | tuple) and len(batch) > 1 else None
