"""`mmtool train`: a recipe becomes a run."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmtool.cli.asked import Asked, find_own_task, follow, load_all, refuse_useless
from mmtool.cli.options import (
    AllowChangeOption,
    DataRootOption,
    DeviceOption,
    DryRunOption,
    JobsOption,
    NameOption,
    NodesOption,
    OptionalRecipe,
    PartitionOption,
    RanksOption,
    ResumeOption,
    RunsDirOption,
    SeedOption,
    SeedsOption,
    SetOption,
    SlurmOption,
    TimeOption,
    VariantOption,
    command,
    refuse_together,
    refuse_with,
)
from mmtool.cli.output import Output, align
from mmtool.cli.prepare import ensure_prepared
from mmtool.cli.seeds import (
    Work,
    num_side_by_side,
    say_spread,
    seed_spread,
    train_side_by_side,
)
from mmtool.cli.submit import Wish, submit_runs
from mmtool.cli.suite import asked_for_suite, train_suite
from mmtool.cli.watcher import RunWatcher, link_watcher
from mmtool.errors import MmtoolError, StoppedResumable
from mmtool.paths import data_root as find_data_root
from mmtool.paths import runs_root
from mmtool.text import human_bytes, human_count

if TYPE_CHECKING:
    from mmtool.config.load import Loaded
    from mmtool.engine.joined import Task
    from mmtool.engine.launch import TrainResult

SCHEMA = "mmtool.train/1"


@command
def train(
    output: Output,
    recipe: OptionalRecipe = None,
    gpus: RanksOption = None,
    device: DeviceOption = None,
    settings: SetOption = None,
    seed: SeedOption = None,
    seeds: SeedsOption = None,
    jobs: JobsOption = None,
    variant: VariantOption = None,
    name: NameOption = None,
    runs_dir: RunsDirOption = None,
    data_root: DataRootOption = None,
    resume: ResumeOption = None,
    allow_change: AllowChangeOption = False,
    slurm: SlurmOption = False,
    nodes: NodesOption = None,
    time: TimeOption = None,
    partition: PartitionOption = None,
    dry_run: DryRunOption = False,
) -> None:
    """Train a recipe; prints the path of the run.

    \b
    mmtool train avdigits_ogm
    mmtool train my.toml --gpus 4 -s train.lr=0.01
    mmtool train my.toml --seeds 0,1,2
    mmtool train recipes/bench/mfeat.toml
    mmtool train my.toml --slurm --nodes 2 --gpus 4 --time 08:00:00
    mmtool train --resume latest
    """
    wish = Wish(nodes, time, partition, jobs)
    refuse_together({"--seed": seed is not None, "--seeds": seeds is not None})
    asked = Asked(recipe, gpus, device, settings, seed, seeds, name)
    is_suite = resume is None and asked_for_suite(asked)
    refuse_useless(wish, slurm=slurm, seeds=seeds, suite=is_suite)
    if not is_suite:
        refuse_with("one recipe", {"--variant": variant}, why="only a suite has variants")
    if resume is not None:
        others = asked.as_options() | {"--slurm": slurm, "--dry-run": dry_run}
        refuse_with("--resume", others, why="a resumed run keeps its own recipe and name")
        _resume(output, resume, runs_root(runs_dir), data_root, may_change=allow_change)
        return
    without = {"--allow-change": allow_change}
    refuse_with("a new run", without, why="only a resumed one can differ from its checkpoint")
    roots = (runs_root(runs_dir), find_data_root(data_root))
    if is_suite:
        refuse_with("a suite", {"--slurm": slurm}, why="its runs start from one process")
        train_suite(output, asked, variant or (), roots, jobs=jobs, dry_run=dry_run)
        return
    if dry_run and not slurm:
        useless = {"--name": name, "--runs-dir": runs_dir, "--seeds": seeds}
        refuse_with("--dry-run", useless, why="a dry run makes no run")
    task = find_own_task(asked)
    if task is not None and not task.is_first:
        follow(task)
    runs = load_all(output, asked, wish, task, slurm=slurm)
    ensure_prepared(output, runs[0], roots[1], dry_run=dry_run)
    if slurm:
        submit_runs(output, runs, wish, roots=roots, label=name, dry_run=dry_run)
    elif dry_run:
        _dry_run(output, runs[0], roots[1], roots[0])
    elif seeds is not None:
        _train_seeds(output, runs, asked, wish, roots)
    else:
        _train_one(output, runs[0], roots, name, task)


def _train_seeds(
    output: Output, recipes: Sequence["Loaded"], asked: Asked, wish: Wish, roots: tuple[Path, Path]
) -> None:
    """Train every seed, side by side where there is room."""
    from mmtool.engine.devices import visible_gpus

    launch = recipes[0].recipe.launch
    num_gpus = 0 if launch.device == "cpu" else visible_gpus()
    at_once = min(num_side_by_side(wish.jobs, launch.gpus, num_gpus), len(recipes))
    done: list[dict[str, Any]]
    if at_once > 1:
        seeds = [loaded.recipe.train.seed for loaded in recipes]
        again = asked.again(roots)
        works = [Work(f"seed {seed}", (*again, "--seed", str(seed))) for seed in seeds]
        found, failures = train_side_by_side(output, works, at_once=at_once, num_gpus=num_gpus)
        for error in failures.values():
            raise error
        done = [found[work.title] for work in works]
        if not output.as_json:
            for run in done[:-1]:
                output.text(str(run["run"]))
    else:
        done = []
        for number, loaded in enumerate(recipes):
            title = f"{loaded.name} seed {loaded.recipe.train.seed}"
            _train(output, loaded, roots, asked.name, None, title=title, done=done)
            if not output.as_json and number < len(recipes) - 1:
                output.text(str(done[-1]["run"]))
    spread = seed_spread([run["accuracy"] for run in done])
    say_spread(output, spread, len(done), str(done[0].get("metric", "accuracy")))
    _print_runs(output, done, spread)


def _train_one(
    output: Output,
    loaded: "Loaded",
    roots: tuple[Path, Path],
    label: str | None,
    task: "Task | None",
) -> None:
    done: list[dict[str, Any]] = []
    _train(output, loaded, roots, label, task, title=loaded.name, done=done)
    _print_runs(output, done)


def _train(
    output: Output,
    loaded: "Loaded",
    roots: tuple[Path, Path],
    label: str | None,
    task: "Task | None",
    *,
    title: str,
    done: list[dict[str, Any]],
) -> None:
    """Train one recipe and add what became of it to `done`."""
    from mmtool.engine.launch import TrainRequest
    from mmtool.engine.launch import train as run_engine

    seed = loaded.recipe.train.seed
    with RunWatcher(output, title, roots[0]) as watcher:
        argv = ["mmtool", *sys.argv[1:]]
        try:
            request = TrainRequest(loaded, *roots, label, argv, watcher, link_watcher(output), task)
            result = run_engine(request)
        except StoppedResumable as stopped:
            done.append(_stopped(stopped, seed, watcher))
            _print_runs(output, done)
            raise
    done.append(_finished(result, seed, watcher))
    _closing_line(output, result.run)


def _resume(
    output: Output, run: str, root: Path, data_root: Path | None, *, may_change: bool
) -> None:
    from mmtool.engine.launch import resume as resume_engine
    from mmtool.runlog.rundir import resolve_run

    task = find_own_task(Asked())
    if task is not None and not task.is_first:
        follow(task)
    path = resolve_run(run, root).path
    output.run_path = path
    with RunWatcher(output, path.name, path.parent) as watcher:
        argv = ["mmtool", *sys.argv[1:]]
        try:
            result = resume_engine(
                path,
                data_root=data_root,
                argv=argv,
                on_event=watcher,
                on_link=link_watcher(output),
                task=task,
                may_change=may_change,
            )
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
        "metric": watcher.metric,
        "summary": result.summary,
    }


def _stopped(error: StoppedResumable, seed: int | None, watcher: RunWatcher) -> dict[str, Any]:
    path = error.where or watcher.run_path
    return {
        "run": path,
        "state": "stopped",
        "seed": seed,
        "accuracy": watcher.accuracy,
        "metric": watcher.metric,
    }


def _print_runs(
    output: Output,
    runs: Sequence[Mapping[str, Any]],
    spread: Mapping[str, tuple[float, float]] | None = None,
) -> None:
    data: dict[str, Any] = {"runs": runs}
    if spread:
        data["seeds"] = {s: {"mean": m, "std": d} for s, (m, d) in spread.items()}
    output.result(SCHEMA, data, str(runs[-1]["run"]))


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
    rows = [("first", link) for link in facts["links"]]
    rows += [
        (key.replace("_", " "), _fact(key, value))
        for key, value in facts.items()
        if value and key != "links"
    ]
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
