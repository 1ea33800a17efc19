"""Bytes of a raw source, whether it is a file of its own or lies in a zip archive.

Every thread keeps its own few open archives: a shared handle would serialise the threads, and
reading the directory of a large archive again for each clip costs more than the clip.
"""

import threading
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from mmtool.media.failure import MediaError
from mmtool.media.spec import Source

_OPEN_ARCHIVES_PER_THREAD = 4
_BLOCK_BYTES = 1 << 20

FileKey = tuple[str, int, int]


class _Archives(threading.local):
    """Open archives of one thread, least recently used first."""

    def __init__(self) -> None:
        self.handles: OrderedDict[FileKey, zipfile.ZipFile] = OrderedDict()


_archives = _Archives()


def where(source: Source) -> str:
    """Name a source for a message: `clips.zip!a/b.wav`, `images.idx[17]`."""
    name = str(source.path)
    if source.member is not None:
        name += f"!{source.member}"
    return name if source.row is None else f"{name}[{source.row}]"


def file_key(path: Path) -> FileKey:
    """Give what changes when a file is replaced; caches use it as their key."""
    with _explained(Source(path)):
        status = path.stat()
    return str(path), status.st_mtime_ns, status.st_size


def read_bytes(source: Source) -> bytes:
    """Give the whole content of a file or of a member of a zip archive."""
    with _explained(source):
        if source.member is None:
            return source.path.read_bytes()
        return _archive(source.path).read(source.member)


def read_head(source: Source, num_bytes: int = 512) -> bytes:
    """Give the first bytes, enough to see what a file really is."""
    with _explained(source), _opened(source) as file:
        return file.read(num_bytes)


def blocks(source: Source) -> Iterator[bytes]:
    """Give the content piece by piece, so that large files need no memory."""
    with _explained(source), _opened(source) as file:
        while block := file.read(_BLOCK_BYTES):
            yield block


@contextmanager
def opened(source: Source) -> Iterator[IO[bytes]]:
    """Open a file or a member of a zip archive for reading."""
    with _explained(source), _opened(source) as file:
        yield file


def _opened(source: Source) -> IO[bytes]:
    if source.member is None:
        return source.path.open("rb")
    return _archive(source.path).open(source.member)


def _archive(path: Path) -> zipfile.ZipFile:
    status = path.stat()
    key = (str(path), status.st_mtime_ns, status.st_size)
    handles = _archives.handles
    if key not in handles:
        try:
            handles[key] = zipfile.ZipFile(path)
        except zipfile.BadZipFile as error:
            message = f"{path}: the zip archive is incomplete or none at all ({error})"
            advice = "; its download was cut short, fetch it again or join its parts"
            raise MediaError("not-media", message + advice) from error
        while len(handles) > _OPEN_ARCHIVES_PER_THREAD:
            handles.popitem(last=False)[1].close()
    handles.move_to_end(key)
    return handles[key]


@contextmanager
def _explained(source: Source) -> Iterator[None]:
    place = where(source)
    try:
        yield
    except (FileNotFoundError, NotADirectoryError) as error:
        raise MediaError("missing", f"{place}: no such file") from error
    except KeyError as error:
        raise MediaError("missing", f"{place}: the archive has no such member") from error
    except IsADirectoryError as error:
        raise MediaError("not-media", f"{place}: is a folder, a file was expected") from error
    except zipfile.BadZipFile as error:
        message = f"{place}: damaged inside its archive ({error}); download it again"
        raise MediaError("decode-error", message) from error
    except (OSError, EOFError, zlib.error, RuntimeError, NotImplementedError) as error:
        # zipfile raises the last two for encrypted members and unknown compression.
        raise MediaError("decode-error", f"{place}: cannot be read ({error})") from error
