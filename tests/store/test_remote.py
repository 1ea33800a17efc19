import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmtool.errors import EnvironmentLacks, MmtoolError, RequestError, StoreError
from mmtool.store import fetching
from mmtool.store.fetching import Patience, Remote
from mmtool.store.reader import open_store
from mmtool.store.remote import RemoteShards, connect, is_url
from mmtool.store.schema import FileInfo

Rows = list[dict[str, np.ndarray]]
URL = "s3://shelf/sets/hand"
SHARD_BYTES = 4 * 2700
"""Of the column `frames` in a full shard, by far the largest."""


def upload(bucket: Any, folder: Path) -> str:
    for file in folder.iterdir():
        bucket.upload_file(str(file), f"sets/hand/{file.name}")
    return URL


@pytest.fixture
def url(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    monkeypatch.setenv("MMTOOL_CACHE", str(tmp_path / "cache"))
    return f"file://{folder}"


@pytest.fixture
def waits() -> list[float]:
    return []


@pytest.fixture
def patience(waits: list[float]) -> Patience:
    return Patience(sleep=waits.append)


def cached(tmp_path: Path, pattern: str = "*") -> list[str]:
    found = (tmp_path / "cache").glob(f"stores/*/{pattern}")
    return sorted(path.name for path in found if path.is_file())


def test_a_store_in_a_bucket_gives_the_rows_of_the_folder(
    bucket: Any, folder: Path, rows: Rows
) -> None:
    upload(bucket, folder)
    with open_store(URL) as store, open_store(folder) as local:
        assert store.is_remote
        assert not local.is_remote
        assert store.hash == local.hash
        assert store.location == URL
        chosen = np.array([9, 0, 5, 5, 2])
        for name in store.columns:
            found, lengths = store.gather(name, chosen)
            wanted, wanted_lengths = local.gather(name, chosen)
            np.testing.assert_array_equal(found, wanted)
            assert (lengths is None) == (wanted_lengths is None)
        assert store.lengths("imu").tolist() == [len(row["imu"]) for row in rows]


def test_opening_fetches_the_manifest_and_the_index_only(
    bucket: Any, folder: Path, tmp_path: Path
) -> None:
    upload(bucket, folder)
    with open_store(URL) as store:
        assert cached(tmp_path) == ["index.npz"]
        store.gather("small", np.array([5]))
        assert cached(tmp_path) == ["index.npz", "shard-00001.small.bin"]
        assert store.lengths("wave", np.array([9])).tolist() == [1500 - 27]
        assert "shard-00002.wave.offsets.bin" in cached(tmp_path)
        assert "shard-00002.wave.bin" not in cached(tmp_path)


def test_what_was_fetched_once_is_not_fetched_again(url: str, folder: Path) -> None:
    with open_store(url, verify="full") as store:
        wanted = store.gather("frames", np.arange(10))[0]
    for file in folder.glob("shard-*"):
        file.unlink()
    with open_store(url) as store:
        np.testing.assert_array_equal(store.gather("frames", np.arange(10))[0], wanted)


def test_a_store_that_changed_at_its_address_is_not_read_from_the_old_cache(
    url: str, folder: Path, rows: Rows, write: Callable[..., Path]
) -> None:
    with open_store(url) as store:
        store.gather("small", np.arange(10))
    changed = [{**row, "small": row["small"] // 2} for row in rows]
    write(folder, changed, overwrite=True)
    with open_store(url) as store:
        found, _ = store.gather("small", np.arange(10))
    np.testing.assert_array_equal(found, np.stack([row["small"] for row in changed]))


def test_announced_rows_are_fetched_in_the_background(url: str, tmp_path: Path) -> None:
    store = open_store(url)
    store.will_need(["frames", "wave"], np.array([4, 9]))
    store.close()  # waits for downloads under way, drops the others
    some = set(cached(tmp_path, "shard-*"))
    assert some
    assert some <= {
        f"shard-0000{shard}.{column}.bin"
        for shard in (1, 2)
        for column in ("frames", "wave", "wave.offsets")
    }


def test_the_cache_keeps_to_its_size_and_drops_what_was_used_longest_ago(
    bucket: Any, folder: Path, rows: Rows, tmp_path: Path
) -> None:
    upload(bucket, folder)
    index_bytes = (folder / "index.npz").stat().st_size
    limit = index_bytes + 2 * SHARD_BYTES + 100
    with open_store(URL, cache_bytes=limit) as store:
        for number, row in enumerate([0, 4, 9, 0]):
            found, _ = store.gather("frames", np.array([row]))
            np.testing.assert_array_equal(found[0], rows[row]["frames"])
            for age, path in enumerate(sorted(tmp_path.glob("cache/stores/*/shard-*"))):
                if path.name != f"shard-0000{row // 4}.frames.bin":
                    os.utime(path, (number + age, number + age))
            kept = tmp_path.glob("cache/stores/*/*")
            assert sum(path.stat().st_size for path in kept if path.is_file()) <= limit
        assert "shard-00000.frames.bin" in cached(tmp_path)
        assert len(cached(tmp_path, "shard-*.frames.bin")) == 2


def test_rows_stay_right_while_another_process_empties_the_cache(
    url: str, rows: Rows, tmp_path: Path
) -> None:
    with open_store(url) as store:
        for row in [0, 4, 9, 1, 5, 8, 0]:
            found, _ = store.gather("frames", np.array([row]))
            np.testing.assert_array_equal(found[0], rows[row]["frames"])
            for path in tmp_path.glob("cache/stores/*/*.frames.bin"):
                path.unlink()


READ_ALL = """
import sys, numpy as np
from mmtool.store.reader import open_store
with open_store(sys.argv[1]) as store:
    print(int(store.gather("frames", np.arange(10))[0].sum(dtype=np.int64)))
"""


def test_two_processes_fetch_each_shard_once(
    bucket: Any, folder: Path, rows: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from moto.s3.models import S3Backend

    upload(bucket, folder)
    asked: list[str] = []
    real = S3Backend.get_object

    def counted(self: Any, bucket_name: str, key_name: str, *rest: Any, **named: Any) -> Any:
        asked.append(key_name)
        return real(self, bucket_name, key_name, *rest, **named)

    monkeypatch.setattr(S3Backend, "get_object", counted)
    command = [sys.executable, "-c", READ_ALL, URL]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=60)[0] for process in both]

    total = sum(int(row["frames"].sum(dtype=np.int64)) for row in rows)
    assert [int(text) for text in said] == [total, total]
    assert [process.returncode for process in both] == [0, 0]
    frames = [name for name in asked if name.endswith(".frames.bin")]
    assert len(set(frames)) == 3
    per_file = asked.count("sets/hand/index.npz")
    assert all(frames.count(name) == per_file for name in frames), asked
    assert not list(tmp_path.glob("cache/stores/*/*.fetching"))


def test_threads_that_want_the_same_file_fetch_it_once(url: str) -> None:
    class Slow(Remote):
        fetched: list[str] = []  # noqa: RUF012
        begin = threading.Barrier(4)

        def fetch(self, file: FileInfo, temporary: Path) -> None:
            self.fetched.append(file.name)
            super().fetch(file, temporary)

    manifest, source = connect(url)
    shards = RemoteShards(Slow(url), {f.name: f for f in manifest.files()}, source.cache)

    def ask() -> None:
        Slow.begin.wait(timeout=20)
        shards.path("shard-00000.frames.bin")

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Slow.fetched == ["shard-00000.frames.bin"]


def test_a_wrong_checksum_is_tried_again_and_then_refused_by_name(
    bucket: Any, folder: Path, tmp_path: Path, patience: Patience, waits: list[float]
) -> None:
    upload(bucket, folder)
    name = "shard-00001.frames.bin"
    bucket.put_object(Key=f"sets/hand/{name}", Body=b"\x01" * (folder / name).stat().st_size)
    _, source = connect(URL, patience=patience)
    with pytest.raises(StoreError) as caught:
        source.path(name)
    said = str(caught.value)
    assert "damaged, in 4 attempts" in said
    assert f"{URL}/{name}" in said
    assert "SHA-256" in said
    assert "--verify" in said
    assert len(waits) == 3
    assert waits == sorted(waits)
    assert cached(tmp_path, "shard-*") == []


def test_a_download_that_breaks_off_is_tried_again(
    url: str, patience: Patience, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, source = connect(url, patience=patience)
    files: Any = source._remote._files
    real, broken = files.get_file, iter([True, True, False])

    def get_file(remote: str, local: str) -> None:
        real(remote, local)
        if next(broken):
            os.truncate(local, 100)
            raise ConnectionResetError("connection reset by peer")

    monkeypatch.setattr(files, "get_file", get_file, raising=False)
    name = "shard-00000.frames.bin"
    digest = hashlib.sha256(source.path(name).read_bytes()).hexdigest()
    assert digest == source._files[name].sha256
    assert len(waits) == 2


def test_what_a_killed_download_left_is_removed(url: str, tmp_path: Path) -> None:
    _, source = connect(url)
    name = "shard-00000.frames.bin"
    leftover = source.cache.folder / f"{name}.999999.fetching"
    leftover.write_bytes(b"half")
    source.path(name)
    assert cached(tmp_path) == [name]


def test_without_locks_a_file_may_be_fetched_twice_and_is_whole(
    url: str, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    def unsupported(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    manifest, source = connect(url)
    digests: list[str] = []

    def ask() -> None:
        path = source.path("shard-00000.frames.bin")
        digests.append(hashlib.sha256(path.read_bytes()).hexdigest())

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert digests == [manifest.shards[0].files["frames"].sha256] * 4
    assert not list(source.cache.folder.glob("*.fetching"))


def test_a_truncated_file_in_the_cache_is_fetched_again(url: str, rows: Rows) -> None:
    _, source = connect(url)
    path = source.path("shard-00000.frames.bin")
    os.truncate(path, 10)
    with open_store(url) as store:
        found, _ = store.gather("frames", np.array([0]))
    np.testing.assert_array_equal(found[0], rows[0]["frames"])


def test_a_server_that_refuses_the_connection_is_named(
    bucket: Any, patience: Patience, waits: list[float]
) -> None:
    options = {
        "endpoint_url": "http://127.0.0.1:9",
        "config_kwargs": {"retries": {"max_attempts": 1}},
    }
    with pytest.raises(EnvironmentLacks) as caught:
        connect(URL, patience=patience, options=options)
    said = str(caught.value)
    assert "in 4 attempts" in said
    assert f"{URL}/manifest.json" in said
    assert "AWS_ENDPOINT_URL" in said
    assert len(waits) == 3


def test_what_is_missing_is_said_at_once(
    bucket: Any, folder: Path, patience: Patience, waits: list[float]
) -> None:
    for address in ("s3://shelf/nothing", "s3://no-such-bucket/x"):
        with pytest.raises(StoreError, match="no prepared dataset here") as caught:
            connect(address, patience=patience)
        assert address in str(caught.value)
    upload(bucket, folder)
    bucket.Object("sets/hand/shard-00002.small.bin").delete()
    _, source = connect(URL, patience=patience)
    with pytest.raises(StoreError, match=r"shard-00002\.small\.bin"):
        source.path("shard-00002.small.bin")
    assert waits == []


def test_a_refused_account_is_explained(
    url: str, patience: Patience, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, source = connect(url, patience=patience)

    def refuse(remote: str, local: str) -> None:
        raise PermissionError(13, "Access Denied")

    monkeypatch.setattr(source._remote._files, "get_file", refuse, raising=False)
    with pytest.raises(EnvironmentLacks, match="FSSPEC_S3_ANON"):
        source.path("shard-00000.small.bin")


def test_a_full_disk_is_explained(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _, source = connect(url)

    def fill(remote: str, local: str) -> None:
        raise OSError(28, "No space left on device", local)

    monkeypatch.setattr(source._remote._files, "get_file", fill, raising=False)
    with pytest.raises(EnvironmentLacks, match="MMTOOL_CACHE_GB"):
        source.path("shard-00000.small.bin")


def test_packages_that_are_not_installed_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = fetching.importlib.import_module

    def without_fsspec(name: str) -> Any:
        if name.startswith("fsspec"):
            raise ImportError("No module named 'fsspec'")
        return real(name)

    with monkeypatch.context() as patch:
        patch.setattr(fetching.importlib, "import_module", without_fsspec)
        with pytest.raises(EnvironmentLacks, match=r'pip install "mmtool\[remote\]"'):
            open_store(URL)
    with pytest.raises(EnvironmentLacks, match="pip install gcsfs"):
        open_store("gs://bucket/x")
    with pytest.raises(RequestError, match="fsspec knows"):
        open_store("nonsense://bucket/x")


def test_sizes_of_the_cache_that_cannot_work_are_refused(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(EnvironmentLacks, match="cannot hold one shard"):
        open_store(url, cache_bytes=SHARD_BYTES - 1)
    for wrong in ("many", "-1", "nan"):
        monkeypatch.setenv("MMTOOL_CACHE_GB", wrong)
        with pytest.raises(RequestError, match="MMTOOL_CACHE_GB"):
            open_store(url)


def test_a_cache_that_cannot_be_written_is_explained(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EnvironmentLacks, match="MMTOOL_CACHE=DIR"):
        open_store(url, cache=tmp_path / "file")


def test_a_damaged_manifest_is_named_by_its_address(url: str, folder: Path) -> None:
    (folder / "manifest.json").write_text(json.dumps({"format": "other"}))
    with pytest.raises(MmtoolError, match=r"manifest\.json"):
        open_store(url)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("s3://bucket/x", True),
        ("file:///x", True),
        ("data/ave", False),
        ("/data/ave", False),
        ("://x", False),
        (Path("s3://bucket/x"), False),
    ],
)
def test_addresses_and_folders_are_told_apart(address: str | Path, expected: bool) -> None:
    assert is_url(address) is expected
