"""The [suite] table of a recipe file: variants of its recipe that are trained and compared.

    [suite]
    seeds = [0, 1, 2]

    [suite.variants.ogm]
    method = {name = "ogm", alpha = 0.8}

    [suite.variants."mla, shared head"]
    method = "mla"
    model.fusion = "shared"

A variant is a recipe that extends the rest of the file: it replaces keys, and where it names
another plugin, the options of the plugin it replaces are dropped.
"""

from typing import Annotated, Any

from pydantic import Field, ValidationError

from mmtool.config.layers import Source
from mmtool.config.plain import Complaint, complaints
from mmtool.config.schema import Section, as_tuple
from mmtool.config.shape import Tree, keys_at, no_options
from mmtool.errors import UnknownName
from mmtool.text import suggestion

KEY = "suite"
_VARIANT_RANK = -1
_Seeds = tuple[Annotated[int, Field(ge=0)], ...]


class Published(Section):
    """A number from a paper, printed beside the suite's own."""

    what: str
    """The method, in the words of the source."""
    score: str
    """The number as printed there."""
    source: str
    """Where it stands."""
    note: str = ""
    """What is not as in this suite, or how the number was confirmed."""


class SuiteConfig(Section):
    """Variants of a recipe that are trained with several seeds and compared."""

    variants: Annotated[dict[str, dict[str, Any]], Field(min_length=1)]
    """What each variant changes, by its name: {method = {name = "ogm", alpha = 0.8}}."""
    seeds: Annotated[_Seeds, as_tuple, Field(min_length=1)] = (0, 1, 2)
    """Seeds with which every variant is trained."""
    published: Annotated[tuple[Published, ...], as_tuple] = ()
    """Numbers from papers."""


def read_suite_table(source: Source) -> tuple[SuiteConfig | None, list[Complaint]]:
    """Give the suite that a file describes, if any, and everything wrong with its table."""
    if KEY not in source.tree:
        return None, []
    written: Any = source.tree[KEY]
    try:
        suite = SuiteConfig.model_validate(written)
    except ValidationError as error:
        found = complaints(error, written, lambda path: keys_at(path, no_options, SuiteConfig))
        return None, [_inside(complaint) for complaint in found]
    return suite, [
        *_repeated(suite),
        *(complaint for name in suite.variants for complaint in _refused(source, name)),
    ]


def _inside(complaint: Complaint) -> Complaint:
    path = (KEY, *complaint.path)
    is_missing, about_key = complaint.is_missing, complaint.about_key or complaint.is_missing
    return Complaint(path, complaint.what, complaint.fix, is_missing, about_key)


def _repeated(suite: SuiteConfig) -> list[Complaint]:
    if len(set(suite.seeds)) == len(suite.seeds):
        return []
    unique = ", ".join(map(str, dict.fromkeys(suite.seeds)))
    return [Complaint((KEY, "seeds"), "a seed is given twice", f"seeds = [{unique}]")]


def _refused(source: Source, name: str) -> list[Complaint]:
    """Refuse what a variant cannot change: the seed, and keys that are no part of a recipe."""
    tree: Tree = source.tree[KEY]["variants"][name]
    path = (KEY, "variants", name)
    found = [
        Complaint((*path, key), f"a variant has no {key!r}", "remove it", about_key=True)
        for key in ("extends", KEY)
        if key in tree
    ]
    train = tree.get("train")
    if isinstance(train, dict) and "seed" in train:
        fix = "set suite.seeds, which holds for all variants"
        what = "a variant has no seed of its own"
        found.append(Complaint((*path, "train", "seed"), what, fix, about_key=True))
    return found


def variant_source(source: Source, suite: SuiteConfig, name: str) -> Source:
    """Give a variant as one more layer, whose keys stand in the file of the suite."""
    if name not in suite.variants:
        raise UnknownName(
            f"{source.label} has no variant {name!r}",
            why=f"it has: {', '.join(suite.variants)}",
            fix=suggestion(name, list(suite.variants), otherwise="name one of these"),
        )
    prefix = (KEY, "variants", name)
    places = {
        path[len(prefix) :]: place
        for path, place in source.places.items()
        if path[: len(prefix)] == prefix and len(path) > len(prefix)
    }
    tree = source.tree[KEY]["variants"][name]
    return Source(source.path, source.label, _VARIANT_RANK, source.text, tree, places)
