"""Options that several commands share, declared once."""

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import typer

from mmtool.cli.boundary import error_boundary
from mmtool.cli.completion import dataset_names, recipe_names, run_names
from mmtool.cli.output import ColorChoice, Output
from mmtool.errors import RequestError

RecipeArgument: TypeAlias = Annotated[
    str,
    typer.Argument(
        metavar="RECIPE",
        help="A recipe file, or the name of a bundled recipe.",
        autocompletion=recipe_names,
        show_default=False,
    ),
]
SetOption: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        "-s",
        metavar="KEY=VALUE",
        help="Change one value of the recipe, for example train.lr=0.01; repeatable.",
    ),
]
GpusOption: TypeAlias = Annotated[
    int | None,
    typer.Option("--gpus", metavar="N", min=1, help="Number of ranks (CPU processes on a CPU)."),
]
RanksOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--gpus",
        metavar="N",
        help="Number of ranks (CPU processes on a CPU), or auto: every visible GPU.",
    ),
]
DeviceOption: TypeAlias = Annotated[
    str | None, typer.Option("--device", metavar="D", help="auto, cpu or cuda.")
]
DataRootOption: TypeAlias = Annotated[
    Path | None,
    typer.Option("--data-root", metavar="DIR", help="Prepared datasets; else MMTOOL_DATA, ./data."),
]
RunsDirOption: TypeAlias = Annotated[
    Path | None,
    typer.Option("--runs-dir", metavar="DIR", help="Runs; else MMTOOL_RUNS, ./runs."),
]
DryRunOption: TypeAlias = Annotated[
    bool, typer.Option("--dry-run", help="Check everything and say what would happen; no writing.")
]
OptionalRecipe: TypeAlias = Annotated[
    str | None,
    typer.Argument(
        metavar="RECIPE",
        help="A recipe file, or the name of a bundled recipe.",
        autocompletion=recipe_names,
    ),
]
SeedOption: TypeAlias = Annotated[
    int | None, typer.Option("--seed", metavar="N", min=0, help="Sets train.seed.")
]
SeedsOption: TypeAlias = Annotated[
    str | None,
    typer.Option("--seeds", metavar="0,1,2", help="A run for each seed, one per GPU at once."),
]
JobsOption: TypeAlias = Annotated[
    int | None,
    typer.Option("--jobs", metavar="N", min=1, help="Runs of --seeds or a suite at the same time."),
]
VariantOption: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--variant", metavar="NAME", help="Of a suite, only this variant; repeatable."),
]
OneVariantOption: TypeAlias = Annotated[
    str | None, typer.Option("--variant", metavar="NAME", help="Of a suite, this variant.")
]
NameOption: TypeAlias = Annotated[
    str | None, typer.Option("--name", metavar="LABEL", help="Added to the run's name.")
]
AllowChangeOption: TypeAlias = Annotated[
    bool,
    typer.Option("--allow-change", help="With --resume: go on though the recipe was edited."),
]
ResumeOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--resume",
        metavar="RUN",
        help="Continue a run: a path, a name, latest.",
        autocompletion=run_names,
    ),
]
SlurmOption: TypeAlias = Annotated[
    bool, typer.Option("--slurm", help="Write a batch script and hand it to SLURM.")
]
NodesOption: TypeAlias = Annotated[
    int | None,
    typer.Option("--nodes", metavar="N", min=1, help="SLURM: nodes, with --gpus on each."),
]
TimeOption: TypeAlias = Annotated[
    str | None, typer.Option("--time", metavar="D-HH:MM", help="SLURM: the time limit.")
]
PartitionOption: TypeAlias = Annotated[
    str | None, typer.Option("--partition", metavar="P", help="SLURM: the partition.")
]
DatasetArgument: TypeAlias = Annotated[
    str,
    typer.Argument(
        metavar="NAME",
        help="A dataset (see mmtool list datasets), or a preparer file.",
        autocompletion=dataset_names,
        show_default=False,
    ),
]

_SHARED = (
    ("as_json", bool, False, typer.Option("--json", help="Write one JSON document to stdout.")),
    ("quiet", bool, False, typer.Option("--quiet", "-q", help="Say only results and errors.")),
    ("verbose", bool, False, typer.Option("--verbose", "-v", help="Say more, with tracebacks.")),
    ("color", ColorChoice, "auto", typer.Option("--color", help="Colour words.")),
)


def command(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command `--json -q -v --color` and the error boundary.

    The function takes an `Output` as its first parameter and its own options after it.
    """
    own = [p for p in inspect.signature(function).parameters.values() if p.name != "output"]
    shared = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=default,
            annotation=Annotated[kind, option],
        )
        for name, kind, default, option in _SHARED
    ]
    keyword_only = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own]

    @functools.wraps(function)
    def run(**values: Any) -> None:
        manner = {name: values.pop(name) for name, *_ in _SHARED}
        output = Output(**manner)
        with error_boundary(output):
            refuse_together({"--quiet": output.quiet, "--verbose": output.verbose})
            function(output, **values)

    run.__signature__ = inspect.Signature([*keyword_only, *shared])  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in (*keyword_only, *shared)}
    del run.__wrapped__
    return run


def refuse_together(
    given: Mapping[str, object], *, why: str = "one of them would do nothing"
) -> None:
    """Refuse options of which only one can have an effect."""
    present = [name for name, value in given.items() if value]
    if len(present) > 1:
        raise RequestError(
            f"{' and '.join(present)} cannot be given together",
            where="command line",
            why=why,
            fix=f"drop {present[-1]}",
        )


def refuse_with(option: str, others: Mapping[str, object], *, why: str) -> None:
    """Refuse options that have no effect beside `option`."""
    useless = [name for name, value in others.items() if value not in (None, False, [], ())]
    if useless:
        raise RequestError(
            f"{', '.join(useless)} {'has' if len(useless) == 1 else 'have'} no effect "
            f"with {option}",
            where="command line",
            why=why,
            fix=f"drop {', '.join(useless)}",
        )


def with_launch_overrides(
    settings: Sequence[str] | None, launch: Iterable[tuple[str, str, object]]
) -> list[str]:
    """Add `--gpus`, `--device` and `--seed` to the overrides of the recipe."""
    overrides = list(settings or ())
    already = {text.partition("=")[0].strip() for text in overrides}
    for option, key, value in launch:
        if value is None:
            continue
        if key in already:
            refuse_together({f"-s {key}": True, option: True})
        overrides.append(f"{key}={value}")
    return overrides
