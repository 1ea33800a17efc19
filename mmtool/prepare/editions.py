"""Which layout of a release lies in a folder, and which dataset a wrong folder resembles."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeAlias

from mmtool.errors import SourceError
from mmtool.prepare.files import is_junk

Editions: TypeAlias = Mapping[str, Sequence[str]]
_DEEPEST = 2
_MOST_FOLDERS = 200
_NUM_SHOWN = 8


@dataclass(frozen=True, slots=True)
class Found:
    """The folder in which an edition of a release lies."""

    root: Path
    edition: str


def edition_of(root: Path, editions: Editions) -> str:
    """Name the first edition all of whose markers exist under a folder; "" where none does."""
    for name, markers in editions.items():
        if all(_exists(root, marker) for marker in markers):
            return name
    return ""


def locate(root: Path, editions: Editions) -> Found | None:
    """Find an edition at a folder or up to two folders below it, as archives unpack."""
    for folder in _folders(root):
        if edition := edition_of(folder, editions):
            return Found(folder, edition)
    return None


def likeness(root: Path, editions: Editions) -> float:
    """Give the largest share of an edition's markers that exist at a folder or below it."""
    best = 0.0
    for folder in _folders(root):
        for markers in editions.values():
            best = max(best, sum(_exists(folder, m) for m in markers) / max(1, len(markers)))
    return best


def not_found(
    root: Path, name: str, editions: Editions, others: Mapping[str, Editions]
) -> SourceError:
    """Give the error for a folder that holds no edition: what was looked for, what is there."""
    wanted = "; ".join(f"{edition}: {', '.join(markers)}" for edition, markers in editions.items())
    lacking = _closest_gap(root, editions)
    whole = [other for other, layouts in others.items() if other != name and locate(root, layouts)]
    why = [f"looked for {wanted}", f"found {_content(root)}"]
    if lacking:
        why.append(f"it resembles an incomplete {name}: {', '.join(lacking)} missing")
    if whole:
        why.append(f"it resembles {whole[0]}")
    fix = f"complete the release in {root}" if lacking else "name the folder of the raw release"
    if whole and not lacking:
        fix = f"mmtool prepare {whole[0]} --source {root}"
    return SourceError(
        f"this is not the {name} release", where=str(root), why="; ".join(why), fix=fix
    )


def _closest_gap(root: Path, editions: Editions) -> list[str]:
    """Give the markers that the nearest edition lacks, if it has at least one of them."""
    best: tuple[float, list[str]] = (0.0, [])
    for folder in _folders(root):
        for markers in editions.values():
            lacking = [marker for marker in markers if not _exists(folder, marker)]
            share = 1 - len(lacking) / max(1, len(markers))
            if share > best[0]:
                best = (share, lacking)
    return best[1]


def _exists(folder: Path, marker: str) -> bool:
    return next(_visible(folder.glob(marker)), None) is not None


def _visible(paths: Iterable[Path]) -> Iterator[Path]:
    return (path for path in paths if not is_junk(path.name))


def _folders(root: Path) -> Iterator[Path]:
    """Walk a folder, then what it holds, then what those hold; stops early in large trees."""
    yield root
    level = [root]
    for _ in range(_DEEPEST):
        below = (
            [
                path
                for folder in level
                for path in sorted(islice(_visible(folder.iterdir()), _MOST_FOLDERS))
                if path.is_dir()
            ]
            if all(folder.is_dir() for folder in level)
            else []
        )
        yield from below
        level = below[:_MOST_FOLDERS]


def _content(root: Path) -> str:
    if not root.is_dir():
        return f"a file, {root.name}"
    names = sorted(
        f"{path.name}/" if path.is_dir() else path.name
        for path in islice(_visible(root.iterdir()), 10_000)
    )
    shown = ", ".join(names[:_NUM_SHOWN])
    more = f" and {len(names) - _NUM_SHOWN:,} more" if len(names) > _NUM_SHOWN else ""
    return f"{shown}{more}" if names else "an empty folder"
