"""Imports only point down; the table below is the architecture."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "mmtool"
METHODS = sorted((PACKAGE / "methods").glob("*.py"))
LEVELS = {
    "errors": 0, "text": 0, "types": 0, "registry": 0, "paths": 0, "randomness": 0, "__init__": 0,
    "config": 1, "runlog": 1,
    "media": 2, "store": 2, "diagnose": 2, "log": 2,
    "prepare": 3, "data": 3, "models": 3, "methods": 3, "compress": 3, "integrations": 3,
    "engine": 4, "profile": 5, "cli": 6, "__main__": 7,
    "testing": 5,
}  # fmt: skip
# Within level 0 the registry stands on the others.
ALLOWED_SIDEWAYS = {
    ("registry", "paths"), ("registry", "text"), ("registry", "errors"),
}  # fmt: skip
FORBIDDEN_EXTERNAL = {
    "torch": {"errors", "text", "registry", "paths", "config", "runlog", "store", "diagnose"},
    "typer": set(LEVELS) - {"cli"},
    "rich": set(LEVELS) - {"cli"},
    "pandas": {"engine", "methods", "models", "data", "config", "store", "media", "prepare"},
}
ONLY_IN = {
    # Sharding is torch's own; collectives of ours are in one place.
    "torch.distributed": {
        "mmtool/engine/distributed.py",
        "mmtool/engine/shards.py",
        "mmtool/engine/sharded.py",
    },
}


def room_of(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def imports_of(path: Path) -> Iterator[tuple[int, str, bool]]:
    """Give (line, module, whether it runs at import or call time rather than for types only)."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only: set[int] = set()
    for node in ast.walk(tree):
        is_guard = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        if is_guard:
            typing_only |= {id(inner) for child in node.body for inner in ast.walk(child)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, a.name, id(node) not in typing_only) for a in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            is_real = id(node) not in typing_only
            if node.module in ("mmtool", "mmtool.prepare", "torch"):
                names = [f"{node.module}.{a.name}" for a in node.names]
                yield from ((node.lineno, name, is_real) for name in names)
            else:
                yield node.lineno, node.module, is_real


def sources() -> list[Path]:
    found = sorted(p for p in PACKAGE.rglob("*.py") if "_bundled" not in p.parts)
    assert len(found) >= 80, "the walk over the package no longer finds its files"
    return found


def violations(path: Path) -> Iterator[str]:
    where = path.relative_to(ROOT)
    module = ".".join(where.with_suffix("").parts)
    room = room_of(module)
    for line, imported, is_real in imports_of(path):
        top = imported.split(".")[0]
        if top == "mmtool":
            other = room_of(imported)
            if other == room or imported in ("mmtool.__version__",):
                continue
            points_down = LEVELS[other] < LEVELS[room]
            if not points_down and (room, other) not in ALLOWED_SIDEWAYS:
                yield f"{where}:{line}: {room} must not import {other}"
        elif is_real and room in FORBIDDEN_EXTERNAL.get(top, set()):
            yield f"{where}:{line}: {room} must not import {top}"
        for restricted, allowed in ONLY_IN.items():
            is_it = imported == restricted or imported.startswith(restricted + ".")
            if is_it and where.as_posix() not in allowed:
                yield f"{where}:{line}: only {sorted(allowed)} may import {restricted}"


@pytest.mark.parametrize("path", sources(), ids=lambda p: p.relative_to(ROOT).as_posix())
def test_imports_point_down(path):
    assert list(violations(path)) == []


def test_preparers_import_only_the_contract():
    preparers = sorted((ROOT / "data_prep").glob("*.py"))
    assert len(preparers) >= 2
    for path in preparers:
        for line, imported, _ in imports_of(path):
            if imported.startswith("mmtool"):
                allowed = imported.startswith(("mmtool.prepare.api", "mmtool.media"))
                assert allowed, f"data_prep/{path.name}:{line}: imports {imported}"


@pytest.mark.parametrize("path", METHODS, ids=lambda p: p.stem)
def test_methods_touch_neither_names_nor_grads(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            forbidden = node.attr in ("named_parameters", "item", "backward", "grad", "tolist")
            assert not forbidden, f"{path.name}:{node.lineno}: .{node.attr}"


def test_a_planted_violation_is_found(tmp_path, monkeypatch):
    planted = tmp_path / "mmtool" / "store" / "bad.py"
    planted.parent.mkdir(parents=True)
    planted.write_text("import torch\nfrom mmtool.engine import loop\nimport torch.distributed\n")
    monkeypatch.setitem(globals(), "ROOT", tmp_path)

    found = list(violations(planted))

    assert [f.split(": ", 1)[1] for f in found] == [
        "store must not import torch",
        "store must not import engine",
        "store must not import torch",
        f"only {sorted(ONLY_IN['torch.distributed'])} may import torch.distributed",
    ]
