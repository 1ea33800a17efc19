"""Train and judge planted problems, and write the table.

python -m mmtool.testing.planted --seeds reporting --out RESULTS.md --keep planted-runs
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from mmtool.testing.planted.advised import STARVED_CELLS, advice_table, try_advice
from mmtool.testing.planted.grid import (
    PARTS,
    RANDOM_REPORTING_SEEDS,
    RANDOM_TUNING_SEEDS,
    REPORTING_SEEDS,
    TUNING_SEEDS,
    Cell,
    in_turns,
    judge_cell,
)
from mmtool.testing.planted.random_runs import compare_random, random_table
from mmtool.testing.planted.runner import Judged
from mmtool.testing.planted.table import how_made, whole_text

_SEEDS = {"tuning": TUNING_SEEDS, "reporting": REPORTING_SEEDS}
_RANDOM = {"tuning": RANDOM_TUNING_SEEDS, "reporting": RANDOM_REPORTING_SEEDS}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what was asked for."""
    asked = _parser().parse_args(arguments)
    with tempfile.TemporaryDirectory() as fresh:
        folder = Path(asked.keep or fresh)
        seeds = _SEEDS[asked.seeds][: asked.num_seeds]
        cells = [cell for part in asked.parts for cell in PARTS[part]()]
        judged = judge_all(cells, seeds, folder)
        extra = {}
        if asked.random:
            random_seeds = _RANDOM[asked.seeds][: asked.random]
            found = [compare_random(seed, folder / "random") for seed in random_seeds]
            extra["Randomly drawn problems"] = random_table(found)
        if asked.advice:
            trials = [
                trial
                for cell, seed in in_turns(STARVED_CELLS, seeds)
                for trial in try_advice(cell, seed, folder / "advice", most=asked.advice)
            ]
            extra["Doing what was advised"] = advice_table(trials)
    command = " ".join(["python -m mmtool.testing.planted", *(arguments or sys.argv[1:])])
    text = whole_text(judged, how_made(command, seeds), extra)
    if asked.out:
        Path(asked.out).write_text(text, encoding="utf-8")
    sys.stdout.write(text)


def judge_all(cells: Sequence[Cell], seeds: Sequence[int], folder: Path) -> list[Judged]:
    """Train, measure and judge every cell with every seed, telling each as it is known."""
    judged = []
    for cell, seed in in_turns(cells, seeds):
        one = judge_cell(cell, seed, folder)
        mark = "right" if one.is_right else f"WRONG, true is {one.truth.in_words()}"
        words = f"{cell.problem} {cell.encoder} {cell.fusion} {seed}: {one.said}, {mark}\n"
        sys.stderr.write(words)
        judged.append(one)
    return judged


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m mmtool.testing.planted", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--seeds", choices=sorted(_SEEDS), default="tuning")
    parser.add_argument("--num-seeds", type=int, default=2, help="so many of those seeds")
    parser.add_argument("--parts", nargs="*", choices=sorted(PARTS), default=sorted(PARTS))
    parser.add_argument("--random", type=int, default=0, help="randomly drawn problems")
    parser.add_argument("--advice", type=int, default=0, help="advised patches to try per verdict")
    parser.add_argument("--keep", help="folder of the measured runs, which are not made again")
    parser.add_argument("--out", help="file of the table")
    return parser


if __name__ == "__main__":
    main()
