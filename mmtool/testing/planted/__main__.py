"""Train and judge planted problems, and write the table.

python -m mmtool.testing.planted --seeds reporting --out RESULTS.md --keep planted-runs
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from mmtool.testing.planted.advised import STARVED_CELLS, Trial, advice_table, try_advice
from mmtool.testing.planted.grid import (
    ADVICE_SEEDS,
    PARTS,
    RANDOM_REPORTING_SEEDS,
    RANDOM_TUNING_SEEDS,
    REPORTING_SEEDS,
    TUNING_SEEDS,
    Cell,
    in_turns,
    is_measured,
    judge_cell,
)
from mmtool.testing.planted.random_runs import (
    Compared,
    compare_random,
    is_random_measured,
    random_table,
)
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
        judged = list(_judge_all(cells, seeds, folder, only_measured=asked.only_measured))
        extra = {}
        if asked.random:
            found = list(_compare_all(asked, folder / "random"))
            extra["Randomly drawn problems"] = random_table(found)
        if asked.advice:
            trials = list(_try_all(folder / "advice", asked.advice))
            extra["Doing what was advised"] = advice_table(trials)
    command = f"python -m mmtool.testing.planted {_in_words(asked)}"
    about = how_made(command, seeds, len(judged), len(cells) * len(seeds))
    text = whole_text(judged, about, extra)
    if asked.out:
        Path(asked.out).write_text(text, encoding="utf-8")
    sys.stdout.write(text)


def _judge_all(
    cells: Sequence[Cell], seeds: Sequence[int], folder: Path, *, only_measured: bool
) -> Iterator[Judged]:
    """Train, measure and judge every cell with every seed, telling each as it is known."""
    for cell, seed in in_turns(cells, seeds):
        if only_measured and not is_measured(cell, seed, folder):
            continue
        one = judge_cell(cell, seed, folder)
        mark = "right" if one.is_right else f"WRONG, true is {one.truth.in_words()}"
        _say(f"{cell.problem} {cell.encoder} {cell.fusion} {seed}: {one.said}, {mark}")
        yield one


def _compare_all(asked: argparse.Namespace, folder: Path) -> Iterator[Compared]:
    for seed in _RANDOM[asked.seeds][: asked.random]:
        if asked.only_measured and not is_random_measured(seed, folder):
            continue
        one = compare_random(seed, folder)
        _say(f"random {seed}: few {one.few}, many {one.many}")
        yield one


def _try_all(folder: Path, most: int) -> Iterator[Trial]:
    for cell, seed in in_turns(STARVED_CELLS, ADVICE_SEEDS):
        trials = try_advice(cell, seed, folder, most=most)
        _say(f"advice on {cell.problem} {cell.fusion} {seed}: {len(trials)} tried")
        yield from trials


def _say(words: str) -> None:
    sys.stderr.write(f"{words}\n")
    sys.stderr.flush()


def _in_words(asked: argparse.Namespace) -> str:
    """Give the options again, without the folders, which are the machine's own."""
    words = ["--seeds", asked.seeds, "--num-seeds", str(asked.num_seeds)]
    words += ["--parts", *asked.parts] if asked.parts != list(PARTS) else []
    words += ["--random", str(asked.random)] if asked.random else []
    words += ["--advice", str(asked.advice)] if asked.advice else []
    return " ".join(words + (["--only-measured"] if asked.only_measured else []))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m mmtool.testing.planted", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--seeds", choices=sorted(_SEEDS), default="tuning")
    parser.add_argument("--num-seeds", type=int, default=2, help="so many of those seeds")
    parser.add_argument("--parts", nargs="*", choices=sorted(PARTS), default=list(PARTS))
    parser.add_argument("--random", type=int, default=0, help="randomly drawn problems")
    parser.add_argument("--advice", type=int, default=0, help="advised patches to try per verdict")
    parser.add_argument("--keep", help="folder of the measured runs, which are not made again")
    parser.add_argument(
        "--only-measured", action="store_true", help="judge what that folder holds, train nothing"
    )
    parser.add_argument("--out", help="file of the table")
    return parser


if __name__ == "__main__":
    main()
