"""The runs before a run: which there are, which are done, and training those that are not.

A link that a recipe leaves to `auto` has a run directory named by what it computes,

    runs/teachers/<modality>_<key>,    key = SHA-256 of (its recipe, content of the store, NUMERICS)

so that any run that needs the same model finds it. It is an ordinary run. Whoever holds its lock
trains it; others wait for it. One that was interrupted is continued. Nothing here loads torch.
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmtool.config.dump import to_toml
from mmtool.config.links import AUTO, Link, links_of
from mmtool.config.load import load_recipe
from mmtool.config.schema import Recipe
from mmtool.data.dataset import open_dataset
from mmtool.engine.manifest import newest_first, read_manifest, verify
from mmtool.engine.same_recipe import is_free, recorded
from mmtool.engine.stop import StopRequest
from mmtool.errors import CheckpointError, RequestError, RunDirectoryError, StoppedResumable
from mmtool.runlog.env import describe_environment
from mmtool.runlog.rundir import RunDir, make_run, resolve_run
from mmtool.types import Modality

NUMERICS = 1
"""Raised by a change that gives the same recipe other weights (Numerics in CHANGELOG.md)."""

FOLDER = "teachers"
_KEY_LETTERS = 16
_POLL_S = 0.2


@dataclass(frozen=True, slots=True)
class Weights:
    """Trained weights of a link, checked against their checksums."""

    path: Path
    """Folder of a checkpoint, or a file that `mmtool export` wrote."""
    sha256: str


@dataclass(frozen=True, slots=True)
class PlannedLink:
    """A link and how far it is."""

    link: Link
    source: Path
    """The directory of its run, or its file."""
    key: str
    """Empty for what the recipe names itself."""
    weights: Weights | None
    """None while it has to be trained."""

    @property
    def modality(self) -> Modality:
        """The modality it is a model of."""
        return self.link.modality

    @property
    def is_begun(self) -> bool:
        """Whether an unfinished run has a checkpoint to go on from."""
        return any((self.source / "ckpt").glob("step[0-9]*"))

    def in_words(self) -> str:
        """Say what will happen to it."""
        if self.weights is not None:
            return f"{self.modality} alone: done, {self.source}"
        does = "is continued" if self.is_begun else "is trained first"
        return f"{self.modality} alone: {does}, {self.source}"

    def facts(self, weights: Weights) -> dict[str, str]:
        """Give what a run remembers of it."""
        where = {"run": str(self.source), "weights": str(weights.path), "sha256": weights.sha256}
        return {**where, "key": self.key}


def plan_links(recipe: Recipe, runs_root: Path, data_root: Path) -> list[PlannedLink]:
    """Give the links of a recipe; refuses those that it names and that cannot be used."""
    if not links_of(recipe, recipe.data.modalities or tuple(recipe.model.encoders)):
        return []
    dataset = open_dataset(recipe.data, data_root)
    store_hash = dataset.store.hash
    dataset.store.close()
    return [plan_link(link, runs_root, store_hash) for link in links_of(recipe, dataset.modalities)]


def plan_link(link: Link, runs_root: Path, store_hash: str) -> PlannedLink:
    """Say where the model of a link lies, or will lie, and how far it is."""
    if link.source == AUTO:
        key = link_key(link.recipe, store_hash)
        path = (runs_root / FOLDER / f"{link.modality}_{key[:_KEY_LETTERS]}").resolve()
        is_done = RunDir(path).read_status().get("state") == "done"
        again = f"rm -r {path}    # it is then trained anew"
        return PlannedLink(link, path, key, _selected(path, link, again) if is_done else None)
    if link.source.endswith(".safetensors"):
        return PlannedLink(link, Path(link.source).resolve(), "", _exported(link))
    run = resolve_run(link.source, runs_root)
    if run.read_status().get("state") != "done":
        raise RequestError(
            f"the run of the {link.modality} teacher is not finished",
            where=str(run.path),
            why=f"its state is {run.read_status().get('state', 'unknown')}",
            fix=f"mmtool train --resume {run.path}",
        )
    again = f"-s method.teachers.{link.modality}=auto"
    return PlannedLink(link, run.path, "", _selected(run.path, link, again))


def link_key(recipe: Recipe, store_hash: str) -> str:
    """Give the hash of everything that the weights of a link depend on."""
    kept = {
        key: value
        for key, value in recorded(recipe).items()
        if not is_free(key) and not key.startswith("log.") and key != "data.dataset"
    }
    files = {value: _sha256(Path(value)) for value in kept.values() if _is_plugin_file(value)}
    what = {"recipe": kept, "files": files, "store": store_hash, "numerics": NUMERICS}
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()


def _is_plugin_file(value: object) -> bool:
    return isinstance(value, str) and value.endswith(".py") and Path(value).is_file()


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _exported(link: Link) -> Weights:
    path = Path(link.source).resolve()
    if not path.is_file():
        raise RequestError(
            f"there is no file {link.source}",
            where=f"method.teachers.{link.modality}",
            fix=f"mmtool export RUN --to {link.source}",
        )
    return Weights(path, _sha256(path))


def _selected(run: Path, link: Link, again: str) -> Weights:
    """Give the weights that a finished run was evaluated with; refuse damaged ones."""
    recipe = load_recipe(str(run / "resolved.toml"), check_plugins=False).recipe
    kind = "best" if recipe.train.select == "best" else "step"
    found = newest_first(run / "ckpt", kind)
    problem = verify(found[0]) if found else f"there is no checkpoint {kind}*"
    if problem is not None:
        raise CheckpointError(
            f"the {link.modality} teacher is damaged: {problem}",
            where=str(run / "ckpt"),
            why="the run is done, and what it was evaluated with is not there any more",
            fix=again,
        )
    files = json.dumps(read_manifest(found[0])["files"], sort_keys=True)
    return Weights(found[0], hashlib.sha256(files.encode()).hexdigest())


def refuse_unfinished(planned: Sequence[PlannedLink], *, why: str) -> None:
    """Refuse to begin where links cannot be trained before."""
    waiting = [one for one in planned if one.weights is None]
    if waiting:
        raise RequestError(
            f"{', '.join(one.modality for one in waiting)} alone has to be trained first",
            where=", ".join(str(one.source) for one in waiting),
            why=why,
            fix="start the recipe once in one process of its own (mmtool train RECIPE --gpus N, or "
            "--slurm --gpus 1); what it trains first is found again",
        )


@dataclass(frozen=True, slots=True)
class Chain:
    """How links are trained on behalf of a run."""

    of: RunDir
    data_root: Path
    execute: Callable[[RunDir, Recipe], None]
    """Trains a run that is prepared and locked, or continues it."""
    say: Callable[[str], None]
    note: Callable[[str], None]
    """Is told what is being trained, for whoever looks at the run meanwhile."""

    def finish(self, planned: Sequence[PlannedLink]) -> dict[Modality, dict[str, str]]:
        """Train what is not done yet; give what the run has to remember of each link."""
        found = {}
        with StopRequest(ends_process=False) as stop:
            for number, one in enumerate(planned, start=1):
                if stop.is_set:
                    raise _stopped(stop)
                weights = one.weights
                if weights is None:
                    title = f"{one.modality} alone, link {number} of {len(planned)}"
                    self.note(f"training {title}: {one.source}")
                    self.say(f"{title}: {one.source}")
                    weights = self._trained(one, stop)
                else:
                    self.say(f"{one.modality} alone: found in {one.source}")
                found[one.modality] = one.facts(weights)
            if stop.is_set:
                raise _stopped(stop)
        return found

    def _trained(self, one: PlannedLink, stop: StopRequest) -> Weights:
        run = make_run(one.source)
        with _own(run, stop, self.say):
            # Somebody else may have trained it meanwhile.
            if run.read_status().get("state") != "done":
                self._prepare(run, one)
                self.execute(run, one.link.recipe)
        return _selected(run.path, one.link, f"rm -r {run.path}    # it is then trained anew")

    def _prepare(self, run: RunDir, one: PlannedLink) -> None:
        text = to_toml(one.link.recipe)
        run.write_recipe(f"# {one.modality} alone, for {self.of.name}\n\n{text}", text)
        if not run.env_path.exists():
            run.write_env({**describe_environment([]), "link_of": self.of.name, "key": one.key})
        if not run.launch_path.exists():
            run.write_launch({"data_root": str(self.data_root), "attempt": 0})


@contextmanager
def _own(run: RunDir, stop: StopRequest, say: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock of a run, once whoever trains it has finished."""
    with ExitStack() as held:
        is_told = False
        while True:
            try:
                held.enter_context(run.lock())
                break
            except RunDirectoryError as busy:
                if not is_told:
                    say(f"waiting: {busy.what}")
                is_told = True
            if stop.is_set:
                raise _stopped(stop)
            time.sleep(_POLL_S)
        yield


def _stopped(stop: StopRequest) -> StoppedResumable:
    return StoppedResumable(
        f"stopped by {stop.reason} before the run itself began",
        why="what was trained of its links is kept",
        fix="mmtool train --resume RUN",
    )


def check_same(before: Mapping[str, Any], now: Mapping[str, Any], run: Path) -> None:
    """Refuse to go on with other teachers than the run began with."""
    for modality, facts in before.items():
        if modality in now and facts["sha256"] != now[modality]["sha256"]:
            raise RequestError(
                f"the {modality} teacher is not the one this run began with",
                where=str(run),
                why=f"it was {facts['weights']}, now it is {now[modality]['weights']}",
                fix="train the recipe again, or go on with other targets: --allow-change",
            )
