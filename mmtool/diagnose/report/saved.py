"""A report that was saved as JSON, read again so that it can be drawn without its run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mmtool.diagnose.finding import REPORT_SCHEMA
from mmtool.errors import RequestError

_MARK = f'"{REPORT_SCHEMA.partition("/")[0]}/'.encode()
_LOOK_BYTES = 65_536
_PARTS = {
    "run": str, "verdict": str, "findings": list, "metrics": dict, "system": dict, "limits": list,
    "meta": dict,
}  # fmt: skip


def is_saved(path: Path) -> bool:
    """Tell whether a file is a saved report; a trace or the state of a trainer is JSON too.

    The schema's name stands at one of the ends, whether keys are sorted or not.
    """
    if path.suffix != ".json" or not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            begin = file.read(_LOOK_BYTES)
            file.seek(max(path.stat().st_size - _LOOK_BYTES, 0))
            return _MARK in begin or _MARK in file.read(_LOOK_BYTES)
    except OSError:
        return False


def read_saved(path: Path) -> dict[str, Any]:
    """Give a saved report as plain data."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _refused(path, f"it is no JSON: {error}") from error
    schema = found.get("schema") if isinstance(found, dict) else None
    if schema != REPORT_SCHEMA:
        raise _refused(path, f"its schema is {schema!r}, and this mmtool reads {REPORT_SCHEMA!r}")
    for name, kind in _PARTS.items():
        if not isinstance(found.get(name), kind):
            raise _refused(path, f"its part {name!r} is missing or of another form")
    found["findings"] = [f for f in found["findings"] if isinstance(f, dict) and "rule" in f]
    return {key: value for key, value in found.items() if key != "ok"}


def _refused(path: Path, why: str) -> RequestError:
    return RequestError(
        f"{path.name} is not a saved report",
        where=str(path),
        why=why,
        fix="mmtool diagnose RUN --json > report.json",
    )
