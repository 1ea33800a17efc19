import mmap
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmtool.store import reader
from mmtool.store.mapping import page_ranges
from mmtool.store.reader import open_store

Rows = list[dict[str, np.ndarray]]
PAGE = mmap.PAGESIZE


@given(st.lists(st.tuples(st.integers(0, 50 * PAGE), st.integers(1, 3 * PAGE)), max_size=20))
def test_page_ranges_cover_what_was_asked_for_and_nothing_twice(
    asked: list[tuple[int, int]],
) -> None:
    limit = 51 * PAGE + 17
    starts = np.array([a for a, _ in asked], dtype=np.int64)
    stops = np.array([min(a + size, limit) for a, size in asked], dtype=np.int64)

    first, sizes = page_ranges(starts, stops, limit=limit)

    covered = np.zeros(limit, dtype=int)
    for begin, size in zip(first, sizes, strict=True):
        assert begin % PAGE == 0
        covered[begin : begin + size] += 1
    wanted = np.zeros(limit, dtype=bool)
    for begin, end in zip(starts, stops, strict=True):
        wanted[begin // PAGE * PAGE : end] = True
    assert np.array_equal(covered, wanted)


def test_announcing_rows_changes_nothing_that_is_read(folder: Path, rows: Rows) -> None:
    with open_store(folder) as store:
        for chosen in ([9, 0, 5, 5], [], [3], [0, 1, 2, 3, 9]):
            asked = np.array(chosen, dtype=np.int64)
            store.will_need(store.columns, asked)
            found, _ = store.gather("frames", asked)
            for got, row in zip(found, chosen, strict=True):
                np.testing.assert_array_equal(got, rows[row]["frames"])


@pytest.mark.parametrize(("memory", "expected"), [(10**12, 1), (10, 3)])
def test_a_row_is_announced_once_unless_memory_is_short(
    folder: Path, monkeypatch: pytest.MonkeyPatch, memory: int, expected: int
) -> None:
    monkeypatch.setattr(reader, "available_bytes", lambda: memory)
    with open_store(folder) as store:
        store.gather("frames", np.array([0]))
        told: list[list[int]] = []
        column = store._open["frames"]
        monkeypatch.setattr(column, "will_need", lambda rows: told.append(rows.tolist()))
        for _ in range(3):
            store.will_need(["frames"], np.array([4, 2]))
    assert told == [[4, 2]] * expected


FEW_FILES = """
import resource, sys, numpy as np
resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
from mmtool.store.reader import open_store
with open_store(sys.argv[1]) as store:
    rows = np.random.default_rng(0).permutation(store.index.num_rows)
    for _ in range(2):
        for name in store.columns:
            store.gather(name, rows)
    print(int(store.gather("small", np.arange(60))[0].sum(dtype=np.int64)))
"""


def test_more_files_than_a_process_may_open_are_read_all_the_same(
    tmp_path: Path, write: Callable[..., Path]
) -> None:
    small = np.random.default_rng(1).integers(0, 256, (60, 1, 2, 2)).astype(np.uint8)
    rows = [
        {
            "frames": np.zeros((3, 30, 30), np.uint8),
            "small": one,
            "wave": np.zeros(2, np.int16),
            "imu": np.zeros((1, 2), np.float32),
        }
        for one in small
    ]
    folder = write(tmp_path / "many", rows, per_shard=2)

    done = subprocess.run(
        [sys.executable, "-c", FEW_FILES, str(folder)], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == int(small.sum(dtype=np.int64))


OPENED: list[str] | None = None


def _note_opened(event: str, arguments: tuple[object, ...]) -> None:
    if event == "open" and OPENED is not None:
        OPENED.append(str(arguments[0]))


def test_opening_reads_no_shard(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sys.addaudithook(_note_opened)
    monkeypatch.setitem(globals(), "OPENED", [])
    with open_store(folder, verify="size") as store:
        assert OPENED is not None
        before = list(OPENED)
        store.gather("small", np.array([9]))
        after = list(OPENED)
    assert any(name.endswith("index.npz") for name in before)
    assert not [name for name in before if "shard-" in name]
    assert [Path(name).name for name in after if "shard-" in name] == ["shard-00002.small.bin"]


def test_a_column_holds_at_most_16_bytes_per_sample_in_memory(folder: Path) -> None:
    with open_store(folder) as store:
        for name, info in store.columns.items():
            store.gather(name, np.arange(10))
            if info.ragged:
                assert store.lengths(name).size == 10
            column = store._open[name]
            arrays = [*vars(column).values(), *getattr(column, "_offsets", {}).values()]
            held = sum(
                array.nbytes
                for array in arrays
                if isinstance(array, np.ndarray) and array is not store.shard_starts
            )
            # An offsets file has one number more than its shard has rows.
            assert held <= 16 * 10 + 8 * len(store.manifest.shards)
        index = store.index
        table = index.label.nbytes + index.group.nbytes + index.present.nbytes
        assert table + index._id_offsets.nbytes <= 16 * 10 * len(store.columns)
