"""Reading the run log's tables: rows as plain dictionaries, and which columns hold anything."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd

if TYPE_CHECKING:
    from mmtool.runlog.reader import RunTables

Row = Mapping[str, Any]


def rows(frame: pd.DataFrame, **equals: object) -> list[dict[str, Any]]:
    """Give the rows whose columns equal these values; a missing number is None."""
    for column, value in equals.items():
        if column not in frame.columns:
            return []
        frame = frame[frame[column] == value]
    records = frame.to_dict(orient="records")
    return [{str(k): _value(v) for k, v in record.items()} for record in records]


def _value(value: Any) -> Any:
    if isinstance(value, list | tuple | dict):
        return value
    return None if value is None or value != value else value


def number(row: Row, key: str) -> float | None:
    """Give one cell as a float, or None when it is absent."""
    value = row.get(key)
    return None if value is None else float(value)


def has(frame: pd.DataFrame, column: str) -> bool:
    """Tell whether a column exists and holds at least one value."""
    return column in frame.columns and bool(frame[column].notna().any())


def missing(tables: RunTables, needs: tuple[str, ...]) -> tuple[str, ...]:
    """Give those of the needed `table.column` names that this run does not have.

    Of columns with "|" between them one is enough.
    """
    absent = []
    for need in needs:
        table, _, columns = need.partition(".")
        frame = getattr(tables, table, None)
        if not isinstance(frame, pd.DataFrame) or not any(
            has(frame, column) for column in columns.split("|")
        ):
            absent.append(need)
    return tuple(absent)
