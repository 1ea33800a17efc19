"""Errors a person reads: what happened, where, why it matters, how to fix it.

Every error that is meant for the user derives from `MmtoolError`; the class decides the exit code.
The command line is the only place that catches them.
"""

import errno
from collections.abc import Sequence
from dataclasses import dataclass


class MmtoolError(Exception):
    """A failure explained to the user; `exit_code` is what the process returns."""

    exit_code = 1

    def __init__(self, what: str, *, where: str = "", why: str = "", fix: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.why = why
        self.fix = fix

    def __str__(self) -> str:
        parts = [self.what]
        parts += [f"{name}: {text}" for name, text in self._details() if text]
        return "\n  ".join(parts)

    def _details(self) -> tuple[tuple[str, str], ...]:
        return (("where", self.where), ("why", self.why), ("fix", self.fix))

    def as_dict(self) -> dict[str, str]:
        """Give the fields for `--json`."""
        return {
            "kind": type(self).__name__,
            "what": self.what,
            "where": self.where,
            "why": self.why,
            "fix": self.fix,
        }


class WorkFailed(MmtoolError):
    """The work itself failed; whatever was produced so far is kept."""

    exit_code = 1


class RequestError(MmtoolError):
    """The request is wrong; nothing was started."""

    exit_code = 2


class UnknownName(RequestError):
    """A method, dataset, encoder, recipe or run of that name does not exist."""


class SourceError(RequestError):
    """The raw data given to `prepare` is not what the preparer can read."""


class FindingsPresent(MmtoolError):
    """`diagnose --fail-on` found something; the report was written."""

    exit_code = 3


class EnvironmentLacks(MmtoolError):
    """The machine lacks something: data, a GPU, a package, a codec, room on the disk."""

    exit_code = 4


class DatasetNotPrepared(EnvironmentLacks):
    """The recipe names a dataset that has no store yet."""


class StoreError(WorkFailed):
    """A prepared dataset is damaged, incomplete or of a version this mmtool cannot read."""


class StoreLost(StoreError):
    """A file of a prepared dataset vanished or was cut short while it was being read."""

    exit_code = 74

    def __init__(self, what: str, *, shard: int | None = None, **details: str) -> None:
        super().__init__(what, **details)
        self.shard = shard


class RunDirectoryError(RequestError):
    """A path given as a run is not one, or the run cannot be continued."""


class CheckpointError(WorkFailed):
    """A checkpoint is damaged, or none is left to continue from."""

    exit_code = 65


class NotWritable(EnvironmentLacks):
    """What a run has to keep cannot be written: the disk is full, read-only or gone."""

    exit_code = 74


class NotFinite(WorkFailed):
    """The training diverged: loss or gradients were not finite for too long."""

    exit_code = 76


class OutOfMemory(WorkFailed):
    """A rank ran out of memory."""

    exit_code = 77


class RankSilent(WorkFailed):
    """A rank hung: the others waited for it in vain."""

    exit_code = 79


class Killed(WorkFailed):
    """A rank or the whole run was ended by a signal; the exit code is 128 + its number."""

    def __init__(self, what: str, number: int, **details: str) -> None:
        super().__init__(what, **details)
        self.exit_code = 128 + number


class StoppedResumable(MmtoolError):
    """The run was asked to stop, saved its state and can be resumed."""

    exit_code = 75


class Bug(MmtoolError):
    """An invariant of mmtool itself does not hold."""

    exit_code = 70


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a recipe, with the key it concerns."""

    path: tuple[str, ...]
    what: str
    fix: str = ""


class RecipeError(RequestError):
    """A recipe has problems; `rendered` shows all of them as file:line:col with carets."""

    def __init__(self, what: str, *, problems: Sequence[Problem] = (), rendered: str = "") -> None:
        super().__init__(what)
        self.problems = tuple(problems)
        self.rendered = rendered

    def __str__(self) -> str:
        return f"{self.rendered}\n{self.what}".strip()


def foreseen(error: BaseException) -> MmtoolError | None:
    """Give the words for an exception of Python whose cause lies in the environment, if it does."""
    if isinstance(error, MmtoolError):
        return error
    if isinstance(error, ModuleNotFoundError) and _is_foreign(error.name):
        return EnvironmentLacks(
            f"the Python package {error.name!r} is not installed",
            why="this command needs it",
            fix=f"pip install {str(error.name).partition('.')[0]}",
        )
    return _of_system(error) if isinstance(error, OSError) else None


def _is_foreign(name: str | None) -> bool:
    return name is not None and name.partition(".")[0] != "mmtool"


def _of_system(error: OSError) -> MmtoolError | None:
    where = str(error.filename or "")
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NotWritable(
            "the disk is full", where=where, fix="free some room, or choose another folder"
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return EnvironmentLacks(
            f"no permission: {error.strerror}",
            where=where,
            fix=f"ls -ld {where}" if where else "check who owns the folder",
        )
    return None
