"""`mmtool prepare`: a raw release becomes a store."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mmtool.cli.options import (
    DataRootOption,
    DatasetArgument,
    DryRunOption,
    command,
    refuse_together,
)
from mmtool.cli.output import Output
from mmtool.cli.prepare_options import (
    AllowLeakOption,
    DatasetSetOption,
    DuplicatePolicy,
    DuplicatesOption,
    ExportFormat,
    LimitOption,
    MaxMissingOption,
    MaxSecondsOption,
    MaxSkippedOption,
    MissingModality,
    MissingModalityOption,
    OutOption,
    OverwriteOption,
    SourceOption,
    ToOption,
    WorkersOption,
)
from mmtool.cli.progress import Stage
from mmtool.errors import DatasetNotPrepared, RequestError
from mmtool.paths import data_root as find_data_root

if TYPE_CHECKING:
    from mmtool.config.load import Loaded
    from mmtool.prepare.request import PrepareRequest, PrepareResult, Progress

SCHEMA = "mmtool.prepare/1"
EXPORT_SCHEMA = "mmtool.export-store/1"
_TOLD_BEFORE = (
    ("dataset", "TITLE"),
    ("licence", "LICENCE"),
    ("source", "SOURCE"),
    ("cite", "CITATION"),
)


@command
def prepare(
    output: Output,
    name: DatasetArgument,
    source: SourceOption = None,
    out: OutOption = None,
    data_root: DataRootOption = None,
    workers: WorkersOption = None,
    limit: LimitOption = None,
    overwrite: OverwriteOption = False,
    settings: DatasetSetOption = None,
    max_skipped: MaxSkippedOption = 0.1,
    max_missing: MaxMissingOption = None,
    missing_modality: MissingModalityOption = MissingModality.skip,
    duplicates: DuplicatesOption = DuplicatePolicy.first,
    max_seconds: MaxSecondsOption = None,
    allow_leak: AllowLeakOption = False,
    to: ToOption = None,
    dry_run: DryRunOption = False,
) -> None:
    """Turn a raw release into a store; prints its path.

    \b
    mmtool prepare avdigits
    mmtool prepare avdigits --source DIR -s snr_db=0
    mmtool prepare manifest --source my_data.csv --out data/mine
    mmtool prepare cremad --source CREMA-D --to webdataset
    """
    from mmtool.prepare.request import PrepareRequest

    refuse_together({"--out": out, "--data-root": data_root})
    refuse_together({"--overwrite": overwrite, "--dry-run": dry_run})
    refuse_together({"--to": to, "--dry-run": dry_run})
    request = PrepareRequest(
        preparer=name,
        source=source,
        out=out or find_data_root(data_root) / _store_name(name),
        workers=workers or 0,
        limit=limit,
        overwrite=overwrite,
        options=parse_settings(settings or ()),
        dry_run=dry_run,
        max_skipped=max_skipped,
        max_missing=max_missing,
        missing_modality=missing_modality.value,
        duplicates=duplicates.value,
        max_seconds=max_seconds,
        allow_leak=allow_leak,
    )
    if to is not None:
        _export(output, request, to)
        return
    result = prepare_store(output, request)
    data = {
        "path": result.path,
        "hash": result.hash,
        "seconds": result.seconds,
        "dry_run": dry_run,
        "report": result.report,
    }
    output.result(SCHEMA, data, str(result.path))


def _export(output: Output, request: "PrepareRequest", to: ExportFormat) -> None:
    """Write a store anew in another format, preparing it first where it is not there yet."""
    from mmtool.prepare.export import export_store

    if request.overwrite or not request.out.exists():
        prepare_store(output, request)
    target = request.out.with_name(f"{request.out.name}.{to.value}")
    with Stage(output, f"export to {to.value}") as stage:
        result = export_store(request.out, target, to.value, progress=stage.update)
    data = {
        "path": result.path,
        "records": result.records,
        "shards": result.shards,
        "bytes": result.bytes,
    }
    output.result(EXPORT_SCHEMA, data, str(result.path))


def _store_name(name: str) -> str:
    """Give the folder of a preparer's store; a preparer given as a file is loaded to learn it."""
    if not name.endswith(".py"):
        return name
    from mmtool.prepare.loader import load_preparer

    return load_preparer(name).name


def prepare_store(output: Output, request: "PrepareRequest") -> "PrepareResult":
    """Prepare one dataset and tell about it on stderr; gives what the pipeline returns."""
    from mmtool.prepare.loader import load_preparer
    from mmtool.prepare.pipeline import prepare as run_pipeline
    from mmtool.prepare.summary import summary_lines

    preparer = load_preparer(request.preparer)
    for label, field in _TOLD_BEFORE:
        output.info(f"{label + ':':<9}{preparer.text(field)}")
    with Stage(output, f"prepare {preparer.name}") as stage:

        def show(progress: "Progress") -> None:
            if progress.note:
                output.info(progress.note)
            stage.update(progress.done, progress.total, note=_note(progress))

        result = run_pipeline(request, show)
    for line in summary_lines(result.report):
        output.info(line)
    return result


def _note(progress: "Progress") -> str:
    parts: list[str] = [progress.stage]
    if progress.clips_per_s:
        parts.append(f"{progress.clips_per_s:,.1f} clips/s")
    if progress.skipped:
        parts.append(f"{progress.skipped:,} skipped")
    return "  ".join(parts)


def ensure_prepared(
    output: Output, loaded: "Loaded", data_root: Path, *, dry_run: bool = False
) -> None:
    """Prepare the recipe's dataset if its store is missing and its data comes with mmtool.

    Any other missing store is left to the engine, which knows how to explain it.
    """
    from mmtool import registry
    from mmtool.data.dataset import locate_store
    from mmtool.prepare.loader import load_preparer
    from mmtool.prepare.request import PrepareRequest

    name = loaded.recipe.data.dataset
    store = locate_store(loaded.recipe.data, data_root)
    if store.exists() or store.parent != data_root or name not in registry.names("datasets"):
        return
    if load_preparer(name).bundled is None:
        return
    if dry_run:
        raise DatasetNotPrepared(
            f"dataset {name!r} is not prepared: there is no {store}",
            why="a dry run writes nothing; a real run would prepare it from the bundled samples",
            fix=f"mmtool prepare {name} --data-root {data_root}",
        )
    output.info(f"dataset {name!r} is not prepared yet; preparing its bundled samples first")
    prepare_store(output, PrepareRequest(name, None, data_root / name))


def parse_settings(settings: Sequence[str]) -> dict[str, str]:
    """Split `key=value` texts; a key may be given once."""
    found: dict[str, str] = {}
    for text in settings:
        key, equals, value = text.partition("=")
        key = key.strip()
        if not equals or not key:
            raise RequestError(
                f"{text!r} is not of the form key=value",
                where=f"command line: -s {text}",
                fix=f"-s {key or 'key'}=VALUE",
            )
        if key in found:
            raise RequestError(
                f"{key} is set twice", where=f"command line: -s {text}", fix="keep one of them"
            )
        found[key] = value
    return found
