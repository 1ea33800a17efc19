import hashlib
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmtool.errors import StoreError, UnknownName
from mmtool.store.files import LocalShards
from mmtool.store.reader import open_store

Rows = list[dict[str, np.ndarray]]
shared_folder = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
some_rows = st.lists(st.integers(0, 9), max_size=12)


@shared_folder
@given(chosen=some_rows, column=st.sampled_from(["frames", "small"]), reuse=st.booleans())
def test_fixed_rows_come_in_the_order_asked_for(
    folder: Path, rows: Rows, chosen: list[int], column: str, reuse: bool
) -> None:
    with open_store(folder, verify="size") as store:
        shape = (len(chosen), *store.columns[column].shape)
        out = np.full(shape, 7, dtype=np.uint8) if reuse else None
        found, lengths = store.gather(column, np.asarray(chosen, dtype=np.int64), out)
        assert lengths is None
        assert found is out or not reuse
        assert found.shape == shape
        for got, row in zip(found, chosen, strict=True):
            np.testing.assert_array_equal(got, rows[row][column])


@shared_folder
@given(
    chosen=some_rows,
    column=st.sampled_from(["wave", "imu"]),
    width=st.sampled_from([None, 1, 4, 9, 1480, 2000]),
)
def test_ragged_rows_are_padded_with_zeros_and_cut_to_the_width_of_the_buffer(
    folder: Path, rows: Rows, chosen: list[int], column: str, width: int | None
) -> None:
    with open_store(folder, verify="size") as store:
        info = store.columns[column]
        out = None
        if width is not None:
            out = np.full((len(chosen), width, *info.shape), 7, dtype=info.dtype)
        found, lengths = store.gather(column, np.asarray(chosen, dtype=np.int64), out)
        longest = max((len(rows[row][column]) for row in chosen), default=0)
        assert found.shape == (len(chosen), longest if width is None else width, *info.shape)
        assert lengths is not None
        for got, length, row in zip(found, lengths, chosen, strict=True):
            whole = rows[row][column][: found.shape[1]]
            assert length == len(whole)
            np.testing.assert_array_equal(got[:length], whole)
            assert not got[length:].any()


def test_facts_of_rows_and_columns_can_be_asked_for(folder: Path, rows: Rows) -> None:
    with open_store(folder) as store:
        assert store.index.num_rows == 10
        assert store.index.ids(np.array([9, 0])) == ["clip-09", "clip-00"]
        assert store.index.rows("val").tolist() == [1, 5, 9]
        assert store.index.rows("val", "all").size == 0
        assert store.index.rows("train", "all").tolist() == list(range(10))
        assert store.index.protocols == ("main", "all")
        assert store.index.group_names[store.index.group[4]] == "speaker 1"
        assert store.index.present[:, 1].tolist() == [True, False] * 5
        assert dict(store.default_columns) == {"video": "frames", "audio": "wave", "imu": "imu"}
        assert store.lengths("imu").tolist() == [len(row["imu"]) for row in rows]
        assert store.row_nbytes("frames") == 2700
        assert store.row_nbytes("imu") == 6 * 2 * 4


def test_unknown_names_are_refused_with_the_nearest_one(folder: Path) -> None:
    with open_store(folder) as store:
        with pytest.raises(UnknownName, match="did you mean 'frames'"):
            store.gather("frame", np.array([0]))
        with pytest.raises(UnknownName, match="did you mean 'main'"):
            store.index.rows("train", "mian")
        with pytest.raises(UnknownName, match="did you mean 'train'"):
            store.index.rows("trian")


@pytest.mark.parametrize("row", [-1, 10])
def test_rows_outside_of_the_store_are_refused(folder: Path, row: int) -> None:
    with open_store(folder) as store, pytest.raises(IndexError, match=r"0\.\.9"):
        store.gather("small", np.array([row]))


def test_a_closed_store_gives_no_more_rows(folder: Path) -> None:
    store = open_store(folder)
    store.close()
    with pytest.raises(StoreError, match="closed"):
        store.gather("small", np.array([0]))


def test_another_source_of_shards_can_stand_behind_the_reader(folder: Path, tmp_path: Path) -> None:
    class Fetched:
        def __init__(self) -> None:
            self.asked: list[str] = []

        def path(self, name: str) -> Path:
            self.asked.append(name)
            return LocalShards(tmp_path / "cache").path(name)

    shutil.copytree(folder, tmp_path / "cache")
    for file in folder.glob("shard-*"):
        file.unlink()
    source = Fetched()
    with open_store(folder, shards=source) as store:
        assert store.gather("small", np.array([9]))[0].shape == (1, 1, 2, 2)
    assert "shard-00002.small.bin" in source.asked


def edit_manifest(folder: Path, **changes: Any) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def refusal(folder: Path, **options: Any) -> str:
    with pytest.raises(StoreError) as caught:
        open_store(folder, **options).close()
    return str(caught.value)


def test_a_newer_version_is_refused_and_a_newer_minor_one_is_read(folder: Path) -> None:
    edit_manifest(folder, version="1.7")
    open_store(folder).close()
    edit_manifest(folder, version="3.0")
    said = refusal(folder)
    assert "version 3.0" in said
    assert "pip install --upgrade" in said


def test_damage_is_named_by_file(folder: Path) -> None:
    file = folder / "shard-00001.wave.bin"
    whole = file.read_bytes()
    file.write_bytes(whole[:-2])
    assert f"{len(whole) - 2} bytes found, {len(whole)} expected" in refusal(folder, verify="size")
    file.write_bytes(b"\x55" + whole[1:])
    open_store(folder, verify="size").close()
    for verify in ("full", "auto"):
        said = refusal(folder, verify=verify)
        assert "changed since it was written" in said
        assert file.name in said
    file.unlink()
    said = refusal(folder, verify="size")
    assert "missing" in said
    assert file.name in said


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{", "damaged"),
        ('{"format": "other"}', "not a prepared dataset"),
        ('{"format": "mmtool-store", "version": "1.0"}', "lacks something"),
        ('{"format": "mmtool-store"}', "no version"),
        ("[]", "not a prepared dataset"),
    ],
)
def test_a_manifest_that_is_none_is_refused(folder: Path, text: str, expected: str) -> None:
    (folder / "manifest.json").write_text(text)
    said = refusal(folder)
    assert expected in said
    assert "manifest.json" in said


def test_a_damaged_index_is_refused(folder: Path) -> None:
    data = b"no zip archive"
    (folder / "index.npz").write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    edit_manifest(folder, index={"name": "index.npz", "bytes": len(data), "sha256": digest})
    assert "index" in refusal(folder)


def test_what_is_no_store_or_not_finished_says_so(tmp_path: Path) -> None:
    assert "does not exist" in refusal(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    assert "manifest.json is missing" in refusal(tmp_path / "empty")
    (tmp_path / "late.partial").mkdir()
    for name in ("late", "late.partial"):
        said = refusal(tmp_path / name)
        assert "not finished" in said
        assert "run the same `mmtool prepare` command again" in said


def test_the_bytes_do_not_depend_on_the_time(
    folder: Path,
    tmp_path: Path,
    rows: Rows,
    write: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(time, "time", lambda: 1e9)
    monkeypatch.setattr(time, "localtime", lambda *_: time.gmtime(0))
    again = write(tmp_path / "again", rows)
    for file in sorted(folder.iterdir()):
        assert file.read_bytes() == (again / file.name).read_bytes()
