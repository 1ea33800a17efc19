"""Runs that another run builds on, read from its recipe: a model of each modality alone.

    [method]
    name = "umt"
    teachers = {audio = "auto", image = "runs/20260101-120000_image_only_1a2b"}

A method whose options have `teachers` is trained after these models. "auto", which also stands for
modalities that are not named, is the same recipe with this modality alone and without balancing.
A method that can do without them has a switch `pretrained` beside it: without it there are none,
with it the encoders begin with the weights of these models.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from mmtool.config.schema import ModelConfig, Plugin, Recipe
from mmtool.errors import RequestError
from mmtool.text import suggestion
from mmtool.types import Modality

AUTO = "auto"
TEACHERS, PRETRAINED = "teachers", "pretrained"


@dataclass(frozen=True, slots=True)
class Link:
    """A model of one modality that has to be there before a run begins."""

    modality: Modality
    source: str
    """`auto`, a run, or a file that `mmtool export` wrote."""
    recipe: Recipe
    """What `auto` trains."""


def links_of(recipe: Recipe, modalities: Sequence[Modality]) -> tuple[Link, ...]:
    """Give the models that a recipe builds on, in the order of modalities; most have none."""
    options = recipe.method.options
    named = options.get(TEACHERS)
    if named is None or not options.get(PRETRAINED, True):
        return ()
    for name in named:
        if name not in modalities:
            raise RequestError(
                f"there is no modality {name!r} to teach",
                where=f"method.{TEACHERS}",
                why=f"the model has: {', '.join(modalities)}",
                fix=suggestion(name, modalities, otherwise=f"remove {name} from method.{TEACHERS}"),
            )
    return tuple(Link(m, named.get(m, AUTO), alone(recipe, m)) for m in modalities)


def starts_from_links(recipe: Recipe) -> bool:
    """Say whether encoders begin with the weights of the linked models."""
    options = recipe.method.options
    return TEACHERS in options and bool(options.get(PRETRAINED, False))


def alone(recipe: Recipe, modality: Modality) -> Recipe:
    """Give the recipe of one modality alone: same data, encoder, optimisation and seed."""
    data, model = recipe.data, recipe.model
    # The model says more than a complaint about the missing key would (see `models.build`).
    encoders = {m: plugin for m, plugin in model.encoders.items() if m == modality}
    return recipe.model_copy(
        update={
            "data": data.model_copy(
                update={
                    "modalities": (modality,),
                    "columns": {m: c for m, c in data.columns.items() if m == modality},
                    "augment": {m: a for m, a in data.augment.items() if m == modality},
                }
            ),
            "model": ModelConfig(fusion=Plugin(name="concat"), encoders=encoders),
            "method": Plugin(name="none"),
            "log": recipe.log.model_copy(update={"probes": True}),
        }
    )
