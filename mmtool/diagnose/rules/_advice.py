"""What to try next, as lines to paste, chosen by what the recipe already does."""

from __future__ import annotations

import shlex
from pathlib import Path

from mmtool import registry
from mmtool.diagnose.load import Run

ADDITIVE_FUSIONS = ("concat", "sum")
SCALING_METHODS = ("ogm", "ogm_ge", "agm", "opm", "pmr")
FOR_ADDITIVE = ("ogm", "ogm_ge", "agm", "mmpareto", "gradient_blending", "mla")
FOR_ANY_FUSION = ("mmpareto", "gradient_blending", "mla", "agm", "ogm")
FOR_UNUSED_FEATURES = ("mmcosine",)


def recipe_argument(run: Run) -> str:
    """Give the recipe of the run as an argument of `mmtool train`."""
    recipe = run.path / "resolved.toml"
    if not recipe.is_file():
        return "RECIPE"
    return shlex.quote(_shown(recipe))


def run_argument(run: Run) -> str:
    """Give the run directory as an argument of `mmtool diagnose`."""
    return shlex.quote(_shown(run.path))


def _shown(path: Path) -> str:
    try:
        return str(path.relative_to(Path.cwd().resolve()))
    except ValueError:
        return str(path)


def decide_command(run: Run, modality: str) -> str:
    """Give the two commands that tell a starved modality from an uninformative one."""
    only = shlex.quote(f"data.modalities={modality}")
    return (
        f"mmtool train {recipe_argument(run)} -s {only} -s method=none\n"
        f"mmtool diagnose {run_argument(run)} runs/latest"
    )


def _first_known(preferred: tuple[str, ...], other_than: str) -> str | None:
    known = registry.names("methods")
    return next((name for name in preferred if name in known and name != other_than), None)


def balance_method(run: Run) -> str:
    """Give a balancing method that suits the fusion and is not the one already in use."""
    additive = not run.fusion or run.fusion in ADDITIVE_FUSIONS
    preferred = FOR_ADDITIVE if additive else FOR_ANY_FUSION
    return _first_known(preferred, run.method) or preferred[0]


def train_longer_encoder(run: Run) -> str:
    """Advise on an encoder that stopped learning before it was done."""
    method = balance_method(run)
    lines = [f"mmtool train {recipe_argument(run)} -s method={method}"]
    optimizer = str(run.option("train", "optimizer") or "")
    if method in SCALING_METHODS and optimizer.startswith("adam"):
        lines.append(
            f"# {optimizer} largely cancels a gradient scale: add -s train.optimizer=sgd, "
            f"or the method's own option that scales the update (mmtool list methods {method})"
        )
    if run.method != "none":
        lines.append(f"# {run.method} is already on and has not removed the imbalance")
    lines.append("# start at the method's defaults and compare over three seeds: --seeds 0,1,2")
    return "\n".join(lines)


def use_the_features(run: Run, modality: str) -> str:
    """Advise on features that are decodable while the fused head ignores them."""
    cosine = _first_known(FOR_UNUSED_FEATURES, run.method)
    if cosine:
        return (
            f"the {modality} encoder has learnt; the fused head ignores it. Bring the features to "
            f"one scale before slowing encoders down:\n"
            f"mmtool train {recipe_argument(run)} -s method={cosine}"
        )
    return (
        f"the {modality} encoder has learnt; the fused head ignores it, often because its features "
        f"are on a smaller scale. Try:\n{train_longer_encoder(run)}"
    )
