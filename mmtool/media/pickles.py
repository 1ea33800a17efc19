"""Pickles of known feature releases, read without executing anything they bring along.

A pickle is a program that may call any function of any installed package. The reader here knows
the few that rebuild numpy arrays, dtypes and scalars and plain containers, and refuses the rest.
"""

import gzip
import pickle
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from mmtool.media.container import file_key, opened, where
from mmtool.media.failure import MediaError
from mmtool.media.kept import Kept
from mmtool.media.kinds import recognise
from mmtool.media.spec import Source

# A clip of UR-FUNNY needs four pickles of several GB together; each read again per clip would take
# minutes.
_KEPT_FILES = 8
_KEPT_BYTES = 16 << 30
_HOLDERS = (np.ndarray, dict, list, tuple)
_GZIP_MAGIC = b"\x1f\x8b"
_NUMPY_1, _NUMPY_2 = "numpy.core.", "numpy._core."
_CONTAINERS: Mapping[str, type] = {
    **{kind.__name__: kind for kind in (list, tuple, dict, set, frozenset, bytearray)},
    **{kind.__name__: kind for kind in (int, float, complex, bool, str, bytes, range, slice)},
    # Names of Python 2.
    "long": int,
    "unicode": str,
    "xrange": range,
}
_NUMBERS = (
    "bool", "bool_", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
    "float16", "float32", "float64", "complex64", "complex128", "str_", "bytes_",
)  # fmt: skip


def read_pickle(path: Path, *, member: str | None = None, keep: bool = True) -> Any:
    """Give what a pickle holds if it consists of numpy arrays and plain Python values alone.

    The file may be gzipped and may come from Python 2, whose strings become `str` byte by byte.
    The arrays are read-only, because the result is kept for the next caller, unless `keep` says
    that nobody will ask again.
    """
    key = file_key(path)
    if not keep:
        return _read(Source(path, member))
    return _kept.get((key, member), lambda: (_read(Source(path, member)), key[2]))[0]


def pickled(source: Source) -> Any:
    """Give what lies under `source.key`, such as `train/audio`, and there at `source.row`."""
    found = read_pickle(source.path, member=source.member)
    at: list[str] = []
    for part in [part for part in (source.key or "").split("/") if part]:
        found = _inside(found, part, at, source)
        at.append(part)
    if source.row is None:
        return found
    if not isinstance(found, list | tuple) and getattr(found, "ndim", 0) == 0:
        message = f"{where(source)}: {'/'.join(at) or 'the pickle'} is {_kind(found)}, no rows"
        raise MediaError("decode-error", message)
    if not 0 <= source.row < len(found):
        raise MediaError("missing", f"{where(source)}: holds {len(found):,} records")
    return found[source.row]


def _inside(holder: Any, part: str, at: Sequence[str], source: Source) -> Any:
    if isinstance(holder, Mapping):
        # Python 2 wrote bytes or text, releases number their folds by integers.
        for key in (part, part.encode(), int(part) if part.isdecimal() else part):
            if key in holder:
                return holder[key]
        there = ", ".join(sorted(map(str, holder))[:8])
        message = f"has no {part!r}; there are: {there}"
    elif isinstance(holder, list | tuple) and part.isdecimal():
        if int(part) < len(holder):
            return holder[int(part)]
        message = f"holds {len(holder)} entries, no number {part}"
    else:
        message = f"is {_kind(holder)}, so it has no {part!r}"
    place = f"{source.path}: {'/'.join(at) or 'the pickle'}"
    raise MediaError("missing", f"{place} {message}")


def _kind(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"an array {value.dtype} {list(value.shape)}"
    return f"a {type(value).__name__}"


def _read(source: Source) -> Any:
    recognise(source, fine=("text", "xml", "gzip", "pickle"))
    place = where(source)
    try:
        with opened(source) as file:
            if file.read(2) == _GZIP_MAGIC:
                file.seek(0)
                with gzip.open(file) as content:
                    value = _load(cast(IO[bytes], content), place)
            else:
                file.seek(0)
                value = _load(file, place)
    except MediaError:
        raise
    except (OSError, EOFError, zlib.error) as error:
        raise MediaError("decode-error", f"{place}: the pickle is cut short ({error})") from error
    _protect(value)
    return value


def _load(file: IO[bytes], place: str) -> Any:
    try:
        return _Unpickler(file, place).load()
    except (MediaError, EOFError, OSError, zlib.error):
        raise
    except Exception as error:
        message = f"{place}: not a readable pickle ({type(error).__name__}: {error})"
        raise MediaError("decode-error", message) from error


class _Unpickler(pickle.Unpickler):
    """Finds only what rebuilds arrays and plain values."""

    def __init__(self, file: IO[bytes], place: str) -> None:
        super().__init__(file, encoding="latin1")
        self._place = place
        # Made anew for every file: a pickle may set attributes of the functions it is given.
        self._allowed = _allowed()

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith(_NUMPY_1):
            module = _NUMPY_2 + module.removeprefix(_NUMPY_1)
        found = self._allowed.get((module, name))
        if found is None:
            raise MediaError(
                "not-media",
                f"{self._place}: refused: the pickle asks for {module}.{name}; only numpy arrays "
                "and plain Python values are read, because a pickle that brings other objects "
                "can run any program; if you trust it, save its arrays again without them",
            )
        return found

    def persistent_load(self, pid: Any) -> Any:
        raise MediaError("not-media", f"{self._place}: refused: refers to something outside: {pid}")


def _allowed() -> dict[tuple[str, str], Callable[..., Any]]:
    """Give the callables a pickle may use, by the names under which pickles know them."""

    def empty_array(kind: type, shape: Any, code: Any) -> Any:
        if kind is not np.ndarray:
            raise ValueError("only plain arrays are rebuilt")
        return np.ndarray(0, np.dtype(code)) if shape == (0,) else np.empty(shape, code)

    def scalar(dtype: np.dtype[Any], content: bytes | str = b"") -> Any:
        if dtype.hasobject:
            raise ValueError("a scalar that holds objects")
        data = content.encode("latin1") if isinstance(content, str) else content
        return np.frombuffer(data, dtype, count=1)[0]

    def dtype_of(code: Any, align: Any = False, copy: Any = False) -> np.dtype[Any]:
        # Older pickles give the truth values as numbers.
        dtype: np.dtype[Any] = np.dtype(code, align=bool(align), copy=bool(copy))
        return dtype

    def from_buffer(content: Any, dtype: Any, shape: Any, order: Any, *_: Any) -> Any:
        return np.frombuffer(content, dtype).reshape(shape, order=order)

    def encoded(text: str, encoding: str = "latin1") -> bytes:
        # How Python 3 writes bytes for Python 2.
        if encoding not in ("latin1", "latin-1"):
            raise ValueError(f"bytes written as {encoding}")
        return text.encode("latin1")

    arrays: dict[tuple[str, str], Callable[..., Any]] = {
        (f"{_NUMPY_2}multiarray", "_reconstruct"): empty_array,
        (f"{_NUMPY_2}multiarray", "scalar"): scalar,
        (f"{_NUMPY_2}numeric", "_frombuffer"): from_buffer,
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): dtype_of,
        ("_codecs", "encode"): encoded,
        ("collections", "OrderedDict"): OrderedDict,
    }
    numbers = {("numpy", name): getattr(np, name) for name in _NUMBERS}
    plain = {(m, n): kind for m in ("builtins", "__builtin__") for n, kind in _CONTAINERS.items()}
    return {**arrays, **numbers, **plain}


def _protect(value: Any) -> None:
    """Make every array read-only, however deep it lies."""
    seen: set[int] = set()
    waiting = [value] if isinstance(value, _HOLDERS) else []
    while waiting:
        one = waiting.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        inside: Iterable[Any]
        if isinstance(one, np.ndarray):
            one.flags.writeable = False
            inside = one.flat if one.dtype.hasobject else ()
        else:
            inside = one.values() if isinstance(one, dict) else one
        # Lists of hundreds of millions of numbers exist: look at each but once.
        waiting += [value for value in inside if isinstance(value, _HOLDERS)]


_kept: Kept[tuple[Any, int]] = Kept(_KEPT_BYTES, lambda kept: kept[1], num_values=_KEPT_FILES)
