"""Containers of many records in one file: idx (MNIST and its kin), npy, pickles, text tables."""

import gzip
import io
import math
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mmtool.media.container import file_key, read_bytes, where
from mmtool.media.failure import MediaError
from mmtool.media.kept import Kept
from mmtool.media.kinds import sniff
from mmtool.media.pickles import pickled, read_pickle
from mmtool.media.spec import Source

AnyArray: TypeAlias = NDArray[Any]

_GZIP_MAGIC = b"\x1f\x8b"
# Third byte of an idx file, http://yann.lecun.com/exdb/mnist; numbers are big-endian.
_IDX_DTYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_KEPT_BYTES = 1 << 30


def read_idx(path: Path) -> AnyArray:
    """Give all records of an idx file, gzipped or not, as a read-only array (kept in memory)."""
    return _cached(Source(path))


def read_record(source: Source) -> AnyArray:
    """Give record `source.row` of a file of records, or what a pickle holds under `source.key`."""
    if source.key is not None or source.row is None:
        return np.asarray(pickled(source))
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


def parse_rows(content: bytes, place: str) -> NDArray[np.float32]:
    """Give the numbers of a text without header, one record per line, blanks or commas between."""
    content = content.replace(b",", b" ").rstrip() + b"\n"
    width = _columns(content, place)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", DeprecationWarning)
            numbers = np.fromstring(content.decode("ascii"), np.float64, sep=" ")
    except (ValueError, DeprecationWarning) as error:
        message = f"{place}: not a table of numbers alone ({error})"
        raise MediaError("decode-error", message) from error
    return numbers.astype(np.float32).reshape(-1, width)


def _columns(content: bytes, place: str) -> int:
    """Count the words of every line at once: in a table they are equally many."""
    is_blank = np.frombuffer(content, np.uint8) <= ord(" ")
    begins = np.flatnonzero(~is_blank & np.concatenate([[True], is_blank[:-1]]))
    ends = np.flatnonzero(np.frombuffer(content, np.uint8) == ord("\n"))
    counts = np.diff(np.searchsorted(begins, ends), prepend=0)
    counted = counts[counts > 0]
    if not len(counted):
        raise MediaError("empty", f"{place}: the table has no rows")
    if (counted != counted[0]).any():
        line = int(np.flatnonzero((counts > 0) & (counts != counted[0]))[0])
        message = f"{place}:{line + 1}: {counts[line]} columns, the rows above have {counted[0]}"
        raise MediaError("decode-error", message)
    return int(counted[0])


def _cached(source: Source) -> AnyArray:
    key = file_key(source.path)
    return _kept.get((key, source.member), lambda: _load(source))


def _load(source: Source) -> AnyArray:
    content = read_bytes(Source(source.path, source.member))
    place = where(Source(source.path, source.member))
    kind = sniff(content[:512])
    if kind == "text":
        array: AnyArray = parse_rows(content, place)
    elif kind == "pickle":
        array = np.asarray(read_pickle(source.path, member=source.member))
    else:
        array = (parse_npy if kind == "npy" else parse_idx)(content, place)
    if array.ndim == 0:
        raise MediaError("decode-error", f"{place}: a single number has no records")
    array.flags.writeable = False
    return array


_kept: Kept[AnyArray] = Kept(_KEPT_BYTES, lambda array: array.nbytes)
