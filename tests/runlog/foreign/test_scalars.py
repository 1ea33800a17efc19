"""TensorBoard events, CSV, JSON lines and the Trainer's state as tables of a run."""

import json
import struct
from pathlib import Path

import pytest

from mmtool.diagnose.api import diagnose
from mmtool.diagnose.load import open_run
from mmtool.errors import RequestError, RunDirectoryError
from mmtool.runlog.foreign.load import kind_of
from mmtool.runlog.foreign.tensorboard import event_files, read_tensorboard

EPOCHS = 5
STEPS = 20


def scalars():
    """Give (tag, value, step) of a training with numbers of two modalities."""
    for step in range(EPOCHS * STEPS):
        yield "train/loss", 2.0 / (step + 1), step
        yield "lr", 1e-3, step
        if (step + 1) % STEPS == 0:
            epoch = step // STEPS
            yield "epoch", float(epoch), step
            yield "val/loss", 1.0 / (epoch + 1), step
            yield "val/acc", 0.5 + 0.05 * epoch, step
            for modality, flip in (("audio", 0.6), ("video", 0.02)):
                yield f"val/{modality}/flip", flip, step
                yield f"val/{modality}/drop", flip / 2, step
                yield f"val/{modality}/alone", 0.3 + flip / 2, step
                yield f"val/{modality}/probe", 0.7, step


def write_events(writer) -> None:
    for tag, value, step in scalars():
        writer.add_scalar(tag, value, step)
    writer.close()


@pytest.fixture(params=["torch", "torch, new style", "tensorboardX"])
def events(request, tmp_path) -> Path:
    """Events as each of the writers in use writes them."""
    folder = tmp_path / "events"
    if request.param == "tensorboardX":
        tensorboardx = pytest.importorskip("tensorboardX", reason="tensorboardX is not installed")
        write_events(tensorboardx.SummaryWriter(str(folder)))
        return folder
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(folder))
    for tag, value, step in scalars():
        writer.add_scalar(tag, value, step, new_style=request.param.endswith("style"))
    writer.add_histogram("weights", __import__("torch").randn(1000), 3)
    writer.add_text("note", "hello", 3)
    writer.close()
    return folder


@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")
def test_events_of_every_writer_give_the_same_tables(events):
    tables = open_run(events).tables

    assert tables.warnings == ()
    assert tables.head["kind"] == "TensorBoard events"
    assert tables.steps["step"].tolist() == list(range(EPOCHS * STEPS))
    assert tables.steps["loss"].tolist() == pytest.approx([2 / (s + 1) for s in range(100)])
    assert tables.steps["lr"].tolist() == pytest.approx([1e-3] * 100)
    assert tables.epochs["epoch"].tolist() == list(range(EPOCHS))
    assert tables.epochs["acc"].tolist() == pytest.approx([0.5, 0.55, 0.6, 0.65, 0.7])
    assert len(tables.epoch_modalities) == 2 * EPOCHS
    assert tables.head["modalities"] == ["audio", "video"]
    assert "weights" not in tables.head["unread"]


@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")
def test_events_with_flip_rates_and_a_count_of_samples_lead_to_a_verdict(events):
    (events / "mmtool-map.toml").write_text("num_val = 600\nclasses = 6\n")
    report = diagnose([events])
    balance = report.metrics["balance"]

    assert "cannot be judged" not in report.verdict
    assert balance["n"] == 600
    assert {m["modality"]: m["flip"]["value"] for m in balance["modalities"]} == pytest.approx(
        {"audio": 0.6, "video": 0.02}
    )


def test_an_event_file_cut_at_any_place_gives_what_comes_before(tmp_path):
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(tmp_path / "whole"))
    for step in range(4):
        writer.add_scalar("loss", step, step)
    writer.close()
    (file,) = event_files(tmp_path / "whole")
    data = file.read_bytes()
    cut = tmp_path / file.name
    counts = []
    for size in range(len(data) + 1):
        cut.write_bytes(data[:size])
        tracks = read_tensorboard(cut)
        found = dict(iter(tracks)).get("loss")
        counts.append(0 if found is None else len(found.points()))
        assert len(tracks.warnings) <= 1
    assert counts == sorted(counts)
    assert (counts[0], counts[-1]) == (0, 4)


def test_damage_in_an_event_file_ends_it_and_is_said(tmp_path):
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(tmp_path))
    for step in range(4):
        writer.add_scalar("loss", step, step)
    writer.close()
    (file,) = event_files(tmp_path)
    data = bytearray(file.read_bytes())
    (size,) = struct.unpack_from("<Q", data)
    second = 12 + size + 4
    data[second] ^= 0xFF  # the length of the second record
    file.write_bytes(data)
    tracks = read_tensorboard(tmp_path)

    assert len(tracks) == 0
    assert f"damaged at byte {second}" in tracks.warnings[0]


def test_folders_of_splits_are_part_of_the_names_and_loops_of_links_end(tmp_path):
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from torch.utils.tensorboard import SummaryWriter

    for split in ("train", "validation"):
        writer = SummaryWriter(str(tmp_path / "logs" / split))
        for epoch in range(3):
            writer.add_scalar("epoch_loss", 1.0, epoch)
            writer.add_scalar("epoch_accuracy", 0.5, epoch)
        writer.close()
    (tmp_path / "logs" / "train" / "again").symlink_to(tmp_path / "logs")
    epochs = open_run(tmp_path / "logs").tables.epochs

    assert sorted(zip(epochs["split"], epochs["epoch"], strict=True)) == [
        *(("train", e) for e in range(3)), *(("val", e) for e in range(3)),
    ]  # fmt: skip


def test_a_plain_table_is_read_by_custom(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text(
        "\ufeffepoch;step;loss;val_acc;val_loss;note\n"
        "0;10;1.0;;;warm\n0;20;0.5;0.6;0.9;\n1;30;nan;;;\n1;40;0.2;0.7;0.8;\n"
    )
    tables = open_run(path).tables

    assert tables.steps["step"].tolist() == [10, 20, 30, 40]
    assert tables.steps["loss"].isna().tolist() == [False, False, True, False]
    assert tables.steps["epoch"].tolist() == [0, 0, 1, 1]
    assert tables.epochs[["epoch", "acc", "loss"]].to_numpy().tolist() == [
        [0, 0.6, 0.9], [1, 0.7, 0.8],
    ]  # fmt: skip


def test_rows_without_a_step_are_counted(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("epoch,train_loss,val_acc\n0,1.0,0.5\n1,0.5,0.6\n2,0.4,0.7\n")
    tables = open_run(path).tables

    assert tables.epochs["epoch"].tolist() == [0, 1, 2]
    assert tables.steps["loss"].tolist() == [1.0, 0.5, 0.4]


def test_a_map_says_what_names_stand_for(tmp_path):
    (tmp_path / "mmtool-map.toml").write_text(
        'modalities = ["rgb", "flow"]\nclasses = 4\nnum_val = 400\n'
        "[tags]\n"
        "'i' = \"step\"\n"
        "'top1' = \"val.acc\"\n"
        "'permuted_(?P<modality>\\w+)' = \"val.{modality}.flip\"\n"
        "'load_seconds' = \"s.data\"\n"
        "'total_seconds' = \"s.step\"\n"
        "'loss' = \"\"\n"
    )
    rows = [
        {"i": i, "loss": 1.0, "load_seconds": 0.01, "total_seconds": 0.05}
        | ({"top1": 0.5, "permuted": {"x": 1}, "permuted_rgb": 0.3, "permuted_flow": 0.2}
           if i % 10 == 9 else {})
        for i in range(40)
    ]  # fmt: skip
    (tmp_path / "log.jsonl").write_text("\n".join(map(json.dumps, rows)) + '\n{"i": 40, "to')
    run = open_run(tmp_path / "log.jsonl")
    tables = run.tables

    assert run.modalities == ("flow", "rgb")
    assert run.num_classes == 4
    assert tables.steps["ms_data"].tolist() == pytest.approx([10.0] * 40)
    assert tables.steps["ms_step"].tolist() == pytest.approx([50.0] * 40)
    assert tables.steps["loss"].isna().all()
    assert tables.epochs["epoch"].tolist() == [0, 1, 2, 3]
    assert set(tables.epoch_modalities["flip"]) == {0.3, 0.2}
    assert any("1 lines that are no objects" in w for w in tables.warnings)
    assert any("in their order" in w for w in tables.warnings)
    assert "data-bound" in {f.rule for f in diagnose([tmp_path / "log.jsonl"]).findings}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[tags]\n'(' = \"val.acc\"", "cannot be understood"),
        ("[tags]\n'x' = \"val.{modality}.flip\"", "cannot be understood"),
        ("[tags]\n'x' = \"a.b.c.d\"", "stands for nothing"),
        ("tags = 3", "table of expressions"),
        ("tags = [", "cannot be read"),
    ],
)
def test_a_map_with_a_mistake_is_refused_with_its_place(tmp_path, text, words):
    (tmp_path / "mmtool-map.toml").write_text(text)
    (tmp_path / "log.csv").write_text("step,loss\n0,1\n")
    with pytest.raises(RequestError, match=words) as caught:
        open_run(tmp_path / "log.csv")
    assert caught.value.where.endswith("mmtool-map.toml")


def test_a_table_whose_names_mean_nothing_is_refused_with_its_names(tmp_path):
    (tmp_path / "log.csv").write_text("apples,pears\n1,2\n")
    with pytest.raises(RequestError, match="meaning is known") as caught:
        open_run(tmp_path / "log.csv")
    assert "apples, pears" in caught.value.why
    assert "[tags]" in caught.value.fix


@pytest.mark.parametrize("name", ["log.csv", "log.jsonl", "events.out.tfevents.1"])
def test_bytes_of_no_meaning_are_refused_and_never_a_crash(tmp_path, name):
    (tmp_path / name).write_bytes(bytes(range(256)) * 50 + b'"\n' + b"\x00" * 1000)
    with pytest.raises(RequestError, match="meaning is known"):
        open_run(tmp_path / name)


def test_a_log_file_inside_a_run_stands_for_the_run(tmp_path):
    from mmtool.testing.recorded import write_run

    run = write_run(tmp_path / "run", scenario="balanced", epochs=1)
    assert open_run(run / "log" / "rank0.jsonl").path == run.resolve()


def test_a_foreign_log_without_modalities_says_so_and_how_to_mend_it(tmp_path):
    (tmp_path / "metrics.csv").write_text(
        "epoch,step,train_loss,val_acc\n" + "".join(f"{e},{e},1,0.5\n" for e in range(4))
    )
    report = diagnose([tmp_path / "metrics.csv"])
    (finding,) = (f for f in report.findings if f.rule == "foreign-log")

    assert "cannot be judged" in report.verdict
    assert "no per-modality columns" in report.verdict
    assert "0 of at least" not in report.verdict
    assert "MMCallback" in finding.advice
    assert "unfinished" not in {f.rule for f in report.findings}


@pytest.mark.parametrize(
    ("name", "text", "kind"),
    [
        ("a.csv", "x", "csv"),
        ("a.tsv", "x", "csv"),
        ("a.ndjson", "{}", "jsonl"),
        ("events.out.tfevents.123.host", "", "tensorboard"),
        ("trainer_state.json", '{"epoch": 1.0, "log_history": []}', "trainer_state"),
        ("a.json", '{"schemaVersion": 1, "deviceProperties": [], "x": 1}', "trace"),
        ("a.json", "{}", None),
        ("a.txt", "x", None),
    ],
)
def test_the_kind_of_a_log_is_told_by_name_and_content(tmp_path, name, text, kind):
    (tmp_path / name).write_text(text)
    assert kind_of(tmp_path / name) == kind


def test_the_command_takes_a_foreign_log_by_its_path(tmp_path):
    from typer.testing import CliRunner

    from mmtool.cli.app import app

    (tmp_path / "metrics.csv").write_text("epoch,step,loss\n0,1,1.0\n")
    for path in (tmp_path, tmp_path / "metrics.csv"):
        done = CliRunner().invoke(app, ["diagnose", str(path), "--json"])
        assert done.exit_code == 0, done.output
        assert '"foreign-log"' in done.stdout


def test_another_folder_is_refused_with_what_can_be_read(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(RunDirectoryError, match="not a run and no log") as caught:
        open_run(tmp_path)
    assert "trainer_state.json" in caught.value.why
