"""The best answer that is a sum over modalities, to see what the model makes of their combination.

    f_add(x_i) = sum_m E_m(x_im) - (M - 1) g,    E_m(x) = mean over samples j of f(x, x_j without m)

with g the mean of all E_m. For two modalities that is the empirical multimodally additive
projection (Hessel and Lee, 2020), exact over the samples taken; for more, the others come jointly
from one sample, so that what they say together counts as theirs. A sum of functions of single
modalities is its own projection in either case.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mmtool.engine.deep.prediction import Predictor
from mmtool.engine.deep.record import Judge, host
from mmtool.engine.evaluate import Encoded
from mmtool.engine.job import Job

_MOST_SAMPLES = 400
_MOST_FUSED = 1_000_000
_BLOCK = 4096
_SALT = 43


@dataclass(frozen=True, slots=True)
class Projection:
    """Arrays `emap.*`, and the entry `emap` of the head."""

    arrays: dict[str, np.ndarray]
    about: dict[str, object]


def project(job: Job, encoded: Encoded, judge: Judge) -> Projection | None:
    """Project the model's answers on samples that have every modality; None where it cannot be."""
    names = job.model.modalities
    if len(names) < 2:
        return None
    places = _places(encoded.present, len(names), job.recipe.train.seed)
    if len(places) < 2:
        return None
    features = {m: f[places] for m, f in encoded.own.items()}
    predict = Predictor(job)
    means = torch.stack([_conditional(predict, features, m) for m in names])
    shift = means.mean((0, 1)) * (len(names) - 1)
    added = means.sum(0) - shift
    whole = predict(features, _all_there(features))
    some = judge.at(places)
    arrays = {"emap.row": host(encoded.index[places])}
    arrays |= {f"emap.{k}": host(v) for k, v in some.marks(added, names="right gain").items()}
    full = some.marks(whole, names="right gain")
    arrays |= {f"emap.full_{k}": host(v) for k, v in full.items()}
    how = "exact" if len(names) == 2 else "additive"
    return Projection(arrays, {"modalities": list(names), "n": len(places), "how": how})


def _places(present: Tensor, num_modalities: int, seed: int) -> Tensor:
    """Choose samples that have everything, so few that all pairs can be fused; ascending."""
    whole = present.all(1).nonzero().squeeze(1)
    limit = min(_MOST_SAMPLES, int((_MOST_FUSED / num_modalities) ** 0.5))
    if len(whole) <= limit:
        return whole
    generator = np.random.Generator(np.random.Philox(key=[seed, _SALT]))
    chosen = np.sort(generator.choice(len(whole), limit, replace=False))
    return whole[torch.from_numpy(chosen).to(whole.device)]


def _all_there(features: dict[str, Tensor]) -> Tensor:
    first = next(iter(features.values()))
    return torch.ones(len(first), len(features), dtype=torch.bool, device=first.device)


def _conditional(predict: Predictor, features: dict[str, Tensor], modality: str) -> Tensor:
    """Give the mean logits of each sample's modality over the others of all samples."""
    n = len(features[modality])
    size = max(1, _BLOCK // n)
    found = []
    for start in range(0, n, size):
        block = features[modality][start : start + size]
        count = len(block)
        fused = {
            m: block.repeat_interleave(n, 0) if m == modality else f.repeat(count, 1)
            for m, f in features.items()
        }
        found.append(predict(fused, _all_there(fused)).double().view(count, n, -1).mean(1))
    return torch.cat(found)
