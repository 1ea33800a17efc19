"""Judge randomly drawn problems on few validation samples, and on many with solo runs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mmtool.runlog.deep import deep_path
from mmtool.testing.planted.problem import HEALTHY
from mmtool.testing.planted.random_problems import Drawn, drawn_problem
from mmtool.testing.planted.recipe import Setup
from mmtool.testing.planted.runner import in_words, measured_run, run_name, verdict_of


@dataclass(frozen=True, slots=True)
class Compared:
    """What was said on few samples, and what on many."""

    seed: int
    drawn: Drawn
    few: str
    many: str
    confidence: float | None
    runner_up: str

    @property
    def agrees(self) -> bool:
        """Whether both verdicts are the same; which kind of balanced is no difference."""
        return _plain(self.few) == _plain(self.many)

    @property
    def is_false_alarm(self) -> bool:
        """Whether few samples raise an alarm about what many call healthy."""
        return _plain(self.many) == "balanced" and _plain(self.few) not in (
            "balanced",
            "inconclusive",
        )


def _plain(verdict: str) -> str:
    return "balanced" if verdict in HEALTHY else verdict


def compare_random(seed: int, folder: Path) -> Compared:
    """Train, measure and judge a random problem on few and on many samples."""
    drawn = drawn_problem(seed)
    few, many = measure_random(seed, folder)
    on_few, on_many = verdict_of(few), verdict_of(many)
    second = on_few.get("runner_up")
    return Compared(
        seed=seed,
        drawn=drawn,
        few=in_words(on_few["code"], frozenset(on_few["modalities"])),
        many=in_words(on_many["code"], frozenset(on_many["modalities"])),
        confidence=on_few.get("confidence"),
        runner_up=in_words(second["code"], frozenset(second["modalities"])) if second else "",
    )


def measure_random(seed: int, folder: Path) -> tuple[Path, Path]:
    """Train and measure both runs of a random problem unless they were before."""
    drawn = drawn_problem(seed)
    setup = Setup("mlp", drawn.fusion, seed)
    return (
        measured_run(drawn.few, folder, setup),
        measured_run(drawn.many, folder, setup, solo=True),
    )


def is_random_measured(seed: int, folder: Path) -> bool:
    """Whether both runs of a random problem were trained and measured before."""
    drawn = drawn_problem(seed)
    setup = Setup("mlp", drawn.fusion, seed)
    names = [run_name(problem.name, setup) for problem in (drawn.few, drawn.many)]
    return all(deep_path(folder / name, "val").is_file() for name in names)


def random_table(compared: Sequence[Compared]) -> str:
    """Give how many agree, and every problem on which they do not."""
    agree = sum(c.agrees for c in compared)
    said = [c for c in compared if c.few != "inconclusive"]
    healthy = [c for c in compared if _plain(c.many) == "balanced"]
    lines = [
        f"* same verdict: {agree}/{len(compared)}",
        f"* of those about which few samples say anything: {sum(c.agrees for c in said)}/"
        f"{len(said)}",
        f"* false alarms: {sum(c.is_false_alarm for c in compared)}/{len(healthy)}",
    ]
    wrong = [c for c in compared if not c.agrees]
    if not wrong:
        return "\n".join(lines)
    lines += [
        "",
        "| seed | classes, train, val | fusion | many say | few say | confidence | runner-up |",
        "|---|---|---|---|---|---|---|",
    ]
    for c in wrong:
        many = c.drawn.many
        sizes = f"{many.num_classes}, {many.num_train}, {c.drawn.num_few}"
        sure = "" if c.confidence is None else f"{c.confidence:.2f}"
        facts = (c.seed, sizes, c.drawn.fusion, c.many, c.few, sure, c.runner_up)
        lines.append("| " + " | ".join(str(fact) for fact in facts) + " |")
    return "\n".join(lines)
