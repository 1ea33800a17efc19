"""What a recipe must satisfy beyond types: nothing in it may be without effect.

Both functions read the raw tree, so that their problems appear together with those of validation;
values of the wrong type are left for validation to report.
"""

from collections.abc import Iterator
from typing import Any

from mmtool.config.layers import Layers
from mmtool.config.locate import KeyPath
from mmtool.config.plain import Complaint
from mmtool.config.schema import TrainConfig
from mmtool.config.shape import Tree, dotted, value_at
from mmtool.text import suggestion

INERT = (
    ("momentum", "optimizer", "sgd"),
    ("step_epochs", "schedule", "step"),
    ("step_factor", "schedule", "step"),
    ("max_bad_steps", "on_nonfinite", "skip"),
)
"""Keys of [train] that work only with one value of another key."""


def drop_overruled(layers: Layers) -> None:
    """Drop, with a note, what a higher layer left without effect in a lower one."""
    for path, switch, reason in _without_effect(layers.tree):
        rank = layers.rank_of(path)
        if rank >= 0 and layers.rank_of(switch) > rank:
            layers.notes.append(f"{dotted(path)} ({layers.origin_of(path)}) dropped: {reason}")
            layers.drop(path)


def semantic_problems(tree: Tree) -> Iterator[Complaint]:
    """Find keys without effect, modalities without encoder, and batches too small to cut."""
    for path, switch, reason in _without_effect(tree):
        yield Complaint(
            path,
            f"{dotted(path)} has no effect: {reason}",
            f"remove it, or change {dotted(switch)}",
            about_key=True,
        )
    yield from _modalities(tree)
    batch_size, accumulate = _train(tree, "batch_size"), _train(tree, "accumulate")
    if _is_count(batch_size) and _is_count(accumulate) and batch_size < accumulate:
        yield Complaint(
            ("train", "accumulate"),
            f"a batch of {batch_size} cannot be cut into {accumulate} micro-batches",
            f"accumulate = {batch_size} at most",
        )


def _without_effect(tree: Tree) -> Iterator[tuple[KeyPath, KeyPath, str]]:
    """Give each key without effect, the key that made it so, and the reason."""
    written = tree.get("train")
    for key, switch, needed in INERT:
        choice = _train(tree, switch)
        if (
            isinstance(written, dict)
            and key in written
            and _is_other_choice(switch, choice, needed)
        ):
            yield ("train", key), ("train", switch), f"{switch} is {choice!r}, not {needed!r}"
    encoders = value_at(tree, ("model", "encoders"))
    listed = value_at(tree, ("data", "modalities"))
    if _is_names(listed):
        for modality in list(encoders) if isinstance(encoders, dict) else []:
            if modality not in listed:
                reason = f"data.modalities is {', '.join(listed) or 'empty'}"
                yield ("model", "encoders", modality), ("data", "modalities"), reason
    used = listed if _is_names(listed) else list(encoders) if isinstance(encoders, dict) else None
    for section in ("augment", "columns"):
        by_modality = value_at(tree, ("data", section))
        if used is None or not isinstance(by_modality, dict):
            continue
        for modality in list(by_modality):
            if modality not in used:
                reason = suggestion(modality, used, otherwise=f"{modality!r} is not used")
                switch_path = ("data", "modalities") if _is_names(listed) else ("model", "encoders")
                yield ("data", section, modality), switch_path, reason


def _modalities(tree: Tree) -> Iterator[Complaint]:
    encoders = value_at(tree, ("model", "encoders"))
    listed = value_at(tree, ("data", "modalities"))
    if isinstance(encoders, dict) and not encoders:
        fix = "add one encoder per modality (mmtool list encoders)"
        yield Complaint(("model", "encoders"), "no modality has an encoder", fix, about_key=True)
    if not _is_names(listed):
        return
    if not listed:
        fix = "list at least one modality, or remove the key to use all"
        yield Complaint(("data", "modalities"), "no modality is listed", fix)
    for position, modality in enumerate(listed):
        path = ("data", "modalities", str(position))
        if modality in listed[:position]:
            yield Complaint(path, f"modality {modality!r} is listed twice", "remove one")
        elif isinstance(encoders, dict) and modality not in encoders:
            fix = f'add [model.encoders.{modality}] with name = "..." (mmtool list encoders)'
            near = suggestion(modality, [e for e in encoders if e not in listed], otherwise=fix)
            yield Complaint(path, f"modality {modality!r} has no encoder", near)


def _train(tree: Tree, key: str) -> Any:
    written = tree.get("train")
    default = TrainConfig.model_fields[key].get_default()
    return written.get(key, default) if isinstance(written, dict) else default


def _is_other_choice(switch: str, choice: object, needed: str) -> bool:
    """Whether a switch holds a valid choice that is not the needed one."""
    valid = TrainConfig.model_fields[switch].annotation.__args__  # type: ignore[union-attr]
    return choice != needed and choice in valid


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_names(value: object) -> bool:
    return isinstance(value, (list, tuple)) and all(isinstance(name, str) for name in value)
