"""A verdict that does not flicker: while a run goes on, a new one must hold for three epochs."""

from __future__ import annotations

from dataclasses import dataclass

from mmtool.diagnose.report.views import Plain, listed, mapping

EPOCHS_TO_CHANGE = 3


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a report says, so far as two reports can say the same."""

    code: str
    modalities: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        """The judgement in a few words."""
        return " ".join([self.code, *self.modalities])


def judgement_of(report: Plain) -> Judgement:
    """Give the verdict of a report, or without one the rule of its first finding."""
    verdict = mapping(mapping(report.get("metrics")).get("verdict"))
    if verdict.get("code"):
        return Judgement(str(verdict["code"]), tuple(map(str, listed(verdict.get("modalities")))))
    rules = [str(f.get("rule")) for f in listed(report.get("findings")) if isinstance(f, dict)]
    return Judgement(next(iter(rules), "nothing found"))


class SteadyVerdict:
    """Keeps a verdict until another one was seen in three epochs one after the other."""

    def __init__(self, epochs: int = EPOCHS_TO_CHANGE) -> None:
        self._needed = epochs
        self._epoch: int | None = None
        self._num_seen = 0
        self._candidate: Judgement | None = None
        self.held: Judgement | None = None
        """The verdict that holds; None until one was seen often enough."""

    def see(self, epoch: int, judgement: Judgement) -> None:
        """Take note of what an epoch says; an epoch counts once."""
        if self._epoch is not None and epoch <= self._epoch:
            return
        self._epoch = epoch
        is_same = judgement == self._candidate
        self._num_seen = self._num_seen + 1 if is_same else 1
        self._candidate = judgement
        if self._num_seen >= self._needed:
            self.held = judgement

    @property
    def words(self) -> str:
        """The verdict that holds, and which other one is on its way to replace it."""
        if self._candidate is None:
            return "no verdict yet"
        coming = (
            f"{self._candidate.words} in {self._num_seen} of {self._needed} epochs one after the "
            "other"
        )
        if self.held is None:
            return f"no verdict yet: {coming}"
        return self.held.words if self._candidate == self.held else f"{self.held.words}; {coming}"
