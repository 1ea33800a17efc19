"""The training steps of a foreign loop: how long they took and what was said of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from mmtool.errors import RequestError

MAX_PENDING = 10
"""Steps whose numbers may stay on a device before they are fetched together and written."""


@dataclass(slots=True)
class _Step:
    number: int
    began: float
    fields: dict[str, Any]
    ms: dict[str, float]
    modalities: dict[str, dict[str, Any]] = field(default_factory=dict)


class Steps:
    """Measures one step after the other and hands each to `write`.

    A number that lies on a GPU is not asked for at once, which would make training wait for it:
    such steps are written ten at a time. On a GPU the times are those of the host.
    """

    def __init__(self, write: Callable[..., None]) -> None:
        self._write = write
        self._step: _Step | None = None
        self._early_ms: dict[str, float] = {}
        self._pending: list[dict[str, Any]] = []
        self.num_done = 0
        """Number of the last step that ended, plus one."""

    def begin(self, number: int, fields: Mapping[str, Any]) -> None:
        """Begin a step; phases measured since the last one, such as its data, belong to it."""
        early_s = sum(self._early_ms.values()) / 1000
        began = time.perf_counter() - early_s
        self._step = _Step(number, began, {k: v for k, v in fields.items() if v is not None}, {})
        self._step.ms, self._early_ms = self._early_ms, {}

    def end(self) -> None:
        """End the step that was begun."""
        step, self._step = self._step, None
        if step is None:
            return
        step.ms["step"] = (time.perf_counter() - step.began) * 1000
        line = {"step": step.number, **step.fields, "ms": step.ms}
        line |= {"m": step.modalities} if step.modalities else {}
        self.num_done = step.number + 1
        self._pending.append(line)
        if len(self._pending) >= MAX_PENDING or not any(map(_is_far, _leaves(line))):
            self.flush()

    def abandon(self) -> None:
        """Forget a step that did not end."""
        self._step = None

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Measure a part of a step, or what comes before one."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.add_ms(name, (time.perf_counter() - began) * 1000)

    def add_ms(self, name: str, ms: float) -> None:
        """Add to the time of a phase."""
        times = self._early_ms if self._step is None else self._step.ms
        times[name] = times.get(name, 0.0) + ms

    def record(self, values: Mapping[str, Any]) -> None:
        """Note numbers of the step."""
        self._now("record").fields.update({k: _kept(v) for k, v in values.items()})

    def modality(self, name: str, values: Mapping[str, Any]) -> None:
        """Note numbers of one modality in the step."""
        found = self._now("modality").modalities.setdefault(name, {})
        found.update({k: _kept(v) for k, v in values.items()})

    def flush(self) -> None:
        """Fetch what still lies on a device and write every step that has ended."""
        pending, self._pending = self._pending, []
        for line in pending:
            self._write(**{key: as_plain(value) for key, value in line.items()})

    def _now(self, what: str) -> _Step:
        if self._step is None:
            raise RequestError(
                f"{what}() stands outside a step",
                why="its numbers belong to one",
                fix="with run.step(i, n=len(batch)): ...",
            )
        return self._step


def as_plain(value: Any) -> Any:
    """Give scalars of any array library as Python numbers."""
    if isinstance(value, Mapping):
        return {str(key): as_plain(entry) for key, entry in value.items()}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [as_plain(entry) for entry in value]
    item = getattr(value, "item", None)
    return item() if callable(item) else value


def _kept(value: Any) -> Any:
    """Give a tensor without the graph that it would keep alive."""
    if isinstance(value, Mapping):
        return {key: _kept(entry) for key, entry in value.items()}
    detach = getattr(value, "detach", None)
    return detach() if callable(detach) else value


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        for entry in value.values():
            yield from _leaves(entry)
    else:
        yield value


def _is_far(value: Any) -> bool:
    """Tell whether reading this number would wait for a device."""
    device = getattr(value, "device", None)
    return device is not None and getattr(device, "type", "cpu") != "cpu"
