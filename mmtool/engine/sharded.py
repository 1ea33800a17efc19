"""Checkpoints of which every rank writes its part: `train.checkpoint = "sharded"`.

    step00000120/   parts/ (torch's distributed checkpoint)   state.pt   manifest.json

The parts hold tensors only: weights, slots of the optimiser and snapshots of parameters, by names
that do not depend on how they are spread. What is small is in `state.pt`. torch's reader would
unpickle its own metadata without asking what is in it; here only the classes it consists of may be.
"""

import io
import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmtool.engine.distributed import Ranks
from mmtool.engine.job import Job
from mmtool.engine.optim import lay_out_state
from mmtool.errors import CheckpointError
from mmtool.types import PROBE_GROUP

FOLDER = "parts"
METADATA = f"{FOLDER}/.metadata"
_TRUSTED_MODULES = (
    "torch.distributed.checkpoint.metadata",
    "torch.distributed.checkpoint.filesystem",
)
_TRUSTED_NAMES = {
    ("torch", "Size"),
    ("torch.serialization", "_get_layout"),
    ("collections", "OrderedDict"),
    ("pathlib", "PosixPath"),
}


def is_wanted(job: Job) -> bool:
    """Tell whether the ranks of this job write their parts of a checkpoint."""
    return job.recipe.train.checkpoint == "sharded"


def own_group(ranks: Ranks) -> Any:
    """Give a group of all ranks for writing beside training; all ranks must call it."""
    return ranks.side_group()


def is_first(group: Any) -> bool:
    """Tell whether this rank writes what is not spread."""
    return group is None or group.rank() == 0


def local(value: Any) -> Tensor:
    """Give this rank's part of a tensor."""
    part: Tensor = value.to_local() if hasattr(value, "to_local") else value
    return part


def parts(job: Job, *, weights_only: bool) -> dict[str, Any]:
    """Give all that is spread over the ranks, by name; sharded tensors stay sharded."""
    found: dict[str, Any] = {f"model/{n}": v for n, v in job.model.state_dict().items()}
    if weights_only:
        return found
    for name, parameter in _named(job).items():
        for slot, value in job.optimizer.state.get(parameter, {}).items():
            found[f"optimizer/{name}/{slot}"] = job.shards.as_sharded(parameter, value)
    for title, values in job.snapshots.items():
        members = job.groups[title.partition("@")[0]]
        for number, ((_, parameter), value) in enumerate(zip(members, values, strict=True)):
            found[f"snapshot/{title}/{number}"] = job.shards.as_sharded(parameter, value)
    return found


def outline(job: Job) -> dict[str, Any]:
    """Give what `state.pt` has to say of the parts, so that they can be found again."""
    return {
        "optimizer": None,
        "options": job.optimizer.state_dict()["param_groups"],
        "slots": {n: list(job.optimizer.state.get(p, {})) for n, p in _named(job).items()},
        "snapshots": {title: len(values) for title, values in job.snapshots.items()},
    }


def write(found: Mapping[str, Any], temporary: Path | None, group: Any) -> Exception | None:
    """Write this rank's part into the folder that rank 0 made; give what went wrong anywhere."""
    dcp = _torch_checkpoints()
    told = _told("" if temporary is None else str(temporary), group)
    if not told:
        return OSError("rank 0 could not begin it")
    writer = dcp.FileSystemWriter(f"{told}/{FOLDER}", sync_files=True, thread_count=1)
    try:
        dcp.save(dict(found), storage_writer=writer, process_group=group, no_dist=group is None)
    except dcp.CheckpointException as err:
        return OSError(f"rank {min(err.failures)}: {next(iter(err.failures.values()))[0]}")
    return None


def agree(failure: Exception | None, group: Any) -> Exception | None:
    """Give every rank what went wrong on rank 0."""
    told = _told("" if failure is None else str(failure) or type(failure).__name__, group)
    return failure or (OSError(told) if told else None)


def _told(text: str, group: Any) -> str:
    if group is None:
        return text
    from torch.distributed import broadcast_object_list

    told = [text]
    broadcast_object_list(told, group_src=0, group=group)
    return told[0]


def check(path: Path) -> None:
    """Raise unless the metadata of the parts is what torch writes and nothing else."""
    _reader(path).read_metadata()


def read_weights(job: Job, path: Path) -> None:
    """Put the weights into the model, each rank taking its part."""
    _read(job, path, {f"model/{name}": value for name, value in job.model.state_dict().items()})


def read_state(job: Job, path: Path, state: Mapping[str, Any]) -> None:
    """Take back the slots of the optimiser and the snapshots, in this job's own spreading."""
    known = _reader(path).read_metadata().state_dict_metadata
    named, wanted = _named(job), dict[str, Any]()
    for name, slots in state["slots"].items():
        for slot in slots:
            key = f"optimizer/{name}/{slot}"
            empty = _empty_like(named[name], known[key])
            wanted[key] = job.shards.as_sharded(named[name], empty)
    for title, count in state["snapshots"].items():
        members = job.groups[title.partition("@")[0]]
        for number in range(count):
            parameter = members[number][1]
            value = job.shards.as_sharded(parameter, torch.empty_like(parameter.detach()))
            wanted[f"snapshot/{title}/{number}"] = value
    if wanted:
        _read(job, path, wanted)
    listed = [p for g in job.optimizer.param_groups for p in g["params"]]
    number_of = {id(p): number for number, p in enumerate(listed)}
    slots = {
        number_of[id(named[name])]: {s: local(wanted[f"optimizer/{name}/{s}"]) for s in found}
        for name, found in state["slots"].items()
        if found
    }
    job.optimizer.load_state_dict({"state": slots, "param_groups": state["options"]})
    lay_out_state(job.optimizer)
    job.snapshots = {
        title: [local(wanted[f"snapshot/{title}/{number}"]) for number in range(count)]
        for title, count in state["snapshots"].items()
    }


def _empty_like(parameter: Tensor, known: Any) -> Tensor:
    dtype = known.properties.dtype
    if len(known.size) == 0:
        return torch.zeros((), dtype=dtype, device=parameter.device)
    return torch.empty_like(parameter.detach(), dtype=dtype)


def _named(job: Job) -> dict[str, Tensor]:
    """Give the parameters the main optimiser trains, by name."""
    return {
        name: parameter
        for group, members in job.groups.items()
        if group != PROBE_GROUP
        for name, parameter in members
    }


def _read(job: Job, path: Path, wanted: dict[str, Any]) -> None:
    dcp = _torch_checkpoints()
    alone = job.ranks.world == 1
    try:
        dcp.load(wanted, storage_reader=_reader(path), no_dist=alone)
    except dcp.CheckpointException as err:
        raise CheckpointError(f"{path} could not be read: {err}") from err


def read_all(path: Path) -> dict[str, Tensor]:
    """Give the whole weights in one process, for export."""
    dcp = _torch_checkpoints()
    reader = _reader(path)
    known = reader.read_metadata().state_dict_metadata
    wanted = {
        name: torch.empty(tuple(item.size), dtype=item.properties.dtype)
        for name, item in known.items()
        if name.startswith("model/")
    }
    dcp.load(wanted, storage_reader=reader, no_dist=True)
    return {name.removeprefix("model/"): value for name, value in wanted.items()}


class _Trusting(pickle.Unpickler):
    """Unpickles the metadata of torch's distributed checkpoints and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if "." not in name:  # a dotted name could reach whatever a module has imported
            found = super().find_class(module, name)
            is_own = isinstance(found, type) and found.__module__ == module
            is_type = module == "torch" and isinstance(found, torch.dtype)
            is_trusted = is_own and module in _TRUSTED_MODULES
            if is_trusted or is_type or (module, name) in _TRUSTED_NAMES:
                return found
        raise pickle.UnpicklingError(f"it would run {module}.{name}")


def _torch_checkpoints() -> Any:
    import torch.distributed.checkpoint as dcp

    # One process is meant to be one process.
    warnings.filterwarnings("ignore", message="torch.distributed is disabled")
    return dcp


def _reader(path: Path) -> Any:
    from torch.distributed.checkpoint.filesystem import FileSystemReader

    class Reader(FileSystemReader):
        def read_metadata(self, *_: Any, **__: Any) -> Any:
            metadata = _Trusting(io.BytesIO((path / METADATA).read_bytes())).load()
            metadata.storage_meta = getattr(metadata, "storage_meta", None) or self._meta()
            metadata.storage_meta.load_id = self.load_id
            return metadata

        @staticmethod
        def _meta() -> Any:
            from torch.distributed.checkpoint.metadata import StorageMeta

            return StorageMeta()

    return Reader(path / FOLDER)
