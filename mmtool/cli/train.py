"""`mmtool train`: a recipe becomes a run."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmtool.cli.completion import recipe_names, run_names
from mmtool.cli.options import (
    DataRootOption,
    DeviceOption,
    DryRunOption,
    GpusOption,
    RunsDirOption,
    SetOption,
    command,
    refuse_together,
    refuse_with,
    with_launch_overrides,
)
from mmtool.cli.output import Output, align
from mmtool.cli.prepare import ensure_prepared
from mmtool.cli.watcher import RunWatcher
from mmtool.errors import MmtoolError, RequestError, StoppedResumable
from mmtool.paths import data_root as find_data_root
from mmtool.paths import runs_root
from mmtool.text import human_bytes, human_count

if TYPE_CHECKING:
    from mmtool.config.load import Loaded
    from mmtool.engine.launch import TrainResult

SCHEMA = "mmtool.train/1"


@command
def train(
    output: Output,
    recipe: Annotated[
        str | None,
        typer.Argument(
            metavar="RECIPE",
            help="A recipe file, or the name of a bundled recipe.",
            autocompletion=recipe_names,
        ),
    ] = None,
    gpus: GpusOption = None,
    device: DeviceOption = None,
    settings: SetOption = None,
    seed: Annotated[
        int | None, typer.Option("--seed", metavar="N", min=0, help="Sets train.seed.")
    ] = None,
    seeds: Annotated[
        str | None,
        typer.Option("--seeds", metavar="0,1,2", help="One run after the other for each seed."),
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", metavar="LABEL", help="Added to the run's name.")
    ] = None,
    runs_dir: RunsDirOption = None,
    data_root: DataRootOption = None,
    resume: Annotated[
        str | None,
        typer.Option(
            "--resume",
            metavar="RUN",
            help="Continue a run: a path, a name, latest.",
            autocompletion=run_names,
        ),
    ] = None,
    dry_run: DryRunOption = False,
) -> None:
    """Train a recipe; prints the path of the run.

    \b
    mmtool train avdigits_ogm
    mmtool train my.toml --gpus 4 -s train.lr=0.01
    mmtool train my.toml --seeds 0,1,2
    mmtool train --resume latest
    """
    refuse_together({"--seed": seed is not None, "--seeds": seeds is not None})
    if resume is not None:
        others = {"RECIPE": recipe, "--gpus": gpus, "--device": device, "-s": settings}
        others |= {"--seed": seed is not None, "--seeds": seeds, "--name": name}
        others |= {"--dry-run": dry_run}
        refuse_with("--resume", others, why="a resumed run keeps its own recipe and name")
        _resume(output, resume, runs_root(runs_dir), data_root)
        return
    if recipe is None:
        raise RequestError(
            "there is nothing to train",
            where="command line",
            fix="mmtool train RECIPE, where RECIPE is a file or a name from: mmtool list recipes",
        )
    if dry_run:
        why = "a dry run makes no run"
        useless = {"--name": name, "--runs-dir": runs_dir, "--seeds": seeds}
        refuse_with("--dry-run", useless, why=why)
    wanted = [seed] if seeds is None else parse_seeds(seeds)
    runs = []
    for one in wanted:
        launch = [("--gpus", "launch.gpus", gpus), ("--device", "launch.device", device)]
        option = "--seed" if seeds is None else "--seeds"
        overrides = with_launch_overrides(settings, [*launch, (option, "train.seed", one)])
        runs.append(_load(output, recipe, overrides))
    root = find_data_root(data_root)
    ensure_prepared(output, runs[0], root, dry_run=dry_run)
    if dry_run:
        _dry_run(output, runs[0], root, runs_root(runs_dir))
    else:
        _train_all(output, runs, runs_root(runs_dir), root, name)


def parse_seeds(text: str) -> list[int]:
    """Read `0,1,2`; every seed once."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise RequestError(
            f"{text!r} is not a list of seeds",
            where=f"command line: --seeds {text}",
            why="seeds are whole numbers from 0, separated by commas",
            fix="--seeds 0,1,2",
        )
    seeds = [int(part) for part in parts]
    if len(set(seeds)) < len(seeds):
        unique = ",".join(map(str, dict.fromkeys(seeds)))
        raise RequestError(
            "a seed is given twice",
            where=f"command line: --seeds {text}",
            why="the same seed gives the same run",
            fix=f"--seeds {unique}",
        )
    return seeds


def _load(output: Output, recipe: str, overrides: Sequence[str]) -> "Loaded":
    from mmtool.config.load import load_recipe

    loaded = load_recipe(recipe, overrides)
    for note in loaded.notes:
        output.note(note)
    return loaded


def _train_all(
    output: Output, recipes: Sequence["Loaded"], root: Path, data: Path, label: str | None
) -> None:
    from mmtool.engine.launch import TrainRequest
    from mmtool.engine.launch import train as run_engine

    done: list[dict[str, Any]] = []
    for loaded in recipes:
        title = loaded.name
        if len(recipes) > 1:
            title += f" seed {loaded.recipe.train.seed}"
        with RunWatcher(output, title, root) as watcher:
            request = TrainRequest(loaded, root, data, label, ["mmtool", *sys.argv[1:]], watcher)
            try:
                result = run_engine(request)
            except StoppedResumable as stopped:
                done.append(_stopped(stopped, loaded.recipe.train.seed, watcher))
                _print_runs(output, done)
                raise
        done.append(_finished(result, loaded.recipe.train.seed, watcher))
        if len(recipes) > 1 and not output.as_json:
            output.text(str(result.run))
        _closing_line(output, result.run)
    if len(recipes) > 1:
        spread = seed_spread([run["accuracy"] for run in done])
        for split, (middle, deviation) in spread.items():
            sign = output.glyph("plus_minus", stream=output.stderr)
            output.info(
                f"{split} accuracy over {len(done)} seeds: {middle:.4f} {sign} {deviation:.4f}"
            )
        if output.as_json:
            _print_runs(output, done, spread)
    else:
        _print_runs(output, done)


def _resume(output: Output, run: str, root: Path, data_root: Path | None) -> None:
    from mmtool.engine.launch import resume as resume_engine
    from mmtool.runlog.rundir import resolve_run

    path = resolve_run(run, root).path
    output.run_path = path
    with RunWatcher(output, path.name, path.parent) as watcher:
        argv = ["mmtool", *sys.argv[1:]]
        try:
            result = resume_engine(path, data_root=data_root, argv=argv, on_event=watcher)
        except StoppedResumable as stopped:
            _print_runs(output, [_stopped(stopped, None, watcher)])
            raise
    _closing_line(output, result.run)
    _print_runs(output, [_finished(result, None, watcher)])


def _finished(result: "TrainResult", seed: int | None, watcher: RunWatcher) -> dict[str, Any]:
    return {
        "run": result.run,
        "state": result.state,
        "seed": seed,
        "accuracy": watcher.accuracy,
        "summary": result.summary,
    }


def _stopped(error: StoppedResumable, seed: int | None, watcher: RunWatcher) -> dict[str, Any]:
    path = error.where or watcher.run_path
    return {"run": path, "state": "stopped", "seed": seed, "accuracy": watcher.accuracy}


def _print_runs(
    output: Output,
    runs: Sequence[Mapping[str, Any]],
    spread: Mapping[str, tuple[float, float]] | None = None,
) -> None:
    data: dict[str, Any] = {"runs": runs}
    if spread:
        data["seeds"] = {s: {"mean": m, "std": d} for s, (m, d) in spread.items()}
    output.result(SCHEMA, data, str(runs[-1]["run"]))


def seed_spread(accuracies: Sequence[Mapping[str, float]]) -> dict[str, tuple[float, float]]:
    """Give mean and sample standard deviation of each split that every seed measured."""
    spread = {}
    for split in ("val", "test"):
        values = [found[split] for found in accuracies if split in found]
        if len(values) == len(accuracies) > 0:
            spread[split] = (mean(values), stdev(values) if len(values) > 1 else 0.0)
    return spread


def _closing_line(output: Output, run: Path) -> None:
    """Say in one line on stderr what diagnosis thinks of the run that has just ended."""
    if output.quiet:
        return
    from mmtool.diagnose.api import closing_line, diagnose

    try:
        output.info(closing_line(diagnose([run])))
    except MmtoolError as error:
        output.warning(f"the run could not be diagnosed: {error.what}")


def _dry_run(output: Output, loaded: "Loaded", data: Path, root: Path) -> None:
    from mmtool.cli.recipe import value_lines
    from mmtool.engine.launch import TrainRequest
    from mmtool.engine.preview import check

    facts = check(TrainRequest(loaded, root, data))
    rows = [(key.replace("_", " "), _fact(key, value)) for key, value in facts.items() if value]
    lines = [*align(rows), "", *value_lines(loaded)]
    output.result(SCHEMA, {"dry_run": True, "recipe": loaded.path, **facts}, lines)
    for warning in facts.get("warnings", ()):
        output.warning(str(warning))


def _fact(key: str, value: object) -> str:
    if key == "parameters" and isinstance(value, Mapping):
        return ", ".join(f"{group} {human_count(count)}" for group, count in value.items())
    if key.endswith("_bytes") and isinstance(value, int | float):
        return human_bytes(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {number}" for name, number in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return f"{value:,}" if isinstance(value, int) else str(value)
