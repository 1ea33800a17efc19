"""Arrays of samples in one .npz file with a head of JSON: written whole, damaged ones refused."""

import io
import json
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from mmtool.errors import RunDirectoryError
from mmtool.runlog.whole import replace_whole

Array: TypeAlias = NDArray[Any]
Found = TypeVar("Found")
_UNREADABLE = (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile)


def write_npz(
    path: Path, *, schema: str, head: Mapping[str, Any], arrays: Mapping[str, Array]
) -> Path:
    """Write head and arrays; a reader sees the whole file or none."""
    packed = io.BytesIO()
    text = json.dumps({"schema": schema, **head}, ensure_ascii=False)
    named: dict[str, Any] = {"head": np.array(text), **arrays}
    np.savez_compressed(packed, **named)
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_whole(path, packed.getvalue())
    return path


def read_npz(
    path: Path,
    *,
    schema: str,
    what: str,
    fix: str,
    build: Callable[[dict[str, Any], dict[str, Array]], Found],
) -> Found | None:
    """Read head and arrays and build something of them; None where there is no file.

    What is damaged, newer, or refused by `build` with a ValueError is an error that says `what`
    cannot be read and gives the `fix`.
    """
    if not path.is_file():
        return None
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        head = json.loads(str(arrays.pop("head")))
        if str(head["schema"]).partition(".")[0] != schema.partition(".")[0]:
            raise ValueError(f"its schema is {head['schema']}, this mmtool reads {schema}")
        return build(head, arrays)
    except _UNREADABLE as error:
        raise RunDirectoryError(f"{what} cannot be read: {error}", where=str(path), fix=fix) from (
            error
        )
