"""The callback in a training with the real Lightning."""

import logging
import warnings

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from mmtool.diagnose.api import diagnose
from mmtool.runlog.reader import load_run
from mmtool.testing.small_problem import CLASSES, TwoEncoders, small_problem

with warnings.catch_warnings():
    # Lightning's own imports warn of what their makers will change.
    warnings.simplefilter("ignore")
    lightning = pytest.importorskip("lightning.pytorch", reason="lightning is not installed")
    from mmtool.integrations.lightning import MMCallback

pytestmark = pytest.mark.filterwarnings("ignore")
ENCODERS = {"audio": "model.enc.audio", "video": "model.enc.video"}
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


class Module(lightning.LightningModule):
    def __init__(self, fails_at=None):
        super().__init__()
        self.model = TwoEncoders()
        self.fails_at = fails_at

    def training_step(self, batch, batch_idx):
        if self.global_step == self.fails_at:
            raise ValueError("out of luck")
        audio, video, label = batch
        loss = nn.functional.cross_entropy(self.model(audio, video), label)
        self.log("train_loss", loss, on_step=True, on_epoch=True)
        return loss

    def validation_step(self, batch, batch_idx):
        audio, video, label = batch
        logits = self.model(audio, video)
        self.log("val_loss", nn.functional.cross_entropy(logits, label))
        self.log("val_acc", (logits.argmax(1) == label).float().mean())

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 5e-3)


def loader(num_samples, seed):
    return DataLoader(TensorDataset(*small_problem(num_samples, seed=seed)), batch_size=64)


def fit(tmp_path, *, module=None, logger=False, epochs=3, **options):
    torch.manual_seed(0)
    callback = MMCallback(
        tmp_path / "mine", **{"encoders": ENCODERS, "fusion": "model.head", "classes": CLASSES}
        | {"system": False} | options,
    )  # fmt: skip
    trainer = lightning.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        callbacks=[callback],
        logger=logger,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=2,
    )
    module = module or Module()
    trainer.fit(module, loader(512, 1), loader(300, 2))
    return module


def test_a_lightning_training_is_logged_up_to_a_verdict(tmp_path):
    module = fit(tmp_path)
    tables = load_run(tmp_path / "mine")
    val = tables.epoch_modalities[tables.epoch_modalities["split"] == "val"]

    assert tables.steps["step"].tolist() == list(range(24))
    assert tables.steps["epoch"].tolist() == [e for e in range(3) for _ in range(8)]
    assert (tables.steps["n"] == 64).all()
    phases = ["ms_data", "ms_forward", "ms_backward", "ms_optimizer"]
    assert (tables.steps[phases] > 0).all(axis=None)
    assert (tables.steps["ms_step"] >= tables.steps[phases].sum(axis=1) * 0.999).all()
    assert tables.steps["loss"].iloc[-1] < tables.steps["loss"].iloc[0]
    assert tables.epochs[tables.epochs["split"] == "val"]["n"].tolist() == [300] * 3
    assert val[["flip", "drop", "alone", "probe"]].notna().all(axis=None)
    assert tables.end["status"] == "done"
    assert not any(m._forward_hooks for m in module.modules())
    report = diagnose([tmp_path / "mine"])
    assert report.findings[0].rule.startswith("balanced")


def test_the_probes_change_nothing_of_the_training(tmp_path):
    logged = fit(tmp_path, epochs=1).state_dict()
    torch.manual_seed(0)
    alone = Module()
    lightning.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    ).fit(alone, loader(512, 1), loader(300, 2))  # fmt: skip

    assert all(torch.equal(value, logged[name]) for name, value in alone.state_dict().items())


def test_a_training_that_fails_is_logged_as_failed(tmp_path):
    with pytest.raises(ValueError, match="luck"):
        fit(tmp_path, module=Module(fails_at=10))
    tables = load_run(tmp_path / "mine")

    assert len(tables.steps) == 10
    assert tables.end["status"] == "failed"
    assert "out of luck" in tables.end["reason"]


def test_without_a_fusion_the_scores_are_those_the_module_logs(tmp_path):
    fit(tmp_path, fusion=None, epochs=1)
    tables = load_run(tmp_path / "mine")
    row = tables.epochs[tables.epochs["split"] == "val"].iloc[0]

    assert 0 < row["acc"] <= 1
    assert row["loss"] > 0
    assert tables.epoch_modalities["flip"].isna().all()


def test_the_csv_of_lightnings_own_logger_is_read(tmp_path):
    from lightning.pytorch.loggers import CSVLogger

    fit(tmp_path, logger=CSVLogger(tmp_path / "logs"))
    for path in (
        tmp_path / "logs" / "lightning_logs",
        tmp_path / "logs" / "lightning_logs" / "version_0",
        tmp_path / "logs" / "lightning_logs" / "version_0" / "metrics.csv",
    ):
        report = diagnose([path])
        curves = report.metrics["curves"]["fused"]
        assert [epoch for epoch, _ in curves["val"]["acc"]] == [0, 1, 2]
        assert [epoch for epoch, _ in curves["train"]["loss"]] == [0, 1, 2]
        (finding,) = (f for f in report.findings if f.rule == "foreign-log")
        assert "no columns of single modalities" in finding.what
        assert "callback" in finding.advice.lower() or path.is_dir()


def test_the_events_of_lightnings_tensorboard_logger_are_read(tmp_path):
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from lightning.pytorch.loggers import TensorBoardLogger

    fit(tmp_path, logger=TensorBoardLogger(tmp_path / "logs"))
    report = diagnose([tmp_path / "logs" / "lightning_logs" / "version_0"])

    assert [epoch for epoch, _ in report.metrics["curves"]["fused"]["val"]["acc"]] == [0, 1, 2]
    assert report.meta["finished"]
