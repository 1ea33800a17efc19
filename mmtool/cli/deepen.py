"""`mmtool diagnose --deep`: runs are measured again from their checkpoints before the report."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from mmtool.cli.output import Output
from mmtool.cli.watcher import link_watcher
from mmtool.errors import RequestError

DeepOption: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--deep",
        help="First measure each run again from its checkpoint: what it answers without a "
        "modality, and what each encoder knows.",
    ),
]
SoloOption: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--solo", help="With --deep: train each modality alone as a yardstick; kept and reused."
    ),
]
SoloRunOption: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--solo-run",
        metavar="RUN",
        help="With --deep: a finished run of one modality alone to compare with; repeatable.",
    ),
]
NoHeadroomOption: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--no-headroom",
        help="With --deep: do not train each encoder alone for a third of the run's epochs.",
    ),
]
SamplesOption: TypeAlias = Annotated[
    int | None,
    typer.Option(
        "--samples",
        metavar="N",
        min=10,
        help="With --deep: validation samples at most; 5000 unless told.",
    ),
]
DeepDeviceOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--device", metavar="D", help="With --deep: auto, cpu or cuda; else as the run was trained."
    ),
]


@dataclass(frozen=True, slots=True)
class Depth:
    """What the command line asks to be measured."""

    deep: bool = False
    solo: bool = False
    solo_runs: tuple[str, ...] = ()
    no_headroom: bool = False
    samples: int | None = None
    device: str | None = None

    @property
    def given(self) -> dict[str, object]:
        """Options that mean something only with --deep."""
        return {
            "--solo": self.solo,
            "--solo-run": self.solo_runs,
            "--no-headroom": self.no_headroom,
            "--samples": self.samples,
            "--device": self.device,
        }


def deepen_runs(output: Output, paths: list[Path], root: Path, depth: Depth) -> None:
    """Measure every run as deeply as is asked; without --deep nothing is opened."""
    if not depth.deep:
        _refuse_alone(depth)
        return
    if depth.device not in (None, "auto", "cpu", "cuda"):
        raise RequestError(
            f"there is no device {depth.device!r}", where="--device", fix="auto, cpu or cuda"
        )
    from mmtool.runlog.rundir import resolve_run

    solo_from = [resolve_run(text, root).path for text in depth.solo_runs]
    runs = [run for path in paths for run in _runs_of(path)]
    for number, run in enumerate(runs, start=1):
        output.info(f"measuring {run.name}" + (f", {number} of {len(runs)}" if runs[1:] else ""))
        _deepen(output, run, depth, solo_from)


def _deepen(output: Output, run: Path, depth: Depth, solo_from: list[Path]) -> None:
    from mmtool.engine.deep.api import SAMPLES, deepen

    deepen(
        run,
        solo=depth.solo,
        solo_from=solo_from,
        headroom=not depth.no_headroom,
        samples=depth.samples or SAMPLES,
        device=depth.device,
        tell=lambda message: output.info(f"  {message}"),
        on_link=link_watcher(output),
    )


def _runs_of(path: Path) -> list[Path]:
    """Give the run itself, or all runs of a folder."""
    from mmtool.runlog.rundir import run_names
    from mmtool.runlog.suite import is_folder_of_runs

    return [path / name for name in run_names(path)] if is_folder_of_runs(path) else [path]


def _refuse_alone(depth: Depth) -> None:
    useless = [name for name, value in depth.given.items() if value]
    if useless:
        raise RequestError(
            f"{', '.join(useless)} {'has' if len(useless) == 1 else 'have'} no effect "
            "without --deep",
            where="command line",
            why="a report alone reads what the run has left and measures nothing",
            fix="add --deep",
        )
