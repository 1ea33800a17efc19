"""Find a preparer by name or by file, check that it keeps the contract, and read its options."""

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from mmtool import registry
from mmtool.config.schema import Options
from mmtool.errors import RequestError, SourceError
from mmtool.media.failure import MediaError
from mmtool.prepare.api import Clip, Column
from mmtool.prepare.editions import Editions, Found, locate, not_found
from mmtool.prepare.listing import Leaks
from mmtool.text import suggestion

Arrays: TypeAlias = Mapping[str, NDArray[np.generic]]
Finish: TypeAlias = Callable[[Clip, Arrays, Options], Arrays]

_TEXTS = ("NAME", "TITLE", "LICENCE", "SOURCE", "CITATION")
_FUNCTIONS = ("columns", "classes", "clips")


@dataclass(frozen=True, slots=True)
class LoadedPreparer:
    """A preparer that keeps the contract."""

    module: ModuleType
    file: Path

    @property
    def name(self) -> str:
        """Its `NAME`."""
        return self.text("NAME")

    def text(self, name: str) -> str:
        """Give one of the strings it declares."""
        return str(getattr(self.module, name))

    @property
    def options_model(self) -> type[Options]:
        """Its options; a model without fields where it declares none."""
        model: type[Options] = getattr(self.module, "Options", Options)
        return model

    @property
    def bundled(self) -> Path | None:
        """Sample data that comes with it."""
        path: Path | None = getattr(self.module, "BUNDLED", None)
        return path

    @property
    def editions(self) -> Editions:
        """The layouts it knows by name; empty where any folder may be one."""
        return getattr(self.module, "EDITIONS", {})

    @property
    def media(self) -> Sequence[str]:
        """Globs of all media files of the release."""
        return getattr(self.module, "MEDIA", ())

    @property
    def max_missing(self) -> float | None:
        """Share of clips whose files may be missing; None where it does not say."""
        return getattr(self.module, "MAX_MISSING", None)

    @property
    def leaks(self) -> Leaks:
        """What to do when the list puts one clip into two splits."""
        return getattr(self.module, "LEAKS", "refuse")

    @property
    def finish(self) -> Finish | None:
        """Its change after decoding."""
        function: Finish | None = getattr(self.module, "finish", None)
        return function

    def columns(self, root: Path, options: Options) -> Mapping[str, Column]:
        """Ask for the columns of the store."""
        with _explained(self.name):
            found: Mapping[str, Column] = self.module.columns(root, options)
        return found

    def classes(self, root: Path, options: Options) -> Sequence[str]:
        """Ask for the class names in label order."""
        with _explained(self.name):
            found: Sequence[str] = self.module.classes(root, options)
        return found

    def clips(self, root: Path, options: Options) -> Sequence[Clip]:
        """Ask for every clip."""
        with _explained(self.name):
            return tuple(self.module.clips(root, options))

    def code_digest(self) -> str:
        """Give the SHA-256 of its file: what it did before an edit is not resumed."""
        return hashlib.sha256(self.file.read_bytes()).hexdigest()


@contextlib.contextmanager
def _explained(name: str) -> Iterator[None]:
    """Turn a file of the release that cannot be read while it is listed into the user's error."""
    try:
        yield
    except MediaError as error:
        raise SourceError(
            f"a file that lists the clips of {name} cannot be read",
            where=str(error),
            why=f"reason: {error.reason}",
            fix="take this file from the release again",
        ) from error


def load_preparer(name: str, *, relative_to: Path | None = None) -> LoadedPreparer:
    """Load a preparer by registered name or by path of a `.py` file."""
    module = registry.load("datasets", name, relative_to=relative_to)
    file = Path(module.__file__ or name)
    missing = [word for word in (*_TEXTS, *_FUNCTIONS) if not hasattr(module, word)]
    wrong = [w for w in _TEXTS if w not in missing and not isinstance(getattr(module, w), str)]
    wrong += [w for w in _FUNCTIONS if w not in missing and not callable(getattr(module, w))]
    for problems, what in ((missing, "does not define"), (wrong, "defines with a wrong type")):
        if problems:
            raise RequestError(
                f"the preparer {file.name} {what} {', '.join(problems)}",
                where=str(file),
                why="a preparer defines the names listed in mmtool/prepare/api.py",
                fix=f"add {problems[0]} to {file.name}",
            )
    model = getattr(module, "Options", Options)
    if not (isinstance(model, type) and issubclass(model, Options)):
        raise RequestError(
            f"Options of the preparer {file.name} is not a model of options",
            where=str(file),
            fix="declare it as `class Options(api.Options)`",
        )
    return LoadedPreparer(module, file)


def parse_options(preparer: LoadedPreparer, given: Mapping[str, str]) -> Options:
    """Turn `-s key=value` texts into the preparer's options, or say what is wrong with them."""
    model = preparer.options_model
    known = list(model.model_fields)
    for key in given:
        if key not in known:
            raise RequestError(
                f"{preparer.name} has no option {key!r}",
                why=f"its options are {', '.join(known)}" if known else "it has no options",
                fix=suggestion(key, known, otherwise=f"mmtool list datasets {preparer.name}"),
            )
    try:
        return model.model_validate_strings(dict(given), strict=False)
    except ValidationError as error:
        with contextlib.suppress(ValidationError):
            # Choices of numbers and lists cannot be read from text, but from JSON.
            return model.model_validate(_json_values(given, error), strict=False)
        problems = [
            f"{'.'.join(map(str, item['loc']))} = {item['input']!r}: {item['msg']}"
            for item in error.errors()
        ]
        raise RequestError(
            f"an option of {preparer.name} has a wrong value",
            where="; ".join(problems),
            fix=f"mmtool list datasets {preparer.name}",
        ) from error


def _json_values(given: Mapping[str, str], error: ValidationError) -> dict[str, Any]:
    values: dict[str, Any] = dict(given)
    for item in error.errors():
        key = str(item["loc"][0]) if item["loc"] else ""
        with contextlib.suppress(ValueError, KeyError):
            values[key] = json.loads(given[key])
    return values


def options_json(options: Options) -> dict[str, Any]:
    """Give options as plain JSON values, every default written out."""
    return options.model_dump(mode="json")


def resolve_source(preparer: LoadedPreparer, given: Path | None) -> Found:
    """Find the release to prepare from: in the folder or file given, else the bundled sample."""
    root = given or preparer.bundled
    if root is None:
        raise SourceError(
            f"{preparer.name} needs the raw release",
            why=f"it is not bundled with mmtool; obtain it from {preparer.text('SOURCE')}",
            fix=f"mmtool prepare {preparer.name} --source DIR",
        )
    if not root.exists():
        raise SourceError(
            "the source does not exist",
            where=str(root),
            fix="check the path given with --source",
        )
    if not preparer.editions:
        return Found(root, "")
    found = locate(root if root.is_dir() else root.parent, preparer.editions)
    if found is None:
        raise not_found(root, preparer.name, preparer.editions, _editions_by_name())
    return found


def _editions_by_name() -> dict[str, Editions]:
    known = {name: load_preparer(name).editions for name in registry.names("datasets")}
    return {name: editions for name, editions in known.items() if editions}
