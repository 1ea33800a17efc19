"""Planted faults, an aid for tests: nothing here acts unless MMTOOL_FAULT is set.

    MMTOOL_FAULT="kill:rank=1,step=12"            several are separated by ";"

Faults that act by themselves, in `at_step` (with step=) or `during` (with during=save, and step=
for that of one step):

    kill stop       SIGKILL, SIGSTOP to this process
    term int usr1   that signal to this process, or to=launcher
    raise           RuntimeError("planted fault")
    exit            end at once with code= (1 unless given)
    hold            make the file named by file= and wait until it is gone
    linger          make that file and wait for a signal that asks to stop

Faults that the code at their place asks for with `is_due` and carries out itself:

    nan inf oom skew order

`rank` unset means every rank, `until=` extends `step` to a range, `restart=` (0 unless given) says
in which elastic restart of a run the fault acts, so that a restarted run gets past it.
"""

import functools
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from mmtool.engine.stop import STOPPING
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
_ACTING = (*_SIGNALS, "raise", "exit", "hold", "linger")
_ASKED = ("nan", "inf", "oom", "skew", "order")
_NUMBERS = ("rank", "step", "until", "code", "restart")
_WORDS = ("during", "to", "file")
_POLL_S = 0.01


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
        if self.rank not in (None, rank):
            return False
        return self.step is None or self.step <= step <= (self.until or self.step)

    def act(self) -> None:
        """Do to this process, or to its launcher, what the fault says."""
        if self.kind in _SIGNALS:
            if self.to == "launcher":
                _until_told_to_stop(lambda: os.kill(os.getppid(), _SIGNALS[self.kind]))
            else:
                os.kill(os.getpid(), _SIGNALS[self.kind])
        elif self.kind == "raise":
            raise RuntimeError("planted fault")
        elif self.kind == "exit":
            os._exit(self.code)
        elif self.kind == "linger":
            _until_told_to_stop(Path(self.file).touch)
        elif self.kind == "hold":
            held = Path(self.file)
            held.touch()
            while held.exists():
                time.sleep(_POLL_S)


def _until_told_to_stop(cause: Callable[[], None]) -> None:
    """Do what leads to a stop and wait for it in this very step."""
    told: list[int] = []
    before = {int(number): signal.getsignal(number) for number in STOPPING}

    def note(number: int, frame: FrameType | None) -> None:
        told.append(number)
        handler = before[number]
        if callable(handler):
            handler(number, frame)

    for stopping in STOPPING:
        signal.signal(stopping, note)
    cause()
    while not told:
        time.sleep(_POLL_S)
    for number, handler in before.items():
        signal.signal(number, handler)


def at_step(rank: int, step: int) -> None:
    """Act out the faults planted at the beginning of a step (0-based)."""
    for fault in _planted():
        if fault.kind in _ACTING and fault.during is None and fault.is_at(rank, step):
            fault.act()


def during(name: str, rank: int, step: int) -> None:
    """Act out the faults planted into a named stretch of work, for example `save`."""
    for fault in _planted():
        if fault.kind in _ACTING and fault.during == name and fault.is_at(rank, step):
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
    if "step" not in fields and "during" not in fields:
        raise _wrong(text, "step= or during= has to say when")
    return Fault(kind, **fields)  # type: ignore[arg-type]


def _wrong(text: str, why: str) -> RequestError:
    return RequestError(
        f"{text!r} is not a fault that can be planted",
        where=f"environment variable {VARIABLE}",
        why=why,
        fix=f"unset {VARIABLE}, or for example {VARIABLE}=kill:rank=1,step=12",
    )
