"""The modality to which a fusion gives a special part."""

from collections.abc import Iterable

from mmtool.errors import RequestError
from mmtool.text import suggestion
from mmtool.types import Modality, sorted_modalities


def choose_modality(wanted: str | None, known: Iterable[Modality], key: str) -> Modality:
    """Give the wanted modality, or the first by name; `key` is where the recipe names it."""
    modalities = sorted_modalities(known)
    if wanted is None:
        return modalities[0]
    if wanted in modalities:
        return wanted
    raise RequestError(
        f"there is no modality {wanted!r}",
        where=key,
        why=f"the model has: {', '.join(modalities)}",
        fix=suggestion(wanted, modalities, otherwise=f"-s {key}={modalities[0]}"),
    )
