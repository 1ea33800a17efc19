"""Measure the reader of stores beside streaming engines on the same records.

    python tests/bench/streaming.py [--records 600] [--repeats 3] [--out FOLDER]

A record has 3 x 256 x 256 bytes of image and 66,150 int16 of sound (321 KiB). Ours gathers from
mapped shards into reused buffers, in the global order and in the order by shards that a remote
store gets. MDS (streaming-community), litdata and WebDataset read the same records by way of their
own writers, through a DataLoader in this process, because worker processes cost more than they give
on packed data; an engine that is not installed is left out. All run interleaved with a warm page
cache, and a number is the median of the repeats. CPU time is that of all threads.

The quality of a shuffle is the mean distance of ids inside a batch of 64 over that of a global
permutation, for small records in shards of 100; beside it the mean number of shards in a batch.

The last part opens stores of 10,000 and of 100,000 records in fresh processes: seconds to open, and
memory of the process's own (what is mapped belongs to the page cache) after opening and after a
hundred batches.
"""

import argparse
import functools
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from record import write_results

from mmtool.data.samplers import Visits, block_shuffled, shuffled
from mmtool.prepare.export import export_store
from mmtool.store.index import index_bytes
from mmtool.store.reader import open_store
from mmtool.store.schema import ColumnInfo, Manifest, content_hash
from mmtool.store.writer import StoreWriter

HERE = Path(__file__).resolve().parent
BATCH = 64
IMAGE, SOUND = (3, 256, 256), (66_150,)
TINY_RECORDS, TINY_PER_SHARD = 32_000, 100
Epoch = Callable[[int], Iterator[int]]
"""One epoch of an engine; gives the records of every batch."""


def write_store(
    out: Path, num_rows: int, per_shard: int, shapes: dict[str, tuple[str, tuple[int, ...]]]
) -> Path:
    """Write a store of random records, the same ones every time."""
    columns = {
        name: ColumnInfo(name, "series", dtype, shape, False)  # type: ignore[arg-type]
        for name, (dtype, shape) in shapes.items()
    }
    generator = np.random.default_rng(0)
    writer = StoreWriter(out)
    writer.begin()
    shards = []
    for number, first in enumerate(range(0, num_rows, per_shard)):
        with writer.shard(number, columns) as shard:
            for row in range(first, min(first + per_shard, num_rows)):
                arrays = {
                    name: np.frombuffer(
                        generator.bytes(int(np.prod(c.shape)) * np.dtype(c.dtype).itemsize), c.dtype
                    ).reshape(c.shape)
                    for name, c in columns.items()
                    if name != "number"
                }
                if "number" in columns:
                    arrays["number"] = np.array([row], np.int32)
                shard.append(arrays)
            shards.append(shard.commit())
        writer.note(number, "bench", shards[-1], {})
    index = writer.write_index(
        index_bytes(
            ids=[f"record{row:07d}" for row in range(num_rows)],
            labels=[0] * num_rows,
            groups=[f"group {row}" for row in range(num_rows)],
            splits={"default": ["train"] * num_rows},
            present=np.ones((num_rows, len(columns)), bool).tolist(),
            num_modalities=len(columns),
        )
    )
    identity: dict[str, Any] = {"columns": columns, "shards": tuple(shards), "index": index}
    found = content_hash(**identity, classes=["a"], preparer="bench", options={})
    manifest = Manifest(
        name="bench", title="Bench", licence="none", source="generated", citation="none",
        hash=found, classes=("a",), modalities=tuple(sorted(columns)),
        protocols={"default": {"train": num_rows}}, default_protocol="default", provenance={},
        **identity,
    )  # fmt: skip
    writer.publish(manifest, {})
    return out


def ours(path: Path, *, by_shards: bool) -> Epoch:
    """Our reader: gathers into reused buffers."""
    store = open_store(path, verify="size")
    buffers = {n: np.empty((BATCH, *c.shape), c.dtype) for n, c in store.columns.items()}
    visits = Visits(np.arange(store.index.num_rows))

    def run(epoch: int) -> Iterator[int]:
        if by_shards:
            order = block_shuffled(
                visits, store.shard_starts, seed=0, epoch=epoch, batch_size=BATCH, shards_in_reach=8
            ).rows
        else:
            order = shuffled(visits, seed=0, epoch=epoch).rows
        for first in range(0, len(order) - BATCH + 1, BATCH):
            rows = order[first : first + BATCH]
            batch = {
                name: torch.from_numpy(store.gather(name, rows, out)[0])
                for name, out in buffers.items()
            }
            yield len(batch["image"])

    return run


def mds(path: Path, work: Path) -> Epoch:
    """MDS by way of streaming-community."""
    from streaming import StreamingDataset

    export_store(path, work / "mds", "mds", shard_bytes=64 << 20)
    dataset = StreamingDataset(
        local=str(work / "mds"), shuffle=True, batch_size=BATCH, num_canonical_nodes=1
    )
    loader = torch.utils.data.DataLoader(
        dataset, batch_size=BATCH, num_workers=0, drop_last=True, collate_fn=_stacked
    )

    def run(epoch: int) -> Iterator[int]:
        for batch in loader:
            yield len(batch["image"])

    return run


def _stacked(samples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    return {
        name: torch.from_numpy(np.stack([sample[name] for sample in samples]))
        for name in ("image", "sound")
    }


def _record(path: str, row: int) -> dict[str, Any]:
    store = _opened(path)
    return {name: store.gather(name, np.array([row]))[0][0] for name in store.columns}


@functools.cache
def _opened(path: str) -> Any:
    return open_store(Path(path), verify="size")


def lit(path: Path, work: Path) -> Epoch:
    """litdata with its own writer and loader."""
    import litdata

    num_rows = open_store(path, verify="size").index.num_rows
    litdata.optimize(
        fn=functools.partial(_record, str(path)),
        inputs=list(range(num_rows)),
        output_dir=str(work / "lit"),
        chunk_bytes="64MB",
        num_workers=1,
    )
    dataset = litdata.StreamingDataset(str(work / "lit"), shuffle=True)
    loader = litdata.StreamingDataLoader(
        dataset, batch_size=BATCH, num_workers=0, drop_last=True, collate_fn=_stacked
    )

    def run(epoch: int) -> Iterator[int]:
        for batch in loader:
            yield len(batch["image"])

    return run


def web(path: Path, work: Path) -> Epoch:
    """WebDataset over our tar export, with a shuffle buffer of 200 records."""
    import webdataset

    export_store(path, work / "web", "webdataset", shard_bytes=64 << 20)
    urls = [str(file) for file in sorted((work / "web").glob("*.tar"))]
    names = {"image": "image.npy", "sound": "sound.npy"}

    def run(epoch: int) -> Iterator[int]:
        dataset = webdataset.WebDataset(urls, shardshuffle=len(urls), seed=epoch)
        dataset = dataset.shuffle(200).decode().map(lambda s: {n: s[k] for n, k in names.items()})
        loader = torch.utils.data.DataLoader(
            dataset, batch_size=BATCH, num_workers=0, drop_last=True, collate_fn=_stacked
        )
        for batch in loader:
            yield len(batch["image"])

    return run


def shuffle_quality(order: np.ndarray) -> dict[str, float]:
    """Give the in-batch distance against a global permutation and the shards in a batch."""
    batches = order[: len(order) // BATCH * BATCH].reshape(-1, BATCH)
    one, other = np.triu_indices(BATCH, 1)
    distance = np.abs(batches[:, one] - batches[:, other]).mean() * 3 / (len(order) + 1)
    shards = statistics.mean(len(np.unique(batch // TINY_PER_SHARD)) for batch in batches)
    return {"distance": float(distance), "shards_in_batch": shards}


def qualities(work: Path) -> dict[str, dict[str, float]]:
    """Give the quality of every engine's order over small records."""
    visits = Visits(np.arange(TINY_RECORDS))
    starts = np.arange(0, TINY_RECORDS + 1, TINY_PER_SHARD)
    found = {"ours, global": shuffle_quality(shuffled(visits, seed=0, epoch=0).rows)}
    for reach in (64, 16):
        rows = block_shuffled(
            visits, starts, seed=0, epoch=0, batch_size=BATCH, shards_in_reach=reach
        ).rows
        found[f"ours, {reach} shards in reach"] = shuffle_quality(rows)
    if has("streaming"):
        found["MDS (py1e)"] = shuffle_quality(_tiny_mds(work / "tiny-mds"))
    if has("litdata"):
        found["litdata"] = shuffle_quality(_tiny_lit(work / "tiny-lit"))
    return found


def _tiny_mds(out: Path) -> np.ndarray:
    from streaming import MDSWriter, StreamingDataset

    # Eight bytes of value and four of offset make a record; the header of a shard comes on top.
    with MDSWriter(columns={"number": "int"}, out=str(out), size_limit=12 * 100 + 300) as writer:
        for row in range(TINY_RECORDS):
            writer.write({"number": row})
    dataset = StreamingDataset(
        local=str(out), shuffle=True, batch_size=BATCH, num_canonical_nodes=1,
        shuffle_block_size=64 * TINY_PER_SHARD,
    )  # fmt: skip
    return np.array([sample["number"] for sample in dataset])


def _number(row: int) -> int:
    return row


def _tiny_lit(out: Path) -> np.ndarray:
    import litdata

    litdata.optimize(
        fn=_number, inputs=list(range(TINY_RECORDS)), output_dir=str(out),
        chunk_size=TINY_PER_SHARD, num_workers=1,
    )  # fmt: skip
    return np.array(list(litdata.StreamingDataset(str(out), shuffle=True)))


OPEN = """
import sys, time, json, numpy as np
from pathlib import Path
from mmtool.store.reader import open_store
def own_mb():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon:")) / 1e3
before = own_mb()
started = time.perf_counter()
store = open_store(Path(sys.argv[1]), verify="auto")
seconds = time.perf_counter() - started
opened = own_mb()
out = np.empty((64, *store.columns["image"].shape), store.columns["image"].dtype)
generator = np.random.default_rng(0)
for _ in range(100):
    store.gather("image", generator.integers(0, store.index.num_rows, 64), out)
print(json.dumps({"open_s": seconds, "index_mb": opened - before, "read_mb": own_mb() - opened}))
"""


def opening(work: Path) -> dict[str, dict[str, float]]:
    """Give the cost of opening small and large stores, in fresh processes."""
    found = {}
    for num_rows in (10_000, 100_000):
        shapes = {"image": ("uint8", (4096,)), "number": ("int32", (1,))}
        path = write_store(work / f"rows-{num_rows}", num_rows, 16_384, shapes)
        done = subprocess.run(
            [sys.executable, "-c", OPEN, str(path)], capture_output=True, text=True, check=True
        )
        found[f"{num_rows} records"] = json.loads(done.stdout)
    return found


def has(package: str) -> bool:
    """Say whether a package is installed."""
    return importlib.util.find_spec(package) is not None


def measure(engines: dict[str, Epoch], repeats: int) -> dict[str, dict[str, float]]:
    """Run the engines in turn; the first round warms up and is dropped."""
    rates: dict[str, list[float]] = {name: [] for name in engines}
    costs: dict[str, list[float]] = {name: [] for name in engines}
    for repeat in range(repeats + 1):
        for name, run in engines.items():
            started, cpu = time.perf_counter(), time.process_time()
            count = sum(run(repeat))
            wall, used = time.perf_counter() - started, time.process_time() - cpu
            if repeat:
                rates[name].append(count / wall)
                costs[name].append(used / count * 1e3)
    return {
        name: {
            "samples_per_s": statistics.median(rates[name]),
            "cpu_ms_per_sample": statistics.median(costs[name]),
        }
        for name in engines
    }


def main() -> None:
    """Run all comparisons and print their tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=600)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    # This file would hide the package of its name.
    sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != HERE]
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        shapes = {"image": ("uint8", IMAGE), "sound": ("int16", SOUND)}
        path = write_store(work / "store", options.records, 40, shapes)
        engines = {
            "ours, global order": ours(path, by_shards=False),
            "ours, order by shards": ours(path, by_shards=True),
        }
        makers = {"MDS": ("streaming", mds), "litdata": ("litdata", lit)}
        makers["WebDataset"] = ("webdataset", web)
        for name, (package, make) in makers.items():
            if has(package):
                engines[name] = make(path, work)
        speed = measure(engines, options.repeats)
        quality = qualities(work)
        scale = opening(work)
    print(f"\n{'engine':28} {'samples/s':>10} {'CPU ms/sample':>14} {'ours is':>9}")
    base = speed["ours, global order"]["cpu_ms_per_sample"]
    for name, row in speed.items():
        rate, cost = row["samples_per_s"], row["cpu_ms_per_sample"]
        print(f"{name:28} {rate:10,.0f} {cost:14.3f} {cost / base:8.1f}x")
    print(f"\n{'order':28} {'distance':>10} {'shards in a batch':>18}")
    for name, row in quality.items():
        print(f"{name:28} {row['distance']:10.3f} {row['shards_in_batch']:18.1f}")
    print(f"\n{'store':28} {'open s':>10} {'index MB':>10} {'reading MB':>11}")
    for name, row in scale.items():
        print(f"{name:28} {row['open_s']:10.3f} {row['index_mb']:10.1f} {row['read_mb']:11.1f}")
    if options.out:
        document = {"speed": speed, "quality": quality, "opening": scale}
        print(write_results("streaming", document, options.out))


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
