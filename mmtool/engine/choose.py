"""Which checkpoint a run continues from: the newest one that is whole, the same on every rank."""

import pickle
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from mmtool.engine import sharded
from mmtool.engine.distributed import PeerLost, Ranks
from mmtool.engine.manifest import newest_first, verify
from mmtool.errors import CheckpointError

WEIGHTS, STATE, ABOUT = "model.safetensors", "state.pt", "about.json"
UNREADABLE = (OSError, RuntimeError, ValueError, KeyError, SafetensorError, pickle.PickleError)
_NAME_BYTES = 32


def check(path: Path) -> str | None:
    """Give what is wrong with a checkpoint, or None; reads no more of it than that takes."""
    problem = verify(path)
    if problem is not None:
        return problem
    name = ""
    try:
        if (path / WEIGHTS).exists():
            name = WEIGHTS
            with safe_open(path / WEIGHTS, "pt") as file:
                file.keys()
        else:
            name = sharded.METADATA
            sharded.check(path)
        if (path / STATE).exists():
            name = STATE
            torch.load(path / STATE, map_location="cpu", weights_only=True, mmap=True)
    except UNREADABLE as err:
        return f"{path.name}/{name} is refused ({str(err).splitlines()[0][:200]})"
    return None


def choose_checkpoint(folder: Path, kind: str = "step") -> tuple[Path, list[str]]:
    """Give the newest good checkpoint of a kind and what was wrong with those passed over."""
    refused: list[str] = []
    for path in newest_first(folder, kind):
        problem = check(path)
        if problem is None:
            return path, refused
        refused.append(problem)
    raise CheckpointError(
        f"no usable checkpoint in {folder}",
        why="; ".join(refused) or "the run stopped before its first checkpoint",
        fix="start the recipe again: mmtool train RECIPE",
    )


def choose_together(ranks: Ranks, folder: Path, kind: str = "step") -> tuple[Path, list[str]]:
    """Give every rank the checkpoint that rank 0 chooses; the reasons are known to rank 0 alone."""
    refused: list[str] = []
    name, failure = "", None
    if ranks.is_first:
        try:
            path, refused = choose_checkpoint(folder, kind)
            name = path.name
        except CheckpointError as err:
            failure = err
    letters = torch.zeros(_NAME_BYTES, dtype=torch.int64)
    letters[: len(name)] = torch.tensor(list(name.encode()), dtype=torch.int64)
    chosen = bytes(ranks.broadcast_(letters).tolist()).rstrip(b"\0").decode()
    if failure is not None:
        raise failure
    if not chosen:
        # Rank 0 says why; what this rank says must not be taken for the cause.
        raise PeerLost(f"rank 0 found no usable checkpoint in {folder}")
    return folder / chosen, refused
