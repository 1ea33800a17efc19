"""Steps whose loss or gradient was not finite: which samples, loss terms and modalities it was.

Good steps pay nothing: a step leaves references to what it has computed anyway, and those of a bad
one are looked at when the step metrics are flushed.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmtool.engine.evidence import Evidence
from mmtool.engine.job import Job
from mmtool.errors import NotFinite
from mmtool.text import plural

_MOST_SAMPLES = 8


def explain(job: Job, evidence: Evidence, record: Mapping[str, Any]) -> dict[str, Any]:
    """Give what was not finite in a bad step; every rank must call it for the same steps."""
    terms = sorted(record["terms"])
    rows, is_bad_term = _bad_rows(evidence, terms)
    in_store = _bad_in_store(job, rows)
    found = np.zeros((job.ranks.world, _MOST_SAMPLES + len(terms) + len(in_store)), dtype=np.int64)
    own = found[job.ranks.rank]
    own[: len(rows)] = np.asarray(rows, dtype=np.int64) + 1
    own[_MOST_SAMPLES:] = [*is_bad_term, *in_store]
    everywhere = job.ranks.sum_(torch.from_numpy(found), "nonfinite").numpy()
    flags = (everywhere[:, _MOST_SAMPLES:].sum(axis=0) > 0).tolist()
    samples = everywhere[:, :_MOST_SAMPLES]
    modalities = job.dataset.modalities
    return {
        "samples": job.dataset.store.index.ids(samples[samples > 0] - 1)[:_MOST_SAMPLES],
        "terms": [name for name, bad in zip(terms, flags, strict=False) if bad],
        "modalities": [m for m in modalities if _is_bad(evidence.features.get(m))],
        "stored": [m for m, bad in zip(modalities, flags[len(terms) :], strict=True) if bad],
        "groups": [m for m, row in record["m"].items() if not np.isfinite(row.get("gnorm", 0.0))],
    }


def _bad_rows(evidence: Evidence, names: Sequence[str]) -> tuple[list[int], list[bool]]:
    """Give the rows of this rank with a loss that is not finite, and which terms were not."""
    rows: list[int] = []
    is_bad = dict.fromkeys(names, False)
    for index, terms in evidence.losses:
        for name, term in terms.items():
            bad = ~torch.isfinite(term)
            is_bad[name] = is_bad.get(name, False) or bool(bad.any())
            if term.dim():
                rows += index[bad].tolist()
    return sorted(set(rows))[:_MOST_SAMPLES], [is_bad[name] for name in names]


def _bad_in_store(job: Job, rows: Sequence[int]) -> list[bool]:
    """Tell by modality whether the stored values of these rows are not finite themselves."""
    wanted = np.asarray(rows, dtype=np.int64)
    return [
        bool(rows)
        and not np.isfinite(job.dataset.store.gather(job.dataset.columns[m], wanted)[0]).all()
        for m in job.dataset.modalities
    ]


def _is_bad(value: Tensor | None) -> bool:
    return value is not None and not bool(torch.isfinite(value).all())


def in_words(found: Mapping[str, Any]) -> str:
    """Say it in one line."""
    parts = []
    if found["terms"]:
        parts.append(f"the loss {' and '.join(map(repr, found['terms']))}")
    if found["modalities"]:
        parts.append(f"the features of {' and '.join(found['modalities'])}")
    if not parts:
        groups = " and ".join(found["groups"]) or "the whole model"
        parts.append(f"the gradient of {groups}, while every loss was finite,")
    samples = found["samples"]
    of = f" of {plural(len(samples), 'sample')} {', '.join(samples)}" if samples else ""
    stored = f"; the stored values of {' and '.join(found['stored'])} are not"
    return f"{' and '.join(parts)}{of} not finite{stored if found['stored'] else ''}"


def stopped(step: int, count: int, found: Mapping[str, Any], *, on_nonfinite: str) -> NotFinite:
    """Give the error of a run that diverged."""
    times = "" if count == 1 else f", the last of {count} steps in a row"
    if found["stored"]:
        fix = "repair or leave out those samples and prepare the dataset again"
    else:
        fix = "lower train.lr, set train.clip_norm = 1.0, or use train.precision = fp32"
    if on_nonfinite == "stop":
        fix += "; -s train.on_nonfinite=skip goes on without such steps"
    return NotFinite(
        f"step {step} was not finite{times}: {in_words(found)}",
        why="the weights were left as they were before it",
        fix=fix,
    )
