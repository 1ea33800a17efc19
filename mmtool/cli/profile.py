"""`mmtool profile`: where time, memory, arithmetic and energy of a recipe go."""

from pathlib import Path
from typing import Annotated

import typer

from mmtool.cli.options import (
    DataRootOption,
    DeviceOption,
    GpusOption,
    RecipeArgument,
    SetOption,
    command,
    with_launch_overrides,
)
from mmtool.cli.output import Output
from mmtool.cli.prepare import ensure_prepared
from mmtool.paths import data_root as find_data_root

SCHEMA = "mmtool.profile/1"


@command
def profile(
    output: Output,
    recipe: RecipeArgument,
    gpus: GpusOption = None,
    device: DeviceOption = None,
    steps: Annotated[
        int, typer.Option("--steps", metavar="N", min=1, help="Steps that are measured.")
    ] = 20,
    trace: Annotated[
        Path | None,
        typer.Option("--trace", metavar="FILE", help="Write a timeline for Perfetto as well."),
    ] = None,
    settings: SetOption = None,
    data_root: DataRootOption = None,
) -> None:
    """Run a few measured steps; prints where they go.

    \b
    mmtool profile avdigits_ogm
    mmtool profile my.toml --gpus 4 --trace trace.json
    """
    from mmtool.config.load import load_recipe
    from mmtool.profile.run import profile as measure

    launch = [("--gpus", "launch.gpus", gpus), ("--device", "launch.device", device)]
    loaded = load_recipe(recipe, with_launch_overrides(settings, launch))
    for note in loaded.notes:
        output.note(note)
    root = find_data_root(data_root)
    ensure_prepared(output, loaded, root)
    report = measure(loaded, data_root=root, steps=steps, trace=trace)
    data = report.as_dict()
    schema = str(data.pop("schema", SCHEMA))
    output.result(schema, data, report.lines())
    if trace is not None:
        output.info(f"timeline: {trace}")
