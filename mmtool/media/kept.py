"""What was read from a file and will be asked for again: each file is parsed once, not per clip."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Value = TypeVar("Value")


class Kept(Generic[Value]):
    """The most recently used values up to a number of bytes; many threads may ask at once.

    A thread that asks for what another one is just reading waits for it instead of reading again.
    The latest value is kept however large it is.
    """

    def __init__(
        self, num_bytes: int, size_of: Callable[[Value], int], *, num_values: int = 1 << 30
    ) -> None:
        self._num_bytes = num_bytes
        self._num_values = num_values
        self._size_of = size_of
        self._values: OrderedDict[Hashable, tuple[Value, int]] = OrderedDict()
        self._held_bytes = 0
        self._lock = threading.Lock()
        self._reading: dict[Hashable, threading.Lock] = {}

    def get(self, key: Hashable, read: Callable[[], Value]) -> Value:
        """Give the value of a key, reading it if it is not there."""
        with self._lock:
            if (found := self._values.get(key)) is not None:
                self._values.move_to_end(key)
                return found[0]
            one_reader = self._reading.setdefault(key, threading.Lock())
        with one_reader:
            with self._lock:
                if (found := self._values.get(key)) is not None:
                    return found[0]
            try:
                value = read()
                self._keep(key, value)
            finally:
                with self._lock:
                    self._reading.pop(key, None)
        return value

    def _keep(self, key: Hashable, value: Value) -> None:
        size = self._size_of(value)
        with self._lock:
            self._values[key] = value, size
            self._held_bytes += size
            while len(self._values) > 1 and (
                self._held_bytes > self._num_bytes or len(self._values) > self._num_values
            ):
                self._held_bytes -= self._values.popitem(last=False)[1][1]
