"""Carve a validation or test split out of the training clips, the same one on every machine."""

import hashlib
import math
from collections.abc import Mapping, Sequence


def draw_share(
    ids: Sequence[str],
    share: float,
    salt: str,
    *,
    labels: Sequence[object] | None = None,
    groups: Sequence[str] | None = None,
) -> set[str]:
    """Draw about `share` of the clips: whole groups where given, else evenly over labels.

    A clip of the group "" stands alone. One group always stays behind. `salt` names the draw, so
    that draws for val and test differ.
    """

    def key(text: str) -> str:
        return hashlib.sha256(f"{salt}:{text}".encode()).hexdigest()

    if groups is None:
        kinds = labels if labels is not None else [0] * len(ids)
        pairs = zip(map(str, kinds), ids, strict=True)
        order = [i for _, i in sorted(pairs, key=lambda pair: (pair[0], key(pair[1])))]
        steps = [math.floor(i * share + 0.5) for i in range(len(order) + 1)]
        return {name for i, name in enumerate(order) if steps[i + 1] > steps[i]}
    members: dict[tuple[bool, str], list[str]] = {}
    for clip_id, group in zip(ids, groups, strict=True):
        members.setdefault((bool(group), group or clip_id), []).append(clip_id)
    drawn: set[str] = set()
    for name in sorted(members, key=lambda name: key(name[1]))[:-1]:
        if len(drawn) >= round(share * len(ids)):
            break
        drawn.update(members[name])
    return drawn


def carve(
    splits: Mapping[str, str],
    share: float,
    salt: str,
    *,
    labels: Mapping[str, object] | None = None,
    groups: Mapping[str, str] | None = None,
    into: str = "val",
) -> dict[str, str]:
    """Give the splits by id with about `share` of train moved to another split, val unless said.

    Whole groups move where groups are given, else clips evenly over labels.
    """
    ids = sorted(name for name, split in splits.items() if split == "train")
    drawn = draw_share(
        ids,
        share,
        salt,
        labels=None if labels is None else [labels[name] for name in ids],
        groups=None if groups is None else [groups[name] for name in ids],
    )
    return {name: into if name in drawn else split for name, split in splits.items()}


def leave_one_out(groups: Sequence[str], *, prefix: str, val: int = 1) -> dict[str, dict[str, str]]:
    """Give one protocol per group, `{prefix}-{group}`: that group is test, the next ones val.

    The result maps protocol -> group -> split; the groups are taken in sorted order.
    """
    names = sorted(set(groups))
    folds = {}
    for position, held_out in enumerate(names):
        following = [names[(position + 1 + i) % len(names)] for i in range(val)]
        folds[f"{prefix}-{held_out}"] = {
            name: "test" if name == held_out else "val" if name in following else "train"
            for name in names
        }
    return folds
