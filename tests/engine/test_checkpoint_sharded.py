"""Checkpoints of which every rank writes its part, read on any number of ranks."""

import io
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from mmtool.config.schema import Recipe
from mmtool.engine import sharded
from mmtool.engine.choose import STATE, WEIGHTS, choose_checkpoint
from mmtool.engine.distributed import Ranks
from mmtool.engine.manifest import newest_first
from mmtool.testing.fakes import FakeModality, write_fake_store
from mmtool.testing.ranks import run_ranks
from mmtool.testing.training import train_here

TOLERANCE = 2e-5


def recipe(sync: str = "fsdp", checkpoint: str = "sharded") -> Recipe:
    return Recipe.model_validate(
        {
            "data": {"dataset": "fake"},
            "model": {
                "encoders": {
                    "audio": {"name": "mlp", "hidden": (12,)},
                    "image": {"name": "mlp", "hidden": (8,)},
                }
            },
            "method": {"name": str(Path(__file__).with_name("scenarios.py")), "scenario": "plain"},
            "launch": {"sync": sync, "shard_from": 0},
            "train": {
                "epochs": 2,
                "batch_size": 12,
                "lr": 0.01,
                "optimizer": "adamw",
                "checkpoint": checkpoint,
            },
        }
    )


def begin(ranks: Ranks, root: str, out: str) -> None:
    """Train three steps on these ranks."""
    for name in ("parts", "damaged"):
        train_here(
            recipe(), data_root=Path(root), checkpoints=Path(out) / name, ranks=ranks, stop_after=3
        )


def end(ranks: Ranks, root: str, out: str) -> None:
    """Continue to the end on these ranks, in every way, each from a copy of its own."""
    for sync, checkpoint in (("fsdp", "sharded"), ("explicit", "gathered")):
        folder = Path(out) / f"{sync}{ranks.world}"
        found = train_here(
            recipe(sync, checkpoint),
            data_root=Path(root),
            checkpoints=folder,
            ranks=ranks,
            is_resumed=True,
        )
        save_file(found, f"{folder}.rank{ranks.rank}.safetensors")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    shapes = {
        "audio": FakeModality((6,), "spectrogram"),
        "image": FakeModality((5,), "spectrogram"),
    }
    write_fake_store(folder / "fake", shapes, splits={"train": 53, "val": 11, "test": 7})
    return folder


@pytest.fixture(scope="module")
def whole(root, tmp_path_factory):
    return train_here(
        recipe("explicit", "gathered"), data_root=root, checkpoints=tmp_path_factory.mktemp("whole")
    )


@pytest.fixture(scope="module")
def begun(root, tmp_path_factory):
    out = tmp_path_factory.mktemp("begun")
    run_ranks(2, f"{Path(__file__)}:begin", str(root), str(out))
    return out


def copied(begun, *names):
    import shutil

    for name in names:
        shutil.copytree(begun / "parts", begun / name, dirs_exist_ok=True)


def test_every_rank_writes_its_part(begun):
    path, refused = choose_checkpoint(begun / "parts")
    files = sorted(p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file())

    assert refused == []
    assert path.name == "step00000003"
    assert files == [
        "about.json", "manifest.json", "parts/.metadata", "parts/__0_0.distcp",
        "parts/__1_0.distcp", "state.pt",
    ]  # fmt: skip
    assert not (path / WEIGHTS).exists()
    assert torch.load(path / STATE, weights_only=True)["optimizer"] is None


@pytest.mark.parametrize("world", [2, 3])
def test_it_is_continued_sharded_or_whole_on_other_numbers_of_ranks(world, begun, root, whole):
    copied(begun, f"fsdp{world}", f"explicit{world}")
    run_ranks(world, f"{Path(__file__)}:end", str(root), str(begun))

    for sync in ("fsdp", "explicit"):
        for rank in range(world):
            found = load_file(begun / f"{sync}{world}.rank{rank}.safetensors")
            assert all(torch.allclose(found[n], v, atol=TOLERANCE) for n, v in whole.items()), sync
    best = newest_first(begun / f"fsdp{world}", "best")
    assert len(best) == 1
    assert not (best[0] / WEIGHTS).exists()


def test_it_is_continued_by_one_process(begun, root, whole):
    copied(begun, "alone")
    found = train_here(
        recipe("explicit", "gathered"), data_root=root, checkpoints=begun / "alone", is_resumed=True
    )

    assert all(torch.allclose(found[n], v, atol=TOLERANCE) for n, v in whole.items())


def test_one_process_writes_and_reads_parts_bit_for_bit(root, whole, tmp_path):
    config = recipe("explicit", "sharded")
    train_here(config, data_root=root, checkpoints=tmp_path, stop_after=4)
    found = train_here(config, data_root=root, checkpoints=tmp_path, is_resumed=True)

    assert all(torch.equal(found[n], v) for n, v in whole.items())


def test_a_damaged_part_is_refused(begun):
    path, _ = choose_checkpoint(begun / "damaged")
    part = path / "parts" / "__1_0.distcp"
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 1
    part.write_bytes(data)

    with pytest.raises(Exception, match="no usable checkpoint") as caught:
        choose_checkpoint(begun / "damaged")
    assert caught.value.exit_code == 65
    assert "__1_0.distcp does not match" in caught.value.why


class Evil:
    def __reduce__(self):
        return (exec, ("raise SystemExit('ran')",))


def test_metadata_that_would_run_code_is_refused(tmp_path):
    (tmp_path / "parts").mkdir()
    (tmp_path / sharded.METADATA).write_bytes(pickle.dumps(Evil()))

    with pytest.raises(pickle.UnpicklingError, match="it would run"):
        sharded.check(tmp_path)


def test_metadata_cannot_reach_through_trusted_modules(tmp_path):
    (tmp_path / "parts").mkdir()
    stream = io.BytesIO()
    module, name = b"torch.distributed.checkpoint.filesystem", b"os.system"
    stream.write(b"\x80\x04\x8c" + bytes([len(module)]) + module)
    stream.write(b"\x8c" + bytes([len(name)]) + name + b"\x93\x8c\x04true\x85R.")
    (tmp_path / sharded.METADATA).write_bytes(stream.getvalue())

    with pytest.raises(pickle.UnpicklingError, match=r"it would run .*os\.system"):
        sharded.check(tmp_path)
