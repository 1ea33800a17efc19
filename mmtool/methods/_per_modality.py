"""An option with one value for all modalities and exceptions by name."""

from collections.abc import Mapping, Sequence

from mmtool.errors import RequestError
from mmtool.text import suggestion
from mmtool.types import Modality


def values_of(
    default: float, exceptions: Mapping[str, float], modalities: Sequence[Modality], *, where: str
) -> list[float]:
    """Give one value per modality; `where` is the recipe key of the exceptions."""
    for name in exceptions:
        if name not in modalities:
            raise RequestError(
                f"there is no modality {name!r}",
                where=where,
                why=f"the model has: {', '.join(modalities)}",
                fix=suggestion(name, modalities, otherwise=f"remove {name} from {where}"),
            )
    return [exceptions.get(m, default) for m in modalities]
