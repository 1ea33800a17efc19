"""Runs of one recipe belong together, whatever their seed; and what to call such a group."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmtool.diagnose.load import Run

Values = Mapping[str, Any]
NOT_COMPARED = ("launch", "log")
"""Sections that do not change what is learnt."""
SEED_KEY = "train.seed"
_MAX_OPTIONS = 3


@dataclass(frozen=True, slots=True)
class Members:
    """Positions of the runs of one recipe, and its label."""

    label: str
    at: tuple[int, ...]


def recipe_values(run: Run) -> dict[str, Any]:
    """Give recipe values by dotted key; without a resolved recipe, what the log's head says."""
    if not run.recipe:
        head = run.tables.head
        return {k: head.get(k) for k in ("method", "batch_size", "epochs", "modalities")}
    flat: dict[str, Any] = {}

    def walk(value: object, key: str) -> None:
        if isinstance(value, Mapping) and value:
            for name, entry in value.items():
                walk(entry, f"{key}.{name}" if key else str(name))
        else:
            flat[key] = value

    walk({k: v for k, v in run.recipe.items() if k not in NOT_COMPARED}, "")
    return flat


def differing_keys(values: Sequence[Values]) -> list[str]:
    """Give the keys whose value is not the same everywhere."""
    keys = sorted({key for value in values for key in value})
    return [key for key in keys if any(v.get(key) != values[0].get(key) for v in values)]


def group_runs(runs: Sequence[Run], values: Sequence[Values]) -> list[Members]:
    """Give the groups in the order of their first runs; runs that differ in nothing stand alone."""
    differing = differing_keys(values)
    kept = [key for key in differing if key != SEED_KEY]
    found: dict[str, list[int]] = {}
    for index, value in enumerate(values):
        found.setdefault(repr([value.get(key) for key in kept]), []).append(index)
    groups = list(found.values())
    if len(groups) == 1 and SEED_KEY not in differing:
        return [Members(run.name, (index,)) for index, run in enumerate(runs)]
    labels = _labels([runs[at[0]] for at in groups], [values[at[0]] for at in groups])
    return [Members(label, tuple(at)) for label, at in zip(labels, groups, strict=True)]


def _labels(runs: Sequence[Run], values: Sequence[Values]) -> list[str]:
    variants = [_variant(run) for run in runs]
    labels = [
        variant or _described(run, value, values)
        for run, value, variant in zip(runs, values, variants, strict=True)
    ]
    return [
        label if labels.count(label) == 1 else f"{label} ({_apart(label, at, labels, values)})"
        for at, label in enumerate(labels)
    ]


def _variant(run: Run) -> str:
    """Name of the variant of the suite that a run belongs to."""
    suite = run.environment.get("suite")
    return str(suite.get("variant") or "") if isinstance(suite, Mapping) else ""


def _described(run: Run, value: Values, others: Sequence[Values]) -> str:
    """Name the method with the options that somebody wrote, and what else is not as in the first.

    Options that a plugin has by default say nothing, and neither do those of a fusion that differs
    by name already.
    """
    origins = run.environment.get("origins") or {}
    same_method = [o for o in others if o.get("method.name") == value.get("method.name")]
    contested = set(differing_keys(same_method))
    options = [
        key
        for key in value
        if key.startswith("method.")
        and key != "method.name"
        and (key in contested or origins.get(key, "default") != "default")
    ]
    first, rest = others[0], []
    for key in differing_keys([first, value]):
        owner = key.rpartition(".")[0]
        is_told = first.get(f"{owner}.name") != value.get(f"{owner}.name") and "name" not in key
        if not key.startswith("method") and key != SEED_KEY and not is_told:
            rest.append(key)
    shown = [_pair(key, value) for key in (*options[:_MAX_OPTIONS], *rest)]
    return " ".join([run.method, *shown])


def _apart(label: str, at: int, labels: Sequence[str], values: Sequence[Values]) -> str:
    """Tell groups of one name apart by everything in which they differ."""
    same = [values[index] for index, other in enumerate(labels) if other == label]
    keys = [key for key in differing_keys(same) if key != SEED_KEY]
    return ", ".join(f"{key}={_short(values[at].get(key))}" for key in keys)


def _pair(key: str, value: Values) -> str:
    owner, _, name = key.rpartition(".")
    return f"{owner.rpartition('.')[2] if name == 'name' else name}={_short(value.get(key))}"


def _short(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return ",".join(map(_short, value))
    return "unset" if value is None else str(value)
