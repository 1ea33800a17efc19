"""Several seeds of one recipe: reading the list, and running them side by side."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

from mmtool.cli.output import Output
from mmtool.errors import MmtoolError, RequestError, StoppedResumable, WorkFailed

_POLL_S = 0.1


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


def seed_spread(accuracies: Sequence[Mapping[str, float]]) -> dict[str, tuple[float, float]]:
    """Give mean and sample standard deviation of each split that every seed measured."""
    spread = {}
    for split in ("val", "test"):
        values = [found[split] for found in accuracies if split in found]
        if len(values) == len(accuracies) > 0:
            spread[split] = (mean(values), stdev(values) if len(values) > 1 else 0.0)
    return spread


def say_spread(
    output: Output, spread: Mapping[str, tuple[float, float]], count: int, metric: str = "accuracy"
) -> None:
    """Tell the person how much the seeds differ."""
    sign = output.glyph("plus_minus", stream=output.stderr)
    for split, (middle, deviation) in spread.items():
        score = metric.replace("_", " ")
        output.info(f"{split} {score} over {count} seeds: {middle:.4f} {sign} {deviation:.4f}")


def num_side_by_side(asked: int | None, num_ranks: int, num_gpus: int) -> int:
    """Give how many runs go on at once: one per GPU, on a CPU as many as were asked for."""
    if asked is not None:
        return asked
    return num_gpus if num_ranks == 1 and num_gpus > 1 else 1


@dataclass(frozen=True, slots=True)
class Work:
    """One run to train in a process of its own."""

    title: str
    arguments: tuple[str, ...]
    """What follows `mmtool train`."""


@dataclass(slots=True)
class _Running:
    work: Work
    slot: int
    process: "subprocess.Popen[str]"


def train_side_by_side(
    output: Output, works: Sequence[Work], *, at_once: int, num_gpus: int
) -> tuple[dict[str, dict[str, Any]], dict[str, MmtoolError]]:
    """Train every run in a process of its own; give what each printed, and failures, by title."""
    from mmtool.engine.stop import StopRequest

    waiting, free = list(works), list(range(at_once))
    running: list[_Running] = []
    done: dict[str, dict[str, Any]] = {}
    failures: dict[str, MmtoolError] = {}
    with StopRequest(ends_process=False) as stop:
        while running or (waiting and not stop.is_set):
            while waiting and free and not stop.is_set:
                slot, work = free.pop(0), waiting.pop(0)
                running.append(_Running(work, slot, _start(work, slot, num_gpus)))
                output.info(f"{work.title}: started")
            if stop.is_set:
                _pass_on(running, is_forced=stop.is_forced)
            for one in [r for r in running if r.process.poll() is not None]:
                running.remove(one)
                free.append(one.slot)
                text, words = one.process.communicate()
                code = one.process.returncode
                title = one.work.title
                if code == 0:
                    done[title] = json.loads(text)["runs"][0]
                    output.info(f"{title}: done, {done[title]['run']}")
                else:
                    failures[title] = _failure(title, code, text, words)
                    output.info(f"{title}: {failures[title].what.removeprefix(f'{title}: ')}")
            time.sleep(_POLL_S)
        if waiting:
            failures[waiting[0].title] = StoppedResumable(f"{waiting[0].title} was not begun")
    return done, failures


def _start(work: Work, slot: int, num_gpus: int) -> "subprocess.Popen[str]":
    from mmtool.engine.children import die_with_parent

    env = dict(os.environ)
    if num_gpus:
        listed = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(num_gpus))))
        env["CUDA_VISIBLE_DEVICES"] = listed.split(",")[slot % num_gpus].strip()
    command = [sys.executable, "-m", "mmtool", "train", *work.arguments, "--json"]
    return subprocess.Popen(
        command,
        env=env,
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=die_with_parent,
    )


def _pass_on(running: Sequence[_Running], *, is_forced: bool) -> None:
    for one in running:
        if is_forced:
            one.process.kill()
        else:
            one.process.terminate()


def _failure(title: str, code: int, text: str, words: str) -> MmtoolError:
    """Say again what the process of a run said about its failure."""
    try:
        document = json.loads(text)
    except ValueError:
        document = {}
    told = document.get("error") or {"what": f"exit code {code}", "why": words.strip()}
    details = {key: str(told.get(key, "")) for key in ("where", "why", "fix")}
    what = f"{title}: {told['what']}"
    if code == StoppedResumable.exit_code:
        runs = " ".join(str(run["run"]) for run in document.get("runs", ()))
        return StoppedResumable(f"{title} was stopped", fix=f"mmtool train --resume {runs}")
    error = WorkFailed(what, **details)
    error.exit_code = code if code > 0 else 128 - code
    return error
