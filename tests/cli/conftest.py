from pathlib import Path

import pytest

PLUGIN = '''"""A plugin for tests."""
from mmtool.config.schema import Options as Base

class Options(Base):
    width: int = 4
    """How wide."""
'''
RECIPE = """data.dataset = "tiny"

[model]
fusion = "./plugin.py"
encoders.text = "./plugin.py"

[method]
name = "./plugin.py"
width = 8

[train]
epochs = 2
batch_size = 8
"""
PREPARER = '''"""Sentences that are loud or quiet."""
from pathlib import Path
from mmtool.prepare.api import Clip, Column, Options as Base, Source, SourceError, TextSpec

NAME = "tiny"
TITLE = "Tiny sentences"
LICENCE = "CC0"
SOURCE = "made up"
CITATION = "nobody 2026"
BUNDLED = Path(__file__).parent

class Options(Base):
    num_clips: int = 12
    """How many sentences there are."""

def columns(root, options):
    return {"text": Column("text", TextSpec(max_tokens=16))}

def classes(root, options):
    return ["quiet", "loud"]

def clips(root, options):
    if not (root / "tiny.py").exists():
        raise SourceError("this is not the tiny release", where=str(root))
    splits = ("train", "train", "val", "test")
    for number in range(options.num_clips):
        text = f"sentence {number}"
        source = Source(path=Path(__file__), text=text)
        split = {"main": splits[number // 2 % 4]}
        yield Clip(f"c{number:03d}", number % 2, {"text": source}, split)
'''


@pytest.fixture
def recipe(tmp_path, monkeypatch) -> Path:
    """A recipe whose plugins are files beside it, in the current folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plugin.py").write_text(PLUGIN, encoding="utf-8")
    path = tmp_path / "demo.toml"
    path.write_text(RECIPE, encoding="utf-8")
    return Path("demo.toml")


@pytest.fixture
def preparer(tmp_path, monkeypatch) -> Path:
    """A preparer file in the current folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.py").write_text(PREPARER, encoding="utf-8")
    return Path("tiny.py")
