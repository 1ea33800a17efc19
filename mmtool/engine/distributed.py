"""Ranks and their reductions; the only file that imports torch.distributed.

Every rank calls the same reductions in the same order. With one rank nothing is communicated.
"""

import os
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import PrefixStore, TCPStore  # torch.distributed re-exports them

from mmtool.engine.pulse import LISTEN_FD
from mmtool.errors import EnvironmentLacks, WorkFailed

_CPU = torch.device("cpu")


class Trace:
    """A number that says which collectives this rank has issued, in which order.

    Collectives of the same size in another order give wrong sums on all ranks alike and raise no
    error anywhere; ranks that compare this number notice.
    """

    def __init__(self) -> None:
        self.value = 0

    def add(self, operation: str, name: str, tensor: Tensor) -> None:
        """Take note of a collective."""
        text = f"{operation} {name} {tensor.dtype} {tensor.numel()}"
        self.value = zlib.crc32(text.encode(), self.value)


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process among its peers."""

    rank: int = 0
    world: int = 1
    device: torch.device = _CPU
    trace: Trace = field(default_factory=Trace, compare=False, repr=False)

    @property
    def is_first(self) -> bool:
        """Whether this rank writes checkpoints and the main log."""
        return self.rank == 0

    def sum_(self, tensor: Tensor, name: str = "") -> Tensor:
        """Sum a tensor over ranks in place."""
        return self._reduce(tensor, dist.ReduceOp.SUM, name)

    def max_(self, tensor: Tensor, name: str = "") -> Tensor:
        """Take the element-wise maximum over ranks in place."""
        return self._reduce(tensor, dist.ReduceOp.MAX, name)

    def min_(self, tensor: Tensor, name: str = "") -> Tensor:
        """Take the element-wise minimum over ranks in place."""
        return self._reduce(tensor, dist.ReduceOp.MIN, name)

    def sum_many_(self, tensors: Sequence[Tensor], name: str = "") -> None:
        """Sum a list of tensors over ranks in place, as one flat buffer per data type."""
        if self.world == 1 or not tensors:
            return
        for dtype in sorted({t.dtype for t in tensors}, key=str):
            same = [t for t in tensors if t.dtype == dtype]
            flat = torch.cat([t.reshape(-1) for t in same])
            self.sum_(flat, name)
            pieces = flat.split([t.numel() for t in same])
            views = [piece.view_as(t) for piece, t in zip(pieces, same, strict=True)]
            torch._foreach_copy_(same, views)

    def begin_sum(self, tensor: Tensor, name: str) -> Callable[[], None]:
        """Start to sum a tensor over ranks in place; the call that is given back waits for it."""
        if self.world == 1:
            return lambda: None
        self.trace.add("sum", name, tensor)
        work = dist.all_reduce(tensor, op=dist.ReduceOp.SUM, async_op=True)
        return lambda: self._guard(work.wait)

    def broadcast_(self, tensor: Tensor) -> Tensor:
        """Replace a tensor by rank 0's."""
        if self.world > 1:
            self.trace.add("broadcast", "", tensor)
            self._guard(lambda: dist.broadcast(tensor, src=0))
        return tensor

    def mesh(self, device: str | None = None) -> Any:
        """Give all ranks as a device mesh, for torch's own ways of sharding."""
        from torch.distributed.device_mesh import init_device_mesh

        return init_device_mesh(device or self.device.type, (self.world,))

    def side_group(self) -> Any:
        """Give a second group of all ranks, for a thread of its own; None with one rank."""
        return dist.new_group(backend="gloo") if self.world > 1 else None

    def barrier(self) -> None:
        """Wait until every rank is here."""
        self.sum_(torch.zeros(1))

    def _reduce(self, tensor: Tensor, operation: "dist.ReduceOp.RedOpType", name: str) -> Tensor:
        if self.world > 1:
            self.trace.add(str(operation), name, tensor)
            self._guard(lambda: dist.all_reduce(tensor, op=operation))
        return tensor

    def _guard(self, call: Callable[[], object]) -> None:
        try:
            call()
        except RuntimeError as err:
            raise PeerLost(
                f"rank {self.rank} lost contact with the other ranks: {err}",
                why="another rank stopped, or waited longer than launch.timeout_s",
                fix="see the first failing rank's log in the run directory",
            ) from err


class PeerLost(WorkFailed):
    """A collective failed because another rank is gone; never the first cause."""


def choose_device(wanted: str, local_rank: int = 0) -> torch.device:
    """Give the device of this rank, or explain why there is none."""
    available = torch.cuda.is_available()
    if wanted == "cpu" or (wanted == "auto" and not available):
        return torch.device("cpu")
    if not available:
        raise EnvironmentLacks(
            "launch.device is 'cuda' but torch sees no GPU", fix="--device cpu, or mmtool doctor"
        )
    torch.cuda.set_device(local_rank)
    return torch.device("cuda", local_rank)


def join(device: torch.device, *, timeout_s: float) -> Ranks:
    """Join the process group described by RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        return Ranks(device=device)
    rank = int(os.environ["RANK"])
    timeout = timedelta(seconds=timeout_s)
    store = _meeting_point(timeout)
    # Ranks load torch for different times; collectives are timed from when all are here.
    store.set(f"rank{rank}", "here")
    start = timedelta(seconds=max(timeout_s, _START_S))
    store.wait([f"rank{peer}" for peer in range(world)], start)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(
        backend,
        store=PrefixStore("mmtool", store),
        rank=rank,
        world_size=world,
        timeout=timeout,
    )
    return Ranks(rank, world, device)


def share_text(text: str | None, *, timeout_s: float) -> str:
    """Give every rank the text of rank 0, once and before the ranks are joined."""
    try:
        store = PrefixStore("mmtool-text", _meeting_point(timedelta(seconds=timeout_s)))
        if text is not None:
            store.set("text", text)
        return store.get("text").decode()
    except RuntimeError as err:
        raise PeerLost(f"the ranks did not meet: {err}", where=os.environ["MASTER_ADDR"]) from err


_START_S = 300.0
_stores: dict[str, PrefixStore] = {}


def _meeting_point(timeout: timedelta) -> PrefixStore:
    """Give the store through which the ranks find each other; one per process."""
    if "only" not in _stores:
        rank, address = int(os.environ["RANK"]), os.environ["MASTER_ADDR"]
        # torchrun's agent keeps a store of its own at that port, for all attempts.
        is_hosted = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
        listen = os.environ.get(LISTEN_FD) if rank == 0 else None
        store = TCPStore(
            address,
            int(os.environ["MASTER_PORT"]),
            int(os.environ["WORLD_SIZE"]),
            is_master=rank == 0 and not is_hosted,
            timeout=timeout,
            wait_for_workers=False,
            master_listen_fd=None if listen is None else int(listen),
            use_libuv=True,
        )
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        _stores["only"] = PrefixStore(f"attempt{attempt}", store)
    return _stores["only"]


def leave(ranks: Ranks) -> None:
    """Leave the process group."""
    if ranks.world > 1 and dist.is_initialized():
        dist.destroy_process_group()
