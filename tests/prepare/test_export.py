import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmtool.errors import EnvironmentLacks, RequestError
from mmtool.prepare import export
from mmtool.prepare.export import export_store, records
from mmtool.store.reader import open_store
from mmtool.testing.fakes import FakeModality, write_fake_store


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    modalities = {
        "image": FakeModality((1, 8, 8), "frames"),
        "motion": FakeModality((3,), missing=0.3),
    }
    return write_fake_store(tmp_path / "fake", modalities, splits={"train": 30, "val": 15})


def members(folder: Path) -> dict[str, dict[str, bytes]]:
    """Members of all tar files by key and suffix, as WebDataset groups them."""
    found: dict[str, dict[str, bytes]] = {}
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                key, _, suffix = member.name.partition(".")
                file = tar.extractfile(member)
                assert file is not None
                found.setdefault(key, {})[suffix] = file.read()
    return found


def load(data: bytes, tmp_path: Path) -> np.ndarray:
    (tmp_path / "one.npy").write_bytes(data)
    return np.load(tmp_path / "one.npy", allow_pickle=False)


def test_tar_files_hold_every_clip_with_its_facts_and_arrays(folder: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    result = export_store(
        folder,
        tmp_path / "out",
        "webdataset",
        shard_bytes=40_000,
        progress=lambda done, total: seen.append((done, total)),
    )

    found = members(tmp_path / "out")
    assert result.records == len(found) == 45
    assert result.shards == len(list((tmp_path / "out").glob("*.tar"))) > 1
    assert result.bytes == sum(path.stat().st_size for path in (tmp_path / "out").iterdir())
    assert seen == [(number, 45) for number in range(1, 46)]
    with open_store(folder) as store:
        ids, lengths = store.index.ids(), store.lengths("motion")
        for row, (key, parts) in enumerate(found.items()):
            assert key == f"{row:09d}"
            assert set(parts) == {"json", "image.npy", "motion.npy"}
            facts = json.loads(parts["json"])
            label = int(store.index.label[row])
            assert facts == {
                "id": ids[row],
                "label": label,
                "class": store.classes[label],
                "split": {"default": "train" if row < 30 else "val"},
                "group": f"group{row % 7}",
                "present": dict(
                    zip(store.modalities, store.index.present[row].tolist(), strict=True)
                ),
                "lengths": {"motion": int(lengths[row])},
            }
            image, _ = store.gather("image", np.array([row]))
            np.testing.assert_array_equal(load(parts["image.npy"], tmp_path), image[0])
            motion, _ = store.gather("motion", np.array([row]))
            np.testing.assert_array_equal(load(parts["motion.npy"], tmp_path), motion[0])
        facts = json.loads((tmp_path / "out" / "dataset.json").read_text())
        assert facts["hash"] == store.hash
        assert facts["classes"] == list(store.classes)


def test_tar_files_keep_to_their_size_and_have_the_same_bytes_every_time(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export_store(folder, tmp_path / "a", "webdataset", shard_bytes=40_960)
    monkeypatch.setattr("time.time", lambda: 1e9)
    export_store(folder, tmp_path / "b", "webdataset", shard_bytes=40_960)

    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "b").iterdir())
    for name in names:
        data = (tmp_path / "a" / name).read_bytes()
        assert data == (tmp_path / "b" / name).read_bytes()
        assert len(data) <= 40_960
    with tarfile.open(tmp_path / "a" / "shard-000000.tar") as tar:
        assert {(m.mtime, m.uid, m.gid, m.mode, m.uname) for m in tar} == {(0, 0, 0, 0o644, "")}


def test_several_classes_and_values_are_exported_too(tmp_path: Path) -> None:
    modalities = {"motion": FakeModality((3,))}
    several = write_fake_store(tmp_path / "several", modalities, task="multi_label")
    with open_store(several) as store:
        for record in records(store):
            held = store.index.label_sets(np.array([record.row]))[0]
            assert record.facts["label"] == held
            assert record.facts["class"] == [f"class{c}" for c in held]
            assert "value" not in record.facts
    numbers = write_fake_store(
        tmp_path / "numbers", modalities, task="regression", without_value=0.3
    )
    export_store(numbers, tmp_path / "out", "webdataset")
    found = [json.loads(p["json"])["value"] for p in members(tmp_path / "out").values()]
    with open_store(numbers) as store:
        assert store.index.value is not None
        assert found == [None if np.isnan(v) else v for v in store.index.value.tolist()]


def test_an_interrupted_export_leaves_nothing_that_looks_finished_and_starts_over(
    folder: Path, tmp_path: Path
) -> None:
    def interrupt(done: int, total: int) -> None:
        if done == 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_store(folder, tmp_path / "out", "webdataset", progress=interrupt)
    assert not (tmp_path / "out").exists()

    (tmp_path / "out").mkdir()
    export_store(folder, tmp_path / "out", "webdataset")

    assert len(members(tmp_path / "out")) == 45
    assert not (tmp_path / "out.partial").exists()


def test_a_folder_that_holds_anything_is_left_alone(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").touch()
    with pytest.raises(RequestError, match="exists"):
        export_store(folder, tmp_path / "out", "webdataset")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("size", [0, 1 << 32])
def test_impossible_shard_sizes_are_refused(folder: Path, tmp_path: Path, size: int) -> None:
    with pytest.raises(RequestError, match="no size for a shard"):
        export_store(folder, tmp_path / "out", "webdataset", shard_bytes=size)


def test_a_column_named_like_a_fact_is_refused(tmp_path: Path) -> None:
    folder = write_fake_store(tmp_path / "fake", {"label": FakeModality()})
    with pytest.raises(RequestError, match="cannot be exported"):
        export_store(folder, tmp_path / "out", "webdataset")


def test_a_store_at_an_address_is_exported_too(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("fsspec", reason='pip install "mmtool[remote]"')
    monkeypatch.setenv("MMTOOL_CACHE", str(tmp_path / "cache"))
    export_store(folder, tmp_path / "a", "webdataset")
    export_store(f"file://{folder}", tmp_path / "b", "webdataset")
    name = "shard-000000.tar"
    assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_mds_without_its_package_names_the_command(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(name: str) -> Any:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(export.importlib, "import_module", absent)
    with pytest.raises(EnvironmentLacks, match=r'pip install "mmtool\[mds\]"'):
        export_store(folder, tmp_path / "out", "mds")
    assert not (tmp_path / "out").exists()


@pytest.mark.filterwarnings("ignore")
def test_mds_is_read_back_by_its_own_reader(folder: Path, tmp_path: Path) -> None:
    streaming = pytest.importorskip("streaming", reason='pip install "mmtool[mds]"')
    export_store(folder, tmp_path / "out", "mds", shard_bytes=4_000)

    read = streaming.LocalDataset(str(tmp_path / "out"))

    assert len(list((tmp_path / "out").glob("*.mds"))) > 1
    with open_store(folder) as store:
        wanted = list(records(store))
        assert len(read) == len(wanted)
        for record in wanted:
            found = read[record.row]
            assert {name: found[name] for name in record.facts} == dict(record.facts)
            for name, array in record.arrays.items():
                length = record.facts["lengths"].get(name, len(array))
                assert found[name].dtype == array.dtype
                np.testing.assert_array_equal(found[name][:length], array)


@pytest.mark.filterwarnings("ignore")
def test_tar_files_are_read_back_by_webdataset(folder: Path, tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset", reason="pip install webdataset")
    export_store(folder, tmp_path / "out", "webdataset", shard_bytes=40_000)

    urls = [str(path) for path in sorted((tmp_path / "out").glob("*.tar"))]
    read = list(webdataset.WebDataset(urls, shardshuffle=False).decode())

    with open_store(folder) as store:
        for found, record in zip(read, records(store), strict=True):
            assert found["json"] == dict(record.facts)
            for name, array in record.arrays.items():
                np.testing.assert_array_equal(found[f"{name}.npy"], array)
