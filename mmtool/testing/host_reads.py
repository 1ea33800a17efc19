"""Find what makes the host wait for the device, on any device.

    with watch_host_reads() as found:
        one step
    assert not found.reads

A GPU's own tool, `torch.cuda.set_sync_debug_mode`, needs one. This counts the same on a CPU: reads
of a value (`item`, `tolist`, `bool`, `numpy`, `cpu`), operators whose output shape depends on
values (`nonzero`, boolean indexing), and tensors made from Python numbers, for which a GPU's copy
waits.
"""

import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

_READING_CALLS = frozenset(
    {
        *("item", "tolist", "numpy", "cpu", "__array__", "__bool__", "__int__", "__float__"),
        *("__index__", "__contains__", "__repr__", "__format__"),
        *("tensor", "as_tensor", "asarray", "from_numpy", "new_tensor"),
    }
)
_READING_OPERATORS = frozenset(
    {
        *("aten::_local_scalar_dense", "aten::item", "aten::is_nonzero", "aten::equal"),
        *("aten::nonzero", "aten::nonzero_numpy", "aten::argwhere", "aten::masked_select"),
        *("aten::_unique", "aten::_unique2", "aten::unique_dim", "aten::unique_consecutive"),
        *("aten::bincount", "aten::repeat_interleave.Tensor", "aten::_ctc_loss"),
    }
)
_INDEXING_OPERATORS = frozenset(
    {"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_"}
)
_MASKS = (torch.bool, torch.uint8)


@dataclass(slots=True)
class HostReads:
    """What was found: reads with where they happened, and how often each operator ran."""

    reads: list[str] = field(default_factory=list)
    operators: Counter[str] = field(default_factory=Counter)
    num_views: int = 0

    @property
    def num_operators(self) -> int:
        """Operators that compute something; views only describe memory."""
        return sum(self.operators.values())

    def note(self, what: str) -> None:
        """Keep one read with the line of this project that caused it."""
        frames = [f for f in traceback.extract_stack() if "/torch/" not in f.filename]
        own = [f for f in frames if not f.filename.endswith("testing/host_reads.py")]
        self.reads.append(f"{what} at {own[-1].filename}:{own[-1].lineno}" if own else what)


@contextmanager
def watch_host_reads() -> Iterator[HostReads]:
    """Collect host reads and operators of everything this thread does inside."""
    found = HostReads()
    with ExitStack() as stack:
        stack.enter_context(_Calls(found))
        stack.enter_context(_Operators(found))
        yield found


class _Calls(TorchFunctionMode):
    def __init__(self, found: HostReads) -> None:
        super().__init__()
        self._found = found

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        del types
        if getattr(func, "__name__", "") in _READING_CALLS:
            self._found.note(func.__name__)
        return func(*args, **(kwargs or {}))


class _Operators(TorchDispatchMode):
    def __init__(self, found: HostReads) -> None:
        super().__init__()
        self._found = found

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        del types
        name = func._schema.name
        if name in _READING_OPERATORS or _indexes_by_mask(name, args):
            self._found.note(name)
        if func.is_view or name == "aten::detach":
            self._found.num_views += 1
        elif not name.startswith("profiler::"):
            self._found.operators[name] += 1
        return func(*args, **(kwargs or {}))


def _indexes_by_mask(name: str, args: tuple[Any, ...]) -> bool:
    if name not in _INDEXING_OPERATORS:
        return False
    return any(isinstance(i, Tensor) and i.dtype in _MASKS for i in args[1])
