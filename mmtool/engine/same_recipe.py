"""Whether a run is continued under the recipe it was begun with."""

import json
from collections.abc import Mapping
from typing import Any

from mmtool.config.dump import flatten
from mmtool.config.schema import Recipe

# What these say may change between two attempts: where a run executes, what it logs and how it
# deals with failures. None of it changes a result.
_FREE = (
    "launch.", "log.every_steps", "log.system_every_s", "log.norms_every_steps", "log.thin_norms",
    "log.flip_samples", "log.train_every_epochs", "data.placement",
)  # fmt: skip
_FREE_KEYS = frozenset(
    f"train.{name}"
    for name in (
        "checkpoint_every_steps", "checkpoint", "max_bad_steps", "on_nonfinite", "on_oom",
    )
)  # fmt: skip


def recorded(recipe: Recipe) -> dict[str, Any]:
    """Give a recipe by dotted keys, as a checkpoint keeps it: plain JSON values."""
    plain: dict[str, Any] = json.loads(json.dumps(flatten(recipe), default=str))
    return plain


def changes(before: Mapping[str, Any], recipe: Recipe) -> list[str]:
    """Give what differs between a checkpoint's recipe and the present one, as `key: old -> new`.

    A key that only one of two versions of mmtool knows does not count.
    """
    now = recorded(recipe)
    if before:  # data.task came later; until then there was one task
        before = {"data.task": "single_label", **before}
    return [
        f"{key}: {json.dumps(before[key])} -> {json.dumps(now[key])}"
        for key in sorted(before.keys() & now.keys())
        if before[key] != now[key] and not is_free(key)
    ] + [
        f"{key}: {json.dumps(before.get(key))} -> {json.dumps(now.get(key))}"
        for key in sorted(before.keys() ^ now.keys())
        if before and _is_plugin(key) and not is_free(key)
    ]


def is_free(key: str) -> bool:
    """Tell whether a key may change between two attempts of one run."""
    return key.startswith(_FREE) or key in _FREE_KEYS


def _is_plugin(key: str) -> bool:
    """Tell whether a key is an option of a plugin, which exists only while that plugin is named."""
    return key.startswith(("method.", "model.", "data."))
