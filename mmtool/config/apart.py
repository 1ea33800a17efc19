"""Load a recipe in a process of its own, so that this one does not load what its plugins import.

    python -m mmtool.config.apart RECIPE [KEY=VALUE ...]    prints one JSON document

Plugins declare their options beside their code, and that code imports torch.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from mmtool.config.load import Loaded, load_recipe
from mmtool.config.schema import Recipe
from mmtool.errors import Bug, MmtoolError, Problem, RecipeError, RequestError


def load_apart(name_or_path: str, overrides: Sequence[str] = ()) -> Loaded:
    """Do what `load_recipe` does and raise the same errors, without loading plugins here."""
    command = [sys.executable, "-m", "mmtool.config.apart", name_or_path, *overrides]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    try:
        found = json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        raise Bug(
            f"the recipe {name_or_path} could not be loaded: exit code {done.returncode}",
            why=done.stderr.strip(),
        ) from None
    if "error" in found:
        raise _error(found["error"])
    return Loaded(
        Recipe.model_validate_json(found["recipe"]),
        Path(found["path"]),
        found["name"],
        found["text"],
        MappingProxyType(found["origins"]),
        tuple(found["notes"]),
    )


def _error(told: dict[str, Any]) -> MmtoolError:
    if told["problems"] is not None:
        problems = [Problem(tuple(path), what, fix) for path, what, fix in told["problems"]]
        return RecipeError(told["what"], problems=problems, rendered=told["rendered"])
    kind = next((k for k in _kinds(MmtoolError) if k.__name__ == told["kind"]), RequestError)
    details = {key: told[key] for key in ("where", "why", "fix")}
    return kind(told["what"], **details)


def _kinds(base: type[MmtoolError]) -> list[type[MmtoolError]]:
    return [base, *(kind for child in base.__subclasses__() for kind in _kinds(child))]


def _told(name_or_path: str, overrides: Sequence[str]) -> dict[str, Any]:
    try:
        loaded = load_recipe(name_or_path, overrides)
    except MmtoolError as error:
        problems, rendered = None, ""
        if isinstance(error, RecipeError):
            problems = [(p.path, p.what, p.fix) for p in error.problems]
            rendered = error.rendered
        return {"error": {**error.as_dict(), "problems": problems, "rendered": rendered}}
    return {
        "recipe": loaded.recipe.model_dump_json(),
        "path": str(loaded.path),
        "name": loaded.name,
        "text": loaded.text,
        "origins": dict(loaded.origins),
        "notes": list(loaded.notes),
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(_told(sys.argv[1], sys.argv[2:])) + "\n")
