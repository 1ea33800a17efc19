"""Containers of many records in one file: idx (MNIST and its kin) and npy."""

import gzip
import io
import math
import struct
import threading
import zlib
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mmtool.media.container import FileKey, file_key, read_bytes, where
from mmtool.media.failure import MediaError
from mmtool.media.spec import Source

AnyArray: TypeAlias = NDArray[Any]

NPY_MAGIC = b"\x93NUMPY"
_GZIP_MAGIC = b"\x1f\x8b"
# Third byte of an idx file, http://yann.lecun.com/exdb/mnist; numbers are big-endian.
_IDX_DTYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_load_once = threading.Lock()


def read_idx(path: Path) -> AnyArray:
    """Give all records of an idx file, gzipped or not, as a read-only array (kept in memory)."""
    return _cached(Source(path))


def read_record(source: Source) -> AnyArray:
    """Give record `source.row` of an idx or npy file."""
    if source.row is None:
        raise ValueError("the source names no row")
    records = _cached(source)
    if not 0 <= source.row < len(records):
        raise MediaError("missing", f"{where(source)}: the file holds {len(records):,} records")
    record: AnyArray = records[source.row]
    return record


def parse_npy(content: bytes, place: str) -> AnyArray:
    """Give the array of an npy file; pickled objects are refused because they execute code."""
    try:
        array: AnyArray = np.load(io.BytesIO(content), allow_pickle=False)
    except (ValueError, EOFError, OSError, SyntaxError) as error:
        message = f"{place}: not a plain npy array ({error}); save it with a numeric dtype"
        raise MediaError("decode-error", message) from error
    return array


def parse_idx(content: bytes, place: str) -> AnyArray:
    """Give the array of an idx file."""
    if content[:2] == _GZIP_MAGIC:
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            message = f"{place}: damaged gzip file ({error}); download it again"
            raise MediaError("decode-error", message) from error
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in _IDX_DTYPES:
        raise MediaError("not-media", f"{place}: not an idx file, it starts with {content[:8]!r}")
    dtype, num_axes = np.dtype(_IDX_DTYPES[content[2]]), content[3]
    start = 4 + 4 * num_axes
    if num_axes == 0 or len(content) < start:
        raise MediaError("decode-error", f"{place}: the idx header is incomplete")
    shape = struct.unpack(f">{num_axes}I", content[4:start])
    promised = math.prod(shape) * dtype.itemsize
    if len(content) - start != promised:
        raise MediaError(
            "decode-error",
            f"{place}: truncated or damaged: header promises {promised} bytes, "
            f"file holds {len(content) - start}",
        )
    return np.frombuffer(content, dtype, offset=start).reshape(shape)


def _cached(source: Source) -> AnyArray:
    key = file_key(source.path)
    # Without the lock every thread of the pool would unpack the same file at the start.
    with _load_once:
        return _load(key, source.member)


@lru_cache(maxsize=8)
def _load(key: FileKey, member: str | None) -> AnyArray:
    source = Source(Path(key[0]), member)
    content = read_bytes(source)
    parse = parse_npy if content.startswith(NPY_MAGIC) else parse_idx
    array = parse(content, where(source))
    if array.ndim == 0:
        raise MediaError("decode-error", f"{where(source)}: a single number has no records")
    array.flags.writeable = False
    return array
