"""`mmtool train` on a suite: every variant with every seed, whatever becomes of the others."""

import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mmtool.cli.asked import Asked
from mmtool.cli.options import refuse_with
from mmtool.cli.output import Output, align
from mmtool.cli.prepare import ensure_prepared
from mmtool.cli.seeds import Work, num_side_by_side, parse_seeds, train_side_by_side
from mmtool.cli.watcher import RunWatcher, link_watcher
from mmtool.errors import MmtoolError, RequestError, StoppedResumable, WorkFailed
from mmtool.text import plural

if TYPE_CHECKING:
    from mmtool.config.load import Loaded
    from mmtool.engine.suite import Member

SCHEMA = "mmtool.train/1"
_AGAIN = "start the suite again: what is done is kept, what was begun is continued"


def asked_for_suite(asked: Asked) -> bool:
    """Whether the recipe on the command line is a suite; what is wrong with it is said later."""
    from mmtool.config.load import is_suite

    return asked.recipe is not None and is_suite(asked.recipe)


def train_suite(
    output: Output,
    asked: Asked,
    variants: Sequence[str],
    roots: tuple[Path, Path],
    *,
    jobs: int | None,
    dry_run: bool,
) -> None:
    """Train what is not done yet of a suite; prints the folder of its runs."""
    from mmtool.config.load import load_recipe
    from mmtool.engine.joined import find_task
    from mmtool.engine.suite import keep_record, plan_members

    refuse_with("a suite", {"--name": asked.name}, why="its runs are named by its variants")
    task = find_task(os.environ)
    if task is not None:
        raise RequestError(
            f"{task.kind} started several tasks, and a suite starts its runs itself",
            where="command line",
            fix=f"mmtool train {asked.recipe}    # in one process",
        )
    overrides = asked.overrides(_ranks(asked), None)
    # What is wrong with a named variant or its options is said before anything else is looked at.
    named = [
        load_recipe(str(asked.recipe), overrides, variant=name) for name in variants or (None,)
    ]
    base = named[0]
    folder = roots[0] / base.name
    ensure_prepared(output, base, roots[1], dry_run=dry_run)
    members = plan_members(folder, _recipes(asked, base, variants), roots[1])
    chosen = [member for member in members if not variants or member.variant in variants]
    if dry_run:
        _dry_run(output, folder, chosen)
        return
    if not variants or not (folder / "suite.json").is_file():
        keep_record(folder, base, str(asked.recipe), members)
    _say_strangers(output, folder, members)
    waiting = [member for member in chosen if member.state != "done"]
    output.info(f"{folder}: {plural(len(chosen), 'run')}, {len(chosen) - len(waiting)} done")
    at_once = min(_num_at_once(base, jobs), max(len(waiting), 1))
    if at_once > 1:
        failures = _side_by_side(output, asked, waiting, roots, at_once)
    else:
        failures = _one_by_one(output, waiting, folder, roots[1])
    _conclude(output, folder, chosen, failures)


def _ranks(asked: Asked) -> int | None:
    if asked.gpus is None or asked.gpus.isdecimal():
        return None if asked.gpus is None else int(asked.gpus)
    raise RequestError(
        f"--gpus {asked.gpus} has no meaning with a suite",
        where="command line",
        why="on a machine with several GPUs its runs go side by side, one on each",
        fix="drop --gpus",
    )


def _recipes(
    asked: Asked, base: "Loaded", variants: Sequence[str]
) -> "dict[tuple[str, int], Loaded]":
    """Load every variant with every seed, seeds outermost: a part of a suite has all variants.

    Where variants were named, what the command line sets of a method is for those: another method
    may not have that option.
    """
    from mmtool.config.load import load_recipe

    assert base.suite is not None
    seeds: Sequence[int] = base.suite.seeds
    if asked.seeds is not None or asked.seed is not None:
        seeds = [asked.seed] if asked.seed is not None else parse_seeds(str(asked.seeds))
    beside_method = [
        text for text in asked.settings or () if not text.startswith(("method.", "method="))
    ]
    of_others = replace(asked, settings=beside_method)

    def load(variant: str, seed: int) -> "Loaded":
        of_this = asked if not variants or variant in variants else of_others
        overrides = of_this.overrides(_ranks(asked), seed)
        return load_recipe(str(asked.recipe), overrides, variant=variant)

    return {
        (variant, seed): load(variant, seed) for seed in seeds for variant in base.suite.variants
    }


def _dry_run(output: Output, folder: Path, chosen: "Sequence[Member]") -> None:
    rows = [(m.variant, f"seed {m.seed}", m.state, m.run.name) for m in chosen]
    runs = [
        {"variant": m.variant, "seed": m.seed, "state": m.state, "run": m.run.path} for m in chosen
    ]
    data = {"dry_run": True, "suite": folder, "runs": runs}
    output.result(SCHEMA, data, [*align(rows), "", f"in {folder}"])


def _say_strangers(output: Output, folder: Path, members: "Sequence[Member]") -> None:
    from mmtool.runlog.rundir import run_names

    others = sorted(set(run_names(folder)) - {member.run.name for member in members})
    if others:
        output.note(
            f"{plural(len(others), 'run')} in {folder} with another recipe or other data than the "
            f"suite has now: {', '.join(others[:3])}{', ...' * (len(others) > 3)}"
        )


def _num_at_once(base: "Loaded", jobs: int | None) -> int:
    from mmtool.engine.devices import visible_gpus

    launch = base.recipe.launch
    num_gpus = 0 if launch.device == "cpu" else visible_gpus()
    return num_side_by_side(jobs, launch.gpus, num_gpus)


def _one_by_one(
    output: Output, waiting: "Sequence[Member]", folder: Path, data_root: Path
) -> dict[str, MmtoolError]:
    from mmtool.engine.launch import TrainRequest
    from mmtool.engine.stop import StopRequest
    from mmtool.engine.suite import train_member

    failures: dict[str, MmtoolError] = {}
    # Also between two runs a signal must not kill.
    with StopRequest(ends_process=False) as stop:
        for number, member in enumerate(waiting, start=1):
            if stop.is_set:
                what = f"stopped by {stop.reason} before {member.title}"
                raise StoppedResumable(what, fix=_AGAIN)
            title = f"{member.title} ({number} of {len(waiting)})"
            with RunWatcher(output, title, folder) as watcher:
                argv, links = ["mmtool", *sys.argv[1:]], link_watcher(output)
                request = TrainRequest(member.loaded, folder, data_root, None, argv, watcher, links)
                try:
                    train_member(member, request)
                except StoppedResumable as stopped:
                    stopped.fix = _AGAIN
                    raise
                except MmtoolError as error:
                    failures[member.title] = error
                    output.warning(f"{member.title} failed: {error.what}")
    return failures


def _side_by_side(
    output: Output,
    asked: Asked,
    waiting: "Sequence[Member]",
    roots: tuple[Path, Path],
    at_once: int,
) -> dict[str, MmtoolError]:
    from mmtool.engine.devices import visible_gpus

    shared = asked.again(roots)
    work = [
        Work(m.title, (*shared, "--jobs", "1", "--variant", m.variant, "--seed", str(m.seed)))
        for m in waiting
    ]
    is_cpu = waiting[0].loaded.recipe.launch.device == "cpu"
    num_gpus = 0 if is_cpu else visible_gpus()
    _, failures = train_side_by_side(output, work, at_once=at_once, num_gpus=num_gpus)
    for error in failures.values():
        if isinstance(error, StoppedResumable):
            error.fix = _AGAIN
            raise error
    return failures


def _conclude(
    output: Output, folder: Path, chosen: "Sequence[Member]", failures: dict[str, MmtoolError]
) -> None:
    runs = [
        {"run": m.run.path, "state": m.run.read_status().get("state"), "seed": m.seed}
        | {"variant": m.variant}
        for m in chosen
    ]
    output.result(SCHEMA, {"suite": folder, "runs": runs}, str(folder))
    output.hint(f"mmtool diagnose {folder}")
    if failures:
        raise WorkFailed(
            f"{len(failures)} of {plural(len(chosen), 'run')} failed, the others are done",
            where=str(folder),
            why="\n    ".join(f"{title}: {error.what}" for title, error in failures.items()),
            fix="the same command tries these again: what is done is kept",
        )
