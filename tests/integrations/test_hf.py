"""The callback in a training with the real Trainer of Hugging Face."""

import json
import warnings

import pytest
import torch
from torch import nn

from mmtool.diagnose.api import diagnose
from mmtool.runlog.reader import load_run
from mmtool.testing.small_problem import CLASSES, TwoEncoders, small_problem

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    pytest.importorskip("accelerate", reason="accelerate is not installed")
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    from transformers.utils import ModelOutput

    from mmtool.integrations.hf import MMTrainerCallback

pytestmark = pytest.mark.filterwarnings("ignore")


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = TwoEncoders()

    def forward(self, audio, video, labels=None):
        logits = self.net(audio, video)
        return ModelOutput(loss=nn.functional.cross_entropy(logits, labels), logits=logits)


def samples(num_samples, seed):
    rows = zip(*small_problem(num_samples, seed=seed), strict=True)
    return [{"audio": a, "video": v, "labels": y} for a, v, y in rows]


def accuracy(predictions):
    return {"accuracy": float((predictions.predictions.argmax(1) == predictions.label_ids).mean())}


def train(tmp_path, *, fusion="net.head", accumulate=1, epochs=3, **options):
    torch.manual_seed(0)
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path / "out"),
        num_train_epochs=epochs,
        per_device_train_batch_size=64,
        per_device_eval_batch_size=100,
        gradient_accumulation_steps=accumulate,
        learning_rate=5e-3,
        use_cpu=True,
        report_to=[],
        logging_steps=2,
        disable_tqdm=True,
        **{"eval_strategy": "epoch", "save_strategy": "epoch", **options},
    )
    callback = MMTrainerCallback(
        tmp_path / "mine",
        encoders={"audio": "net.enc.audio", "video": "net.enc.video"},
        fusion=fusion,
        classes=CLASSES,
        system=False,
    )
    trainer = transformers.Trainer(
        Model(),
        arguments,
        train_dataset=samples(512, 1),
        eval_dataset=samples(300, 2),
        compute_metrics=accuracy,
        callbacks=[callback],
    )
    trainer.train()
    trainer.save_state()
    return trainer


def test_a_training_with_the_trainer_is_logged_up_to_a_verdict(tmp_path):
    trainer = train(tmp_path)
    tables = load_run(tmp_path / "mine")
    val = tables.epoch_modalities[tables.epoch_modalities["split"] == "val"]

    assert tables.steps["step"].tolist() == list(range(24))
    assert tables.steps["epoch"].tolist() == [e for e in range(3) for _ in range(8)]
    assert (tables.steps["n"] == 64).all()
    phases = ["ms_data", "ms_forward", "ms_backward", "ms_optimizer"]
    assert (tables.steps[phases] > 0).all(axis=None)
    assert (tables.steps["ms_step"] >= tables.steps[phases].sum(axis=1) * 0.999).all()
    assert tables.steps["loss"].iloc[-1] < tables.steps["loss"].iloc[0]
    assert tables.epochs[tables.epochs["split"] == "val"]["epoch"].tolist() == [0, 1, 2]
    assert tables.epochs[tables.epochs["split"] == "val"]["n"].tolist() == [300] * 3
    assert val[["flip", "drop", "alone", "probe"]].notna().all(axis=None)
    assert tables.events["what"].tolist() == ["checkpoint"] * 3
    assert tables.end["status"] == "done"
    assert not any(m._forward_hooks for m in trainer.model.modules())
    assert diagnose([tmp_path / "mine"]).findings[0].rule.startswith("balanced")


def test_the_evaluated_accuracy_is_the_trainers(tmp_path):
    trainer = train(tmp_path)
    logged = [row["eval_accuracy"] for row in trainer.state.log_history if "eval_accuracy" in row]
    tables = load_run(tmp_path / "mine")
    ours = tables.epochs[tables.epochs["split"] == "val"]["acc"].tolist()

    assert ours == pytest.approx(logged, abs=1e-5)


def test_a_batch_in_parts_is_one_step(tmp_path):
    train(tmp_path, accumulate=2, epochs=1)
    tables = load_run(tmp_path / "mine")

    assert tables.steps["step"].tolist() == list(range(4))
    assert (tables.steps["n"] == 128).all()


def test_evaluations_every_so_many_steps_are_counted(tmp_path):
    train(tmp_path, epochs=1, eval_strategy="steps", eval_steps=4, save_strategy="no")
    tables = load_run(tmp_path / "mine")

    assert tables.epochs[tables.epochs["split"] == "val"]["epoch"].tolist() == [0, 1]


def test_the_trainers_own_state_is_read_as_a_foreign_log(tmp_path):
    trainer = train(tmp_path)
    best = max(r["eval_accuracy"] for r in trainer.state.log_history if "eval_accuracy" in r)
    for path in (tmp_path / "out", tmp_path / "out" / "trainer_state.json"):
        report = diagnose([path])
        curves = report.metrics["curves"]["fused"]["val"]
        assert [epoch for epoch, _ in curves["acc"]] == [0, 1, 2]
        assert max(value for _, value in curves["acc"]) == pytest.approx(best)
        assert report.meta["finished"]
        (finding,) = (f for f in report.findings if f.rule == "foreign-log")
        assert "MMTrainerCallback" in finding.advice
        assert "12 steps" in finding.what


def test_a_training_cut_short_is_read_from_its_last_checkpoint_as_unfinished(tmp_path):
    train(tmp_path)
    (tmp_path / "out" / "trainer_state.json").unlink()
    last = tmp_path / "out" / "checkpoint-24"
    for file in last.iterdir():
        file.unlink()
    last.rmdir()
    report = diagnose([tmp_path / "out"])

    assert not report.meta["finished"]
    assert "unfinished" in {f.rule for f in report.findings}


def test_a_state_that_is_no_json_is_refused(tmp_path):
    from mmtool.errors import RunDirectoryError

    (tmp_path / "trainer_state.json").write_text('{"log_history": [' + json.dumps({"loss": 1}))
    with pytest.raises(RunDirectoryError, match="not the state of a Trainer"):
        diagnose([tmp_path])
