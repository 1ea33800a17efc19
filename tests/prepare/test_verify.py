import json
from typing import Any

import pytest

from mmtool.errors import StoreError
from mmtool.prepare.verify import verify_store


def test_a_whole_store_is_counted(release: Any) -> None:
    result = release.prepare()
    report = verify_store(result.path)
    assert report["rows"] == 23
    assert report["protocols"]["main"] == {"train": 15, "val": 4, "test": 4}
    assert report["hash"] == result.hash


def test_a_flipped_byte_is_found_and_its_file_named(release: Any) -> None:
    path = release.prepare().path / "shard-00002.imu.bin"
    data = bytearray(path.read_bytes())
    data[5] ^= 1
    path.write_bytes(data)
    with pytest.raises(StoreError, match=r"shard-00002\.imu\.bin"):
        verify_store(release.out)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"classes": ["no", "maybe"]}, "its hash does not follow"),
        ({"protocols": {"main": {"train": 16}}}, "main/train does not have 16 clips"),
    ],
)
def test_an_edited_manifest_is_found(release: Any, change: dict[str, Any], expected: str) -> None:
    path = release.prepare().path / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(StoreError) as caught:
        verify_store(release.out)
    assert expected in str(caught.value)
