"""Fetch files below one address, patiently, and say what is wrong when it cannot be done."""

import errno
import importlib
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from mmtool.errors import EnvironmentLacks, MmtoolError, RequestError, StoreError
from mmtool.store.cache import cache_error
from mmtool.store.files import sha256_of
from mmtool.store.schema import MANIFEST_NAME, FileInfo, Manifest, parse_manifest
from mmtool.text import human_bytes, plural

_Result = TypeVar("_Result")
_EXTRA = 'pip install "mmtool[remote]"'
_PACKAGES = {
    "s3": _EXTRA, "s3a": _EXTRA, "gs": "pip install gcsfs", "gcs": "pip install gcsfs",
    "http": "pip install aiohttp", "https": "pip install aiohttp", "az": "pip install adlfs",
}  # fmt: skip
_S3_OPTIONS: Mapping[str, Any] = {
    "use_listings_cache": False,
    "skip_instance_cache": True,  # or the first endpoint and account would be kept for good
    "config_kwargs": {"connect_timeout": 10, "read_timeout": 60, "retries": {"max_attempts": 2}},
}
_FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_NO_ACCESS = ("NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError")


@dataclass(frozen=True, slots=True)
class Patience:
    """How often a broken download is tried, and how long the waits between are."""

    attempts: int = 4
    first_wait_s: float = 0.5
    """Doubles every time; up to half is added at random, so that ranks do not all ask at once."""
    sleep: Callable[[float], None] = time.sleep

    def wait(self, number: int) -> None:
        """Wait after the attempt of this number, counted from 0."""
        self.sleep(self.first_wait_s * 2.0**number * (1.0 + 0.5 * random.random()))


class _DamagedError(Exception):
    """A download arrived with other content than the manifest promises."""


class Remote:
    """The files below one address."""

    def __init__(
        self,
        url: str,
        *,
        options: Mapping[str, Any] | None = None,
        patience: Patience | None = None,
    ) -> None:
        self.url = url.rstrip("/")
        self._patience = patience or Patience()
        self._files, base = open_filesystem(self.url, options or {})
        self._base = str(base).rstrip("/")

    def fetch_manifest(self) -> Manifest:
        """Fetch and read the manifest."""
        url = f"{self.url}/{MANIFEST_NAME}"
        found = self._patiently(url, lambda: self._files.cat_file(f"{self._base}/{MANIFEST_NAME}"))
        return parse_manifest(bytes(found).decode("utf-8", errors="replace"), url)

    def fetch(self, file: FileInfo, temporary: Path) -> None:
        """Fetch a file and refuse it unless size and checksum are those of the manifest."""

        def attempt() -> None:
            self._files.get_file(f"{self._base}/{file.name}", str(temporary))
            _refuse_damage(temporary, file)

        try:
            self._patiently(f"{self.url}/{file.name}", attempt)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise

    def _patiently(self, url: str, attempt: Callable[[], _Result]) -> _Result:
        for number in range(self._patience.attempts):
            try:
                return attempt()
            except Exception as error:  # every backend has errors of its own
                if number + 1 == self._patience.attempts or _is_final(error):
                    raise _explained(url, error, attempts=number + 1) from error
                self._patience.wait(number)
        raise AssertionError("unreachable")


def open_filesystem(url: str, options: Mapping[str, Any]) -> tuple[Any, str]:
    """Give the fsspec file system of a URL and the path in it."""
    scheme = urlsplit(url).scheme
    lacking = f"datasets at {scheme}:// need a package that is not installed"
    try:
        core = importlib.import_module("fsspec.core")
    except ImportError as error:
        raise EnvironmentLacks(lacking, where=url, why=str(error), fix=_EXTRA) from error
    given = {**_S3_OPTIONS, **options} if scheme in ("s3", "s3a") else dict(options)
    try:
        files, path = core.url_to_fs(url, **given)
    except ImportError as error:
        fix = _PACKAGES.get(scheme, f"install the package that fsspec names for {scheme}://")
        raise EnvironmentLacks(lacking, where=url, why=str(error), fix=fix) from error
    except ValueError as error:
        raise RequestError(
            f"{scheme}:// is no kind of address that fsspec knows",
            where=url,
            why=str(error),
            fix="name a folder, or an address such as s3://bucket/path",
        ) from error
    return files, path


def _refuse_damage(path: Path, file: FileInfo) -> None:
    size = path.stat().st_size
    if size != file.bytes:
        raise _DamagedError(f"{human_bytes(size)} arrived, {human_bytes(file.bytes)} expected")
    if sha256_of(path) != file.sha256:
        raise _DamagedError("its SHA-256 differs from the one in the manifest")


def _is_final(error: Exception) -> bool:
    is_full = isinstance(error, OSError) and error.errno in _FULL_DISK
    refused = isinstance(error, FileNotFoundError | PermissionError | MmtoolError)
    return refused or is_full or type(error).__name__ in _NO_ACCESS


def _explained(url: str, error: Exception, *, attempts: int) -> MmtoolError:
    if isinstance(error, MmtoolError):
        return error
    if isinstance(error, OSError) and error.errno in _FULL_DISK:
        return cache_error(Path(error.filename or ""), error)
    if isinstance(error, FileNotFoundError):
        return _missing(url)
    why = f"{type(error).__name__}: {error}"
    if isinstance(error, PermissionError) or type(error).__name__ in _NO_ACCESS:
        return EnvironmentLacks(
            "the object storage does not let us in",
            where=url,
            why=why,
            fix="export AWS_PROFILE=NAME, or for a public bucket: export FSSPEC_S3_ANON=true",
        )
    tries = plural(attempts, "attempt")
    if isinstance(error, _DamagedError):
        return StoreError(
            f"a file of this dataset arrived damaged, in {tries}",
            where=url,
            why=str(error),
            fix="check it where it was written: mmtool prepare NAME --verify; then upload it again",
        )
    return EnvironmentLacks(
        f"a dataset could not be fetched, in {tries}",
        where=url,
        why=why,
        fix="check network and address; another S3 server: export AWS_ENDPOINT_URL=http://HOST:PORT",
    )


def _missing(url: str) -> StoreError:
    if url.endswith(f"/{MANIFEST_NAME}"):
        folder = url.removesuffix(f"/{MANIFEST_NAME}")
        return StoreError(
            "there is no prepared dataset here",
            where=folder,
            why=f"{MANIFEST_NAME} is missing",
            fix=f"upload a prepared dataset: aws s3 sync data/NAME {folder}",
        )
    return StoreError(
        "a file of this dataset is missing",
        where=url,
        why="the manifest beside it names it",
        fix=f"upload the whole dataset again: aws s3 sync data/NAME {url.rpartition('/')[0]}",
    )
