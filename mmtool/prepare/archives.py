"""Files of a release and the numbers in them, whether they lie in a folder or in a zip archive."""

import warnings
import zipfile
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mmtool.errors import SourceError
from mmtool.media.container import read_bytes, where
from mmtool.media.failure import MediaError
from mmtool.media.spec import Source
from mmtool.prepare.files import is_junk, walk


def open_tree(root: Path, *patterns: str) -> dict[str, Source]:
    """Give the files below a folder that match, else those in the zip archives that lie in it.

    A pattern is compared with the end of a file's path, folder by folder, and that end is the name
    in the result: `train/y_train.txt`, `Protocol/*.dat`. Names come sorted; of several files with
    the same end the first in the order of paths is taken.
    """
    found = _matching(_files(root), patterns)
    return dict(sorted((found or _matching(_members(root), patterns)).items()))


def read_content(source: Source) -> bytes:
    """Give the whole content of a file or member; what cannot be read is told to the user."""
    try:
        return read_bytes(source)
    except MediaError as error:
        raise SourceError(
            "a file of the release cannot be read",
            where=where(source),
            why=error.message,
            fix=f"take {source.path.name} from the release again",
        ) from error


def read_numbers(
    source: Source, num_columns: int, *, delimiter: str = " ", header_lines: int = 0
) -> NDArray[np.float64]:
    """Give a table of numbers [row, column]; words such as `NaN` are NaN, blanks separate too.

    A row of another width and anything that is no number is refused with its line.
    """
    content = read_content(source)
    for _ in range(header_lines):
        content = content[content.find(b"\n") + 1 :] if b"\n" in content else b""
    if delimiter != " ":
        content = content.replace(delimiter.encode(), b" ")
    content = content.rstrip()
    if not content:
        raise _unreadable(source, header_lines + 1, "the table has no rows")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", DeprecationWarning)
            numbers = np.fromstring(content.decode("ascii"), np.float64, sep=" ")
    except (ValueError, DeprecationWarning):
        numbers = np.empty(0)
    num_lines = content.count(b"\n") + 1
    if not len(numbers) or len(numbers) != num_lines * num_columns or b"\n\n" in content:
        numbers = np.array(list(_rows(source, content, num_columns, header_lines)))
    return numbers.reshape(-1, num_columns)


def _rows(
    source: Source, content: bytes, num_columns: int, header_lines: int
) -> Iterator[list[float]]:
    """Give the rows one by one, to name the line of the first that is wrong."""
    for number, line in enumerate(content.split(b"\n"), start=header_lines + 1):
        cells = line.split()
        if cells and len(cells) != num_columns:
            what = f"line {number} has {len(cells)} columns instead of {num_columns}"
            raise _unreadable(source, number, what)
        try:
            row = [float(cell) for cell in cells]
        except ValueError as error:
            what = f"line {number} is not numbers alone ({error})"
            raise _unreadable(source, number, what) from error
        if row:
            yield row


def _unreadable(source: Source, line: int, what: str) -> SourceError:
    return SourceError(
        what,
        where=f"{where(source)}:{line}",
        fix=f"take {source.path.name} from the release again",
    )


def _matching(files: Iterator[tuple[str, Source]], patterns: tuple[str, ...]) -> dict[str, Source]:
    wanted = [pattern.split("/") for pattern in patterns]
    found: dict[str, Source] = {}
    for path, source in files:
        parts = path.split("/")
        for pattern in wanted:
            end = parts[-len(pattern) :]
            if len(end) == len(pattern) and all(map(fnmatchcase, end, pattern)):
                found.setdefault("/".join(end), source)
                break
    return found


def _files(root: Path) -> Iterator[tuple[str, Source]]:
    for path in walk(root):
        # Also the name of the folder itself may be part of a pattern.
        yield f"{root.name}/{path.relative_to(root).as_posix()}", Source(path)


def _members(root: Path) -> Iterator[tuple[str, Source]]:
    for archive in sorted(root.glob("*.zip")):
        if is_junk(archive.name):
            continue
        try:
            with zipfile.ZipFile(archive) as opened:
                members = sorted(opened.namelist())
        except (zipfile.BadZipFile, OSError) as error:
            raise SourceError(
                f"{archive.name} is not a whole zip archive ({error})",
                where=str(archive),
                fix="download it again",
            ) from error
        for member in members:
            if not any(map(is_junk, member.split("/"))):
                yield member, Source(archive, member=member)
