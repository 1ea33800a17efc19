"""What the command line asks of `mmtool train`, turned into recipes to run."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import typer

from mmtool.cli.options import refuse_with, with_launch_overrides
from mmtool.cli.output import Output
from mmtool.cli.seeds import parse_seeds
from mmtool.cli.submit import Wish
from mmtool.errors import MmtoolError, RequestError

if TYPE_CHECKING:
    from mmtool.config.load import Loaded
    from mmtool.engine.joined import Task


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line says about the run."""

    recipe: str | None = None
    gpus: str | None = None
    device: str | None = None
    settings: list[str] | None = None
    seed: int | None = None
    seeds: str | None = None
    name: str | None = None

    def as_options(self) -> dict[str, object]:
        """Give the options with what was given for them, if anything."""
        return {
            "RECIPE": self.recipe,
            "--gpus": self.gpus,
            "--device": self.device,
            "-s": self.settings,
            "--seed": self.seed is not None,
            "--seeds": self.seeds,
            "--name": self.name,
        }

    def again(self, roots: tuple[Path, Path]) -> list[str]:
        """Give the words that ask another process for the same, seeds left out."""
        words = [str(self.recipe), "--runs-dir", str(roots[0]), "--data-root", str(roots[1])]
        for option, value in (("--gpus", self.gpus), ("--device", self.device)):
            words += [option, value] if value is not None else []
        words += [part for text in self.settings or () for part in ("-s", text)]
        return words + (["--name", self.name] if self.name is not None else [])

    def overrides(self, gpus: int | None, seed: int | None) -> list[str]:
        """Give the overrides of the recipe for one run."""
        launch = [("--gpus", "launch.gpus", gpus), ("--device", "launch.device", self.device)]
        option = "--seed" if self.seeds is None else "--seeds"
        return with_launch_overrides(self.settings, [*launch, (option, "train.seed", seed)])


def refuse_useless(wish: Wish, *, slurm: bool, seeds: str | None, suite: bool = False) -> None:
    """Refuse options of SLURM without --slurm, and of several seeds without --seeds."""
    if not slurm:
        useless = [option for option, value in wish.as_options().items() if value is not None]
        if useless:
            raise RequestError(
                f"{', '.join(useless)} has no effect without --slurm",
                where="command line",
                fix=f"add --slurm, or drop {', '.join(useless)}",
            )
    if wish.jobs is not None and seeds is None and not suite:
        raise RequestError(
            "--jobs has no effect without --seeds", where="command line", fix="drop --jobs"
        )


def find_own_task(asked: Asked) -> "Task | None":
    """Give what this process is among tasks that torchrun or srun started together."""
    from mmtool.engine.joined import enter, find_task

    task = find_task(os.environ)
    if task is not None:
        refuse_with(task.kind, {"--seeds": asked.seeds}, why="its tasks are the ranks of one run")
        enter(task)
    return task


def follow(task: "Task") -> NoReturn:
    """Be one of the other tasks to its end."""
    from mmtool.engine.joined import follow_first

    raise typer.Exit(follow_first(task))


def load_all(
    output: Output, asked: Asked, wish: Wish, task: "Task | None", *, slurm: bool
) -> list["Loaded"]:
    """Load the recipe once for every run."""
    from mmtool.engine.joined import leading

    with leading(task):
        if asked.recipe is None:
            raise RequestError(
                "there is nothing to train",
                where="command line",
                fix="mmtool train RECIPE, where RECIPE is a file or a name from: mmtool list "
                "recipes",
            )
        gpus = _num_ranks(asked, wish, task, slurm=slurm)
        wanted = [asked.seed] if asked.seeds is None else list(parse_seeds(asked.seeds))
        return [_load(output, asked.recipe, asked.overrides(gpus, one), task) for one in wanted]


def _num_ranks(asked: Asked, wish: Wish, task: "Task | None", *, slurm: bool) -> int | None:
    """Give what launch.gpus is to be; None leaves it to the recipe."""
    from mmtool.config.load import load_recipe
    from mmtool.engine.devices import automatic_gpus
    from mmtool.engine.joined import check_world

    text = asked.gpus
    if text is not None and text != "auto" and not (text.isdecimal() and int(text) > 0):
        raise RequestError(
            f"--gpus {text} is no number of GPUs", where="command line", fix="--gpus 2 or auto"
        )
    if slurm and text == "auto":
        raise RequestError(
            "--gpus auto has no meaning with --slurm",
            where="command line",
            why="the GPUs of the nodes cannot be counted from here",
            fix="--gpus 4    # GPUs of each node",
        )
    gpus = int(text) if text is not None and text != "auto" else None
    if task is not None:
        check_world(task, gpus)
        return task.world
    if text == "auto" or (wish.nodes or 1) > 1:
        launch = load_recipe(
            str(asked.recipe), asked.overrides(None, None), check_plugins=False
        ).recipe.launch
        if text == "auto":
            return automatic_gpus(launch.device)
        return (gpus or launch.gpus) * (wish.nodes or 1)
    return gpus


def _load(output: Output, recipe: str, overrides: Sequence[str], task: "Task | None") -> "Loaded":
    from mmtool.config.apart import load_apart
    from mmtool.config.load import load_recipe

    # The process that looks after several ranks stays small: its plugins are loaded elsewhere.
    is_apart = task is None and _asks_for_several(recipe, overrides)
    loaded = load_apart(recipe, overrides) if is_apart else load_recipe(recipe, overrides)
    for note in loaded.notes:
        output.note(note)
    return loaded


def _asks_for_several(recipe: str, overrides: Sequence[str]) -> bool:
    from mmtool.config.load import load_recipe

    try:
        found = load_recipe(recipe, overrides, check_plugins=False)
    except MmtoolError:
        return False  # the full check says more about it
    return found.recipe.launch.gpus > 1
