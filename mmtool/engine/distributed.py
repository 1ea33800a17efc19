"""Ranks and their reductions; the only file that imports torch.distributed.

Every rank calls the same reductions in the same order. With one rank nothing is communicated.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import PrefixStore, TCPStore  # torch.distributed re-exports them

from mmtool.errors import EnvironmentLacks, WorkFailed

LISTEN_FD = "MMTOOL_LISTEN_FD"
"""Environment variable: file descriptor of the launcher's listening socket, inherited by rank 0."""


_CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process among its peers."""

    rank: int = 0
    world: int = 1
    device: torch.device = _CPU

    @property
    def is_first(self) -> bool:
        """Whether this rank writes checkpoints and the main log."""
        return self.rank == 0

    def sum_(self, tensor: Tensor) -> Tensor:
        """Sum a tensor over ranks in place."""
        return self._reduce(tensor, dist.ReduceOp.SUM)

    def max_(self, tensor: Tensor) -> Tensor:
        """Take the element-wise maximum over ranks in place."""
        return self._reduce(tensor, dist.ReduceOp.MAX)

    def min_(self, tensor: Tensor) -> Tensor:
        """Take the element-wise minimum over ranks in place."""
        return self._reduce(tensor, dist.ReduceOp.MIN)

    def sum_many_(self, tensors: Sequence[Tensor]) -> None:
        """Sum a list of tensors over ranks in place, as one flat buffer per data type."""
        if self.world == 1 or not tensors:
            return
        for dtype in sorted({t.dtype for t in tensors}, key=str):
            same = [t for t in tensors if t.dtype == dtype]
            flat = torch.cat([t.reshape(-1) for t in same])
            self.sum_(flat)
            pieces = flat.split([t.numel() for t in same])
            views = [piece.view_as(t) for piece, t in zip(pieces, same, strict=True)]
            torch._foreach_copy_(same, views)

    def broadcast_(self, tensor: Tensor) -> Tensor:
        """Replace a tensor by rank 0's."""
        if self.world > 1:
            self._guard(lambda: dist.broadcast(tensor, src=0))
        return tensor

    def barrier(self) -> None:
        """Wait until every rank is here."""
        self.sum_(torch.zeros(1))

    def _reduce(self, tensor: Tensor, operation: "dist.ReduceOp.RedOpType") -> Tensor:
        if self.world > 1:
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
    listen = os.environ.get(LISTEN_FD) if rank == 0 else None
    store = TCPStore(
        os.environ["MASTER_ADDR"],
        int(os.environ["MASTER_PORT"]),
        world,
        is_master=rank == 0,
        timeout=timeout,
        wait_for_workers=False,
        master_listen_fd=None if listen is None else int(listen),
        use_libuv=True,
    )
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(
        backend,
        store=PrefixStore("mmtool", store),
        rank=rank,
        world_size=world,
        timeout=timeout,
    )
    return Ranks(rank, world, device)


def leave(ranks: Ranks) -> None:
    """Leave the process group."""
    if ranks.world > 1 and dist.is_initialized():
        dist.destroy_process_group()
