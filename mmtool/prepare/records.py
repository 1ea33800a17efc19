"""A table of a release whose first row names the columns, read by these names."""

from collections.abc import Sequence
from pathlib import Path

from mmtool.errors import SourceError
from mmtool.prepare.table import line_error, read_rows


def read_records(path: Path, columns: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
    """Give the cells by column of every row with its line number; further columns are given too.

    Encodings and line ends are those that `read_lines` takes. A missing column is refused.
    """
    rows = read_rows(path)
    if not rows:
        raise SourceError(
            f"{path.name} is empty", where=str(path), fix="take it from the release again"
        )
    line, header = rows[0]
    if lacking := [name for name in columns if name not in header]:
        what = f"{path.name} has no column {', '.join(lacking)}"
        fix = f"name the columns in the first line: {','.join(columns)}"
        raise line_error(path, line, what, fix, f"it has {', '.join(header)}")
    found = []
    for line, cells in rows[1:]:
        if len(cells) != len(header):
            what = f"line {line} has {len(cells)} cells, the header {len(header)}"
            raise line_error(path, line, what, "take this file from the release again")
        found.append((line, dict(zip(header, cells, strict=True))))
    return found
