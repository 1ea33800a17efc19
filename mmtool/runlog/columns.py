"""A table that grows row by row in the memory of its numbers."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_COLUMNS = 2000
"""A log with more names than this has lost its schema; further names are left out."""
_NOTHING = float("nan")


class Columns:
    """Columns of numbers, or of whatever else turns up in one; a missing number is NaN."""

    def __init__(self, text: frozenset[str] = frozenset()) -> None:
        self._text = text
        self._columns: dict[str, array[float] | list[Any]] = {}
        self._num_rows = 0
        self.num_left_out = 0
        """Values whose column would have been one too many."""

    def __len__(self) -> int:
        return self._num_rows

    @property
    def names(self) -> list[str]:
        """Names in the order in which they turned up."""
        return list(self._columns)

    def add(self, record: Mapping[str, Any]) -> None:
        """Append a row."""
        row = self._num_rows
        self._num_rows += 1
        for name, value in record.items():
            column = self._columns.get(name)
            if column is None:
                column = self._new(name)
                if column is None:
                    self.num_left_out += 1
                    continue
            if len(column) != row:
                _pad(column, row)
            try:
                column.append(value)
            except (TypeError, OverflowError):
                self._append_other(name, value)

    def numbers(self, name: str) -> NDArray[np.float64]:
        """Give a column of numbers."""
        column = self._columns.get(name, array("d"))
        _pad(column, self._num_rows)
        return np.array(column, dtype=np.float64)

    def values(self, name: str) -> NDArray[Any]:
        """Give a column as numbers if it holds nothing else, else as objects."""
        column = self._columns.get(name, array("d"))
        _pad(column, self._num_rows)
        if isinstance(column, array):
            return np.array(column, dtype=np.float64)
        found = np.empty(len(column), dtype=object)
        found[:] = column
        return found

    def keep(self, rows: NDArray[np.intp]) -> None:
        """Keep these rows in this order."""
        for name in self._columns:
            values = self.values(name)[rows]
            is_text = isinstance(self._columns[name], list)
            self._columns[name] = values.tolist() if is_text else array("d", values.tobytes())
        self._num_rows = len(rows)

    def replace(self, name: str, numbers: NDArray[Any]) -> None:
        """Put other numbers into a column."""
        self._columns[name] = array("d", numbers.astype(np.float64).tobytes())

    def _new(self, name: str) -> array[float] | list[Any] | None:
        if len(self._columns) >= MAX_COLUMNS:
            return None
        column: array[float] | list[Any] = [] if name in self._text else array("d")
        self._columns[name] = column
        return column

    def _append_other(self, name: str, value: Any) -> None:
        """Take a value that is no float: a column of numbers becomes one of objects."""
        column = self._columns[name]
        if value is None or isinstance(value, int):  # a whole number longer than a float can be
            column.append(_NOTHING)
            return
        objects: list[Any] = [None if number != number else number for number in column]
        objects.append(value)
        self._columns[name] = objects


def _pad(column: array[float] | list[Any], size: int) -> None:
    lacking = size - len(column)
    if isinstance(column, list):
        column.extend([None] * lacking)
    else:
        column.extend([_NOTHING] * lacking)
