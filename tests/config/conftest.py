"""A folder of recipes and plugin files, standing alone and as the current folder."""

from collections.abc import Callable
from pathlib import Path

import pytest

METHOD = '''"""A method of the test."""
from typing import Literal

from mmtool.config.schema import Options as Base
from mmtool.config.schema import Section


class Inner(Section):
    depth: int = 1


class Options(Base):
    alpha: float = 0.3
    """How strong."""
    stop_epoch: int | None = 5
    apply: Literal["gradient", "update"] = "gradient"
    window: tuple[float, float] = (0.0, 1.0)
    mixed: int | str = 1
    tags: list[str] = []
    inner: Inner = Inner()
'''

RECIPE = """# A recipe of the test
[data]
dataset = "ave"

[model]
fusion = "./plain.py"
[model.encoders]
audio = "./plain.py"
video = {name = "./plain.py"}

[method]
name = "./my_method.py"
alpha = 0.5

[train]
epochs = 3
batch_size = 64
lr = 0.01
"""

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Write a recipe into the current folder, with (old, new) edits of the text above."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("mmtool.registry.bundled", lambda name: tmp_path / "bundled" / name)
    (tmp_path / "bundled" / "recipes").mkdir(parents=True)
    (tmp_path / "my_method.py").write_text(METHOD)
    (tmp_path / "other_method.py").write_text(METHOD.replace("alpha", "beta"))
    (tmp_path / "plain.py").write_text('"""Takes no options."""\n')

    def write_recipe(*edits: tuple[str, str], name: str = "x.toml", text: str = RECIPE) -> Path:
        for old, new in edits:
            assert old in text
            text = text.replace(old, new)
        path = Path(name)
        path.write_text(text, encoding="utf-8")
        return path

    return write_recipe


@pytest.fixture
def write_once(write: Write) -> Write:
    """Write recipes beside the one above, which is there already."""
    write()
    return write
