"""Which problems are trained in which ways, and with which seeds."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmtool.runlog.deep import deep_path
from mmtool.testing.planted.conditions import CONDITIONS
from mmtool.testing.planted.problem import Problem, Sizes
from mmtool.testing.planted.recipe import FusionKind, Setup
from mmtool.testing.planted.runner import Judged, judge, measured_run, run_name
from mmtool.testing.planted.scenarios import SCENARIOS, Generator
from mmtool.testing.planted.store import EncoderKind

TUNING_SEEDS = (0, 1, 2, 3)
"""Thresholds may be chosen on these."""
REPORTING_SEEDS = (100, 101, 102, 103)
"""Nobody looks at these before the thresholds stand."""
RANDOM_TUNING_SEEDS = tuple(range(0, 20))
RANDOM_REPORTING_SEEDS = tuple(range(1000, 1060))

ADVICE_SEEDS = (0, 1, 2)
"""The remedies were written down before any of these were run."""

PROBLEMS: Mapping[str, Generator] = {**SCENARIOS, **CONDITIONS}
SMALL = ("balanced", "snr_info", "speed", "dead_encoder", "shortcut_ood", "xor")
"""One of each kind of verdict, for tests that have to be quick."""


@dataclass(frozen=True, slots=True)
class Cell:
    """A problem and the kind of model that meets it."""

    problem: str
    encoder: EncoderKind = "mlp"
    fusion: FusionKind = "concat"

    def make(self, seed: int, sizes: Sizes | None = None) -> Problem:
        """Draw the problem."""
        return PROBLEMS[self.problem](sizes or Sizes(), seed)


def main_cells() -> list[Cell]:
    """The seventeen scenarios on an additive fusion and on one that lets modalities interact."""
    return [Cell(name, "mlp", fusion) for fusion in ("concat", "attention") for name in SCENARIOS]


def condition_cells() -> list[Cell]:
    """Faulty data, more modalities and other tasks on an additive fusion."""
    return [Cell(name, "mlp", "concat") for name in CONDITIONS]


def fusion_cells() -> list[Cell]:
    """The two other fusions, each on a healthy problem and on one of every kind of trouble."""
    return [
        Cell(name, "mlp", fusion)
        for fusion in ("sum", "film")
        for name in ("balanced", "unique", "snr_info", "speed", "dead_input", "shortcut_ood")
    ]


def encoder_cells() -> list[Cell]:
    """The two other encoders, where the plant is the same for them."""
    every = ("balanced", "redundant", "snr_info", "labelnoise", "speed", "dead_input")
    return [
        *(Cell(name, "cnn", "concat") for name in every),
        *(Cell(name, "transformer", "concat") for name in (*every, "dead_encoder")),
    ]


PARTS = {
    "scenarios": main_cells,
    "conditions": condition_cells,
    "fusions": fusion_cells,
    "encoders": encoder_cells,
}


def all_cells() -> list[Cell]:
    """Every cell there is."""
    return [cell for part in PARTS.values() for cell in part()]


def in_turns(cells: Sequence[Cell], seeds: Sequence[int]) -> Iterator[tuple[Cell, int]]:
    """Give every cell with every seed; all cells come once before any comes again."""
    for seed in seeds:
        for cell in cells:
            yield cell, seed


def measure_cell(cell: Cell, seed: int, folder: Path) -> Path:
    """Train and measure a cell unless it was before."""
    return measured_run(cell.make(seed), folder, Setup(cell.encoder, cell.fusion, seed))


def is_measured(cell: Cell, seed: int, folder: Path) -> bool:
    """Whether a cell was trained and measured before."""
    setup = Setup(cell.encoder, cell.fusion, seed)
    return deep_path(folder / run_name(cell.problem, setup), "val").is_file()


def judge_cell(cell: Cell, seed: int, folder: Path) -> Judged:
    """Give the verdict on a cell, which is trained and measured first unless it was before."""
    problem, setup = cell.make(seed), Setup(cell.encoder, cell.fusion, seed)
    return judge(problem, measured_run(problem, folder, setup), setup)
