"""Series of numbers, [time, channel], from recordings, pickles, csv and npy."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mmtool.media.container import read_bytes, where
from mmtool.media.failure import MediaError
from mmtool.media.kinds import WRITTEN, recognise
from mmtool.media.recordings import window_of
from mmtool.media.records import AnyArray, parse_npy, read_record
from mmtool.media.spec import Decoded, MediaFacts, SeriesSpec, Source
from mmtool.media.text import read_text

_MISSING_WORDS = frozenset({"", "na", "n/a", "null", "none", "?"})


@dataclass(frozen=True, slots=True)
class _Table:
    """Numbers [time, channel], and what a message needs to name one of them."""

    values: NDArray[np.float64]
    names: Sequence[str] = ()
    first_line: int = 0


def decode_series(source: Source, spec: SeriesSpec) -> Decoded:
    """Give the finite numbers of a recording, a pickle, a csv or an npy file as [time, channel]."""
    place = where(source)
    flags: list[str] = []
    rate_hz = None
    if source.read is not None:
        values, found = window_of(source, spec)
        table = _Table(values)
        rate_hz = found.rate_hz
        flags += ["unsorted-times"] if found.was_unsorted else []
    else:
        table = _joined([_read(one, spec) for one in _each(source)], place)
    values = table.values[: spec.max_steps]
    if not len(values):
        raise MediaError("too-short", f"{place}: the series has no rows")
    finite = np.isfinite(values)
    if not finite.all():
        if not spec.replace_non_finite:
            _refuse_non_finite(table, place)
        values = np.where(finite, values, 0.0)
        flags.append("replaced")
    with np.errstate(over="ignore"):
        stored = values.astype(spec.dtype)
    if not np.isfinite(stored).all():
        largest = np.abs(values).max()
        message = f"{place}: {largest:g} is too large for {spec.dtype}; scale the series"
        raise MediaError("non-finite", message)
    if (stored == stored.flat[0]).all():
        flags.append("constant")
    return Decoded(stored, MediaFacts(rate_hz=rate_hz, flags=tuple(flags)))


def _each(source: Source) -> list[Source]:
    return [source, *(replace(source, path=part, parts=()) for part in source.parts)]


def _read(source: Source, spec: SeriesSpec) -> _Table:
    place = where(source)
    if source.row is not None or source.key is not None:
        return _Table(_plane(read_record(source), place))
    kind = recognise(source, fine=(*WRITTEN, "pickle"))
    if kind == "pickle":
        return _Table(_plane(read_record(source), place))
    if kind == "npy":
        return _Table(_plane(parse_npy(read_bytes(source), place), place))
    return _Table(*parse_csv(read_text(source), place, nan_is_fine=spec.replace_non_finite))


def _joined(tables: Sequence[_Table], place: str) -> _Table:
    if len(tables) == 1:
        return tables[0]
    lengths = [len(table.values) for table in tables]
    if len(set(lengths)) > 1:
        message = f"{place}: its parts have {lengths} steps, those of one sample are equal"
        raise MediaError("decode-error", message)
    return _Table(np.concatenate([table.values for table in tables], axis=1))


def parse_csv(
    text: str, place: str, *, nan_is_fine: bool = False
) -> tuple[NDArray[np.float64], tuple[str, ...], int]:
    """Give the numbers of a table, the names in its header, and the line they begin on."""
    numbered = [
        (number, line.strip(" \r"))
        for number, line in enumerate(text.split("\n"), start=1)
        if line.strip() and not line.lstrip().startswith("#")
    ]
    if not numbered:
        raise MediaError("empty", f"{place}: the table has no rows")
    delimiter, decimal_comma = _delimiter(numbered[-1][1])
    rows = [(number, _fields(line, delimiter, decimal_comma)) for number, line in numbered]
    names: tuple[str, ...] = ()
    if any(_number(field) is None for field in rows[0][1]):
        names = tuple(rows.pop(0)[1])
    if not rows:
        raise MediaError("too-short", f"{place}: the table has a header but no rows")
    if all(len(fields) > 1 and fields[-1] == "" for _, fields in rows):
        rows = [(number, fields[:-1]) for number, fields in rows]
        names = names[: len(rows[0][1])]
    width = len(rows[0][1])
    for number, fields in rows:
        if len(fields) != width:
            message = f"{place}:{number}: {len(fields)} columns, the rows above have {width}"
            raise MediaError("decode-error", message)
    return _numbers(rows, names, place, nan_is_fine), names, rows[0][0]


def _numbers(
    rows: Sequence[tuple[int, Sequence[str]]], names: Sequence[str], place: str, nan_is_fine: bool
) -> NDArray[np.float64]:
    values = np.empty((len(rows), len(rows[0][1])))
    for index, (number, fields) in enumerate(rows):
        for column, field in enumerate(fields):
            value = _number(field)
            if value is None:
                at = f"{place}:{number}: {_column(column, names)}"
                raise MediaError("decode-error", f"{at} is {field!r}, not a number")
            if not nan_is_fine and not np.isfinite(value):
                at = f"{place}:{number}: {_column(column, names)}"
                raise MediaError("non-finite", f"{at} is {field or 'empty'!r}")
            values[index, column] = value
    return values


def _refuse_non_finite(table: _Table, place: str) -> None:
    bad = np.argwhere(~np.isfinite(table.values))
    row, column = bad[0].tolist()
    found = table.values[row, column]
    message = f"{place}: row {row + table.first_line} {_column(column, table.names)} is {found}"
    raise MediaError("non-finite", f"{message} ({len(bad):,} such values)")


def _plane(array: AnyArray, place: str) -> NDArray[np.float64]:
    if array.dtype.kind not in "fiub":
        raise MediaError("decode-error", f"{place}: holds {array.dtype}, numbers were expected")
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2:
        message = f"{place}: has {array.ndim} axes, [time] or [time, channel] was expected"
        raise MediaError("decode-error", message)
    return array.astype(np.float64)


def _delimiter(line: str) -> tuple[str | None, bool]:
    """Choose the delimiter by a data line; a comma beside `;` or a tab is a decimal comma."""
    for delimiter in (";", "\t"):
        if delimiter in line:
            return delimiter, "," in line
    return ("," if "," in line else None), False


def _fields(line: str, delimiter: str | None, decimal_comma: bool) -> list[str]:
    fields = [field.strip().strip('"') for field in line.split(delimiter)]
    return [field.replace(",", ".") for field in fields] if decimal_comma else fields


def _number(field: str) -> float | None:
    if field.lower() in _MISSING_WORDS:
        return float("nan")
    try:
        return float(field)
    except ValueError:
        return None


def _column(index: int, names: Sequence[str]) -> str:
    name = f" {names[index]!r}" if index < len(names) else ""
    return f"column {index + 1}{name}"
