"""Pickles of a release as a preparer reads them: what is wrong with one is told to the user."""

from pathlib import Path
from typing import Any

from mmtool.errors import SourceError
from mmtool.media import pickles
from mmtool.media.failure import MediaError


def read_pickle(path: Path, *, member: str | None = None, keep: bool = True) -> Any:
    """Give what a pickle of a release holds, arrays and plain values alone.

    It is kept in memory for the next caller; `keep=False` spares that for large ones.
    """
    try:
        return pickles.read_pickle(path, member=member, keep=keep)
    except MediaError as error:
        raise SourceError(
            f"{path.name} is not a pickle that can be read",
            where=str(path),
            why=error.message,
            fix=f"take {path.name} from the release again",
        ) from error
