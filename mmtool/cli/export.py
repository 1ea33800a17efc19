"""`mmtool export`: the weights of a run as one file."""

from pathlib import Path
from typing import Annotated

import typer

from mmtool.cli.completion import run_names
from mmtool.cli.options import RunsDirOption, command
from mmtool.cli.output import Output
from mmtool.paths import runs_root

SCHEMA = "mmtool.export/1"


@command
def export(
    output: Output,
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN",
            help="A run: a path, a name, latest.",
            autocompletion=run_names,
            show_default=False,
        ),
    ],
    to: Annotated[
        Path,
        typer.Option("--to", metavar="FILE", help="The safetensors file to write.", dir_okay=False),
    ],
    last: Annotated[
        bool, typer.Option("--last", help="Take the last weights instead of the best ones.")
    ] = False,
    runs_dir: RunsDirOption = None,
) -> None:
    """Write the weights of a run to one file; prints its path.

    \b
    mmtool export latest --to weights.safetensors
    mmtool export runs/my_run --to weights.safetensors --last

    The file's metadata holds recipe, classes, modalities and normalisation.
    Read it with mmtool.engine.export.load_exported(path).
    """
    from mmtool.engine.export import export_weights
    from mmtool.runlog.rundir import resolve_run

    found = resolve_run(run, runs_root(runs_dir)).path
    output.run_path = found
    done = export_weights(found, to, last=last)
    for problem in done.refused:
        output.warning(f"checkpoint passed over: {problem}")
    facts = {"checkpoint": done.checkpoint, "step": done.step, "epoch": done.epoch}
    output.result(SCHEMA, {"file": done.path, "run": found, **facts}, str(done.path))
