from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mmtool.errors import Bug, RequestError
from mmtool.store.reader import open_store
from mmtool.store.schema import ColumnInfo
from mmtool.store.writer import StoreWriter

Rows = list[dict[str, np.ndarray]]
SMALL = {"small": ColumnInfo("video", "frames", "uint8", (2,), False)}


def test_an_absent_modality_is_stored_as_zeros_or_as_nothing(tmp_path: Path) -> None:
    columns = {**SMALL, "wave": ColumnInfo("audio", "wave", "int16", (), True)}
    writer = StoreWriter(tmp_path / "out")
    writer.begin()
    with writer.shard(0, columns) as shard:
        shard.append({"small": None, "wave": np.array([5], np.int16)})
        shard.append({"small": np.array([1, 2], np.uint8), "wave": None})
        info = shard.commit()
    read = {
        name: (writer.partial / "store" / f.name).read_bytes() for name, f in info.files.items()
    }
    assert read["small"] == b"\0\0\1\2"
    assert np.frombuffer(read["wave.offsets"], np.int64).tolist() == [0, 1, 1]


def test_a_sample_of_another_shape_or_type_is_a_bug(tmp_path: Path) -> None:
    writer = StoreWriter(tmp_path / "out")
    writer.begin()
    with writer.shard(0, SMALL) as shard:
        for wrong in (np.zeros(3, np.uint8), np.zeros(2, np.int16)):
            with pytest.raises(Bug, match="small"):
                shard.append({"small": wrong})


def test_an_abandoned_shard_leaves_no_files(tmp_path: Path) -> None:
    writer = StoreWriter(tmp_path / "out")
    writer.begin()

    def write_and_fail() -> None:
        with writer.shard(0, SMALL) as shard:
            shard.append({"small": np.zeros(2, np.uint8)})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_and_fail()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_finished_shard_counts_only_for_its_plan_and_while_it_is_whole(tmp_path: Path) -> None:
    writer = StoreWriter(tmp_path / "out")
    writer.begin()
    with writer.shard(0, SMALL) as shard:
        shard.append({"small": np.zeros(2, np.uint8)})
        info = shard.commit()
    assert writer.finished(0, "plan") is None
    writer.note(0, "plan", info, {"kept": [0]})
    again = StoreWriter(tmp_path / "out")
    again.begin()
    found = again.finished(0, "plan")
    assert found is not None
    assert (found.info, found.notes) == (info, {"kept": [0]})
    assert again.finished(0, "other plan") is None
    assert again.finished(1, "plan") is None
    (again.partial / "store" / info.files["small"].name).write_bytes(b"1")
    assert again.finished(0, "plan") is None


def test_a_finished_store_is_replaced_only_when_asked(
    folder: Path, rows: Rows, write: Callable[..., Path]
) -> None:
    before = open_store(folder)
    before.close()
    with pytest.raises(RequestError, match="already prepared"):
        write(folder, rows[:3])
    with open_store(folder) as store:
        assert store.hash == before.hash
    write(folder, rows[:3], overwrite=True)
    with open_store(folder) as store:
        assert store.index.num_rows == 3
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_a_folder_of_other_things_is_never_replaced(
    tmp_path: Path, rows: Rows, write: Callable[..., Path]
) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").touch()
    with pytest.raises(RequestError, match="not a prepared dataset"):
        write(tmp_path / "thesis", rows, overwrite=True)
    assert (tmp_path / "thesis" / "chapter.txt").exists()


def test_a_store_set_aside_by_a_killed_replacement_comes_back(
    folder: Path, rows: Rows, write: Callable[..., Path]
) -> None:
    writer = StoreWriter(folder)
    writer.partial.mkdir()
    folder.rename(writer.partial / "replaced")
    with pytest.raises(RequestError, match="already prepared"):
        write(folder, rows[:3])
    with open_store(folder) as store:
        assert store.index.num_rows == 10
