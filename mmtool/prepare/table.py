"""A CSV file that a person wrote: read strictly, with the line of everything that is wrong."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmtool.errors import SourceError
from mmtool.text import suggestion


@dataclass(frozen=True, slots=True)
class TableRow:
    """One line with its cells by column, stripped of blanks at both ends."""

    line: int
    cells: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Table:
    """A CSV file with a header."""

    path: Path
    header: Sequence[str]
    header_line: int
    rows: Sequence[TableRow]

    def error(self, line: int, what: str, fix: str, why: str = "") -> SourceError:
        """Give the error that points at a line of this file."""
        return line_error(self.path, line, what, fix, why)

    def refuse_repeated_ids(self) -> None:
        """Refuse an `id` that is listed twice, above all in two of the column `split`."""
        seen: dict[str, TableRow] = {}
        for row in self.rows:
            first = seen.setdefault(row.cells["id"], row)
            if first is row:
                continue
            what = f"id {row.cells['id']!r} is on line {first.line} and on line {row.line}"
            one, two = first.cells.get("split"), row.cells.get("split")
            if one != two:
                why = "a model would be tested on what it was trained on"
                what = f"{what}, in two splits: {one} and {two}"
                raise self.error(row.line, what, "keep one of the two lines", why)
            raise self.error(row.line, what, "give every clip an id of its own")


def line_error(path: Path, line: int, what: str, fix: str, why: str = "") -> SourceError:
    """Give the error that points at a line of a file."""
    return SourceError(what, where=f"{path}:{line}", why=why, fix=fix)


def read_table(path: Path) -> Table:
    """Read a CSV file in UTF-8 whose first line names the columns; blank lines do not count."""
    lines = _lines(path)
    header_line, names = lines[0]
    header = [name.strip() for name in names]
    for name in header:
        if not name or header.count(name) > 1:
            what = f"column {name!r} is named twice" if name else "a column has no name"
            raise line_error(path, header_line, what, "give every column a name of its own")
    rows = []
    for line, cells in lines[1:]:
        if len(cells) != len(header):
            what = f"line {line} has {len(cells)} cells, the header {len(header)}"
            raise line_error(path, line, what, 'put cells that hold commas in quotes: "a, b"')
        stripped = {name: cell.strip() for name, cell in zip(header, cells, strict=True)}
        rows.append(TableRow(line, stripped))
    if not rows:
        raise line_error(path, header_line, "the CSV lists no clips", "add one line per clip")
    return Table(path, header, header_line, rows)


def read_lines(path: Path) -> list[tuple[int, str]]:
    """Give the lines of a list of a release with their numbers, without ends and blank lines.

    Releases come as UTF-8 with or without a mark, or as cp1252; line ends of any system.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise SourceError(
            f"{path.name} is missing", where=str(path), fix="complete the release"
        ) from error
    if content.startswith(b"version https://git-lfs"):
        raise SourceError(
            f"{path.name} is a git-lfs pointer, not the file itself",
            where=str(path),
            fix=f"git -C {path.parent} lfs pull",
        )
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("cp1252", "replace")
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]


def read_rows(
    path: Path, delimiter: str = ",", *, quoted: bool = True, num_cells: int | None = None
) -> list[tuple[int, list[str]]]:
    """Give the rows of a table of a release, header included, each with its line number.

    `quoted` rows may hold the delimiter, and line ends, inside of double quotes. With `num_cells` a
    row of another width is refused with its line.
    """
    numbered = read_lines(path)
    if quoted:
        # The reader counts the lines it is given; blank ones are not among them.
        reader = csv.reader((line + "\n" for _, line in numbered), delimiter=delimiter)
        rows = [(numbered[reader.line_num - 1][0], cells) for cells in reader]
    else:
        rows = [(number, line.split(delimiter)) for number, line in numbered]
    for number, cells in rows:
        if num_cells is not None and len(cells) != num_cells:
            what = f"line {number} has {len(cells)} cells instead of {num_cells}"
            raise line_error(path, number, what, "take this file from the release again")
    return [(number, [cell.strip() for cell in cells]) for number, cells in rows]


def label_of(name: str, classes: Sequence[str], where: str) -> int:
    """Give the label of a class name, or the error that names the closest ones."""
    try:
        return classes.index(name)
    except ValueError:
        raise SourceError(
            f"there is no class {name!r}",
            where=where,
            why=f"{len(classes)} classes are known",
            fix=suggestion(name, classes, otherwise="correct this line"),
        ) from None


def _lines(path: Path) -> list[tuple[int, list[str]]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        why = f"byte {error.object[error.start]:#04x} does not belong there"
        fix = "save it as UTF-8 (in a spreadsheet: 'CSV UTF-8')"
        raise line_error(path, line, "the CSV is not UTF-8 text", fix, why) from error
    # Split at line ends only: str.splitlines would also break at separators inside of cells.
    reader = csv.reader(text.replace("\r\n", "\n").split("\n"), strict=True)
    found = []
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                found.append((reader.line_num, cells))
    except csv.Error as error:
        what = f"the CSV is broken: {error}"
        raise line_error(path, reader.line_num, what, "close the quotes") from error
    if not found:
        raise line_error(path, 1, "the CSV is empty", "start it with a header: id,label,audio")
    return found
