"""Planted faults, an aid for tests: nothing here acts unless MMTOOL_FAULT is set.

    MMTOOL_FAULT="kill:rank=1,step=12"            several are separated by ";"

Faults that act by themselves, in `at_step` (with step=) or `during` (with during=save):

    kill stop       SIGKILL, SIGSTOP to this process
    term int usr1   that signal to this process, or to=launcher
    raise           RuntimeError("planted fault")
    exit            end at once with code= (1 unless given)
    hold            make the file named by file= and wait until it is gone

Faults that the code at their place asks for with `is_due` and carries out itself:

    nan inf oom skew order

`rank` unset means every rank, `until=` extends `step` to a range, `restart=` (0 unless given) says
in which elastic restart of a run the fault acts, so that a restarted run gets past it.
"""

import functools
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mmtool.errors import RequestError

VARIABLE = "MMTOOL_FAULT"
RESTART_VARIABLE = "MMTOOL_RESTART"
"""Environment variable: how many elastic restarts this run has had; the launcher sets it."""

_SIGNALS = {
    "kill": signal.SIGKILL,
    "stop": signal.SIGSTOP,
    "term": signal.SIGTERM,
    "int": signal.SIGINT,
    "usr1": signal.SIGUSR1,
}
_ACTING = (*_SIGNALS, "raise", "exit", "hold")
_ASKED = ("nan", "inf", "oom", "skew", "order")
_NUMBERS = ("rank", "step", "until", "code", "restart")
_WORDS = ("during", "to", "file")
_HOLD_POLL_S = 0.01


@dataclass(frozen=True, slots=True)
class Fault:
    """One planted fault."""

    kind: str
    rank: int | None = None
    step: int | None = None
    until: int | None = None
    during: str | None = None
    code: int = 1
    restart: int = 0
    to: str = "self"
    file: str = ""

    def is_at(self, rank: int, step: int) -> bool:
        """Whether this fault concerns the rank and the step."""
        if self.step is None or self.rank not in (None, rank):
            return False
        return self.step <= step <= (self.until or self.step)

    def act(self) -> None:
        """Do to this process, or to its launcher, what the fault says."""
        if self.kind in _SIGNALS:
            target = os.getppid() if self.to == "launcher" else os.getpid()
            os.kill(target, _SIGNALS[self.kind])
        elif self.kind == "raise":
            raise RuntimeError("planted fault")
        elif self.kind == "exit":
            os._exit(self.code)
        elif self.kind == "hold":
            held = Path(self.file)
            held.touch()
            while held.exists():
                time.sleep(_HOLD_POLL_S)


def at_step(rank: int, step: int) -> None:
    """Act out the faults planted at the beginning of a step (0-based)."""
    for fault in _planted():
        if fault.kind in _ACTING and fault.is_at(rank, step):
            fault.act()


def during(name: str, rank: int) -> None:
    """Act out the faults planted into a named stretch of work, for example `save`."""
    for fault in _planted():
        if fault.kind in _ACTING and fault.during == name and fault.rank in (None, rank):
            fault.act()


def is_due(kind: str, rank: int, step: int) -> bool:
    """Tell whether the caller is to spoil this step: nan, inf, oom, skew or order."""
    return any(fault.kind == kind and fault.is_at(rank, step) for fault in _planted())


def is_planted() -> bool:
    """Tell whether any fault is planted in this process; raises when the text is wrong."""
    return bool(_planted())


@contextmanager
def planted(text: str) -> Iterator[None]:
    """Plant faults in this process for the time of the block."""
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = text
    _planted.cache_clear()
    try:
        yield
    finally:
        if before is None:
            del os.environ[VARIABLE]
        else:
            os.environ[VARIABLE] = before
        _planted.cache_clear()


@functools.cache
def _planted() -> tuple[Fault, ...]:
    text = os.environ.get(VARIABLE, "")
    restart = int(os.environ.get(RESTART_VARIABLE, "0"))
    return tuple(fault for fault in parse(text) if fault.restart == restart)


def parse(text: str) -> tuple[Fault, ...]:
    """Read `kill:rank=1,step=12;nan:step=7`."""
    return tuple(_parse_one(part.strip()) for part in text.split(";") if part.strip())


def _parse_one(text: str) -> Fault:
    kind, _, rest = text.partition(":")
    fields: dict[str, int | str] = {}
    for pair in filter(None, rest.split(",")):
        key, _, value = pair.partition("=")
        if key in _NUMBERS and value.isdecimal():
            fields[key] = int(value)
        elif key in _WORDS and value:
            fields[key] = value
        else:
            raise _wrong(text, f"{pair!r} is none of {', '.join((*_NUMBERS, *_WORDS))} with value")
    if kind not in _ACTING + _ASKED:
        raise _wrong(text, f"{kind!r} is none of {', '.join(_ACTING + _ASKED)}")
    if ("step" in fields) == ("during" in fields):
        raise _wrong(text, "one of step= and during= says when")
    return Fault(kind, **fields)  # type: ignore[arg-type]


def _wrong(text: str, why: str) -> RequestError:
    return RequestError(
        f"{text!r} is not a fault that can be planted",
        where=f"environment variable {VARIABLE}",
        why=why,
        fix=f"unset {VARIABLE}, or for example {VARIABLE}=kill:rank=1,step=12",
    )
