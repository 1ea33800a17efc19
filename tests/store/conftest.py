"""A hand-made store of five small columns, written through the writer."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmtool.store.index import index_bytes
from mmtool.store.schema import ColumnInfo, Manifest, content_hash
from mmtool.store.writer import FinishedShard, StoreWriter

COLUMNS = {
    "frames": ColumnInfo("video", "frames", "uint8", (3, 30, 30), False),
    "small": ColumnInfo("video", "frames", "uint8", (1, 2, 2), False),
    "wave": ColumnInfo("audio", "wave", "int16", (), True, max_length=1500, rate_hz=100),
    "imu": ColumnInfo("imu", "series", "float32", (2,), True, max_length=6),
}


def samples(num_rows: int) -> list[dict[str, np.ndarray]]:
    random = np.random.default_rng(3)
    return [
        {
            "frames": random.integers(0, 256, (3, 30, 30)).astype(np.uint8),
            "small": random.integers(0, 256, (1, 2, 2)).astype(np.uint8),
            "wave": random.integers(-9, 9, 1500 - 3 * row).astype(np.int16),
            "imu": random.normal(size=(row % 7, 2)).astype(np.float32),
        }
        for row in range(num_rows)
    ]


def write_store(
    out: Path, rows: list[dict[str, np.ndarray]], per_shard: int = 4, *, overwrite: bool = False
) -> Path:
    writer = StoreWriter(out)
    writer.begin(overwrite=overwrite)
    shards: list[FinishedShard] = []
    for number, first in enumerate(range(0, len(rows), per_shard)):
        with writer.shard(number, COLUMNS) as shard:
            for row in rows[first : first + per_shard]:
                shard.append(row)
            info = shard.commit()
        writer.note(number, "key", info, {})
        shards.append(FinishedShard(info, {}))
    splits = ["train", "val", "test", None]
    index = writer.write_index(
        index_bytes(
            ids=[f"clip-{i:02d}" for i in range(len(rows))],
            labels=[i % 2 for i in range(len(rows))],
            groups=[f"speaker {i % 3}" for i in range(len(rows))],
            splits={
                "main": [splits[i % 4] for i in range(len(rows))],
                "all": ["train"] * len(rows),
            },
            present=[[True, i % 2 == 0, True] for i in range(len(rows))],
            num_modalities=3,
        )
    )
    infos = tuple(shard.info for shard in shards)
    identity: dict[str, Any] = {"columns": COLUMNS, "shards": infos, "index": index}
    found = content_hash(**identity, classes=["a", "b"], preparer="hand", options={})
    writer.publish(
        Manifest(
            name="hand",
            title="Hand-made",
            licence="none",
            source="here",
            citation="nobody",
            hash=found,
            classes=("a", "b"),
            modalities=("audio", "imu", "video"),
            protocols={"main": {"train": 1}, "all": {"train": len(rows)}},
            default_protocol="main",
            provenance={"preparer": "hand", "options": {}},
            **identity,
        ),
        {"rows": len(rows)},
    )
    return out


@pytest.fixture
def rows() -> list[dict[str, np.ndarray]]:
    return samples(10)


@pytest.fixture
def folder(tmp_path: Path, rows: list[dict[str, np.ndarray]]) -> Path:
    return write_store(tmp_path / "hand", rows)


@pytest.fixture
def write() -> Callable[..., Path]:
    return write_store


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """An S3 server of this machine."""
    pytest.importorskip("s3fs", reason='pip install "mmtool[remote]"')
    server = pytest.importorskip("moto.server", reason="pip install 'moto[server]'")
    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    yield f"http://{host}:{port}"
    running.stop()


@pytest.fixture
def bucket(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """An empty bucket with the environment in which the store finds it; the cache is fresh."""
    import boto3

    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("MMTOOL_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("MMTOOL_CACHE_GB", raising=False)
    found = boto3.resource("s3").Bucket("shelf")
    found.create()
    yield found
    found.objects.all().delete()
    found.delete()
