"""The command line as a whole: its commands, its help, and how the process ends."""

import sys
from collections.abc import Sequence
from typing import Annotated, Any, get_args

import typer
from typer.main import get_command

from mmtool import __version__
from mmtool.cli.boundary import EXIT_CODES, INTERRUPTED, error_boundary
from mmtool.cli.diagnose import diagnose
from mmtool.cli.doctor import doctor
from mmtool.cli.export import export
from mmtool.cli.list import list_things
from mmtool.cli.output import ColorChoice, Output
from mmtool.cli.prepare import prepare
from mmtool.cli.profile import profile
from mmtool.cli.recipe import recipe_app
from mmtool.cli.train import train
from mmtool.errors import RequestError

_EPILOG = "\b\nExit codes:\n" + "\n".join(f"  {code:<4} {text}" for code, text in EXIT_CODES)

app = typer.Typer(
    name="mmtool",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=True,
    no_args_is_help=True,
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("prepare")(prepare)
app.command("train")(train)
app.command("diagnose")(diagnose)
app.command("profile")(profile)
app.command("export")(export)
app.command("list")(list_things)
app.add_typer(recipe_app, name="recipe")
app.command("doctor")(doctor)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"mmtool {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Balanced, system-aware multimodal learning: prepare, train, diagnose, profile.

    \b
    mmtool prepare manifest --source my_data.csv
    mmtool train avdigits_ogm --device cpu --gpus 2
    mmtool diagnose runs/latest
    """
    del version


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and end the process with its exit code."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: Sequence[str]) -> int:
    """Run the command line and give its exit code."""
    output = _early_output(arguments)
    try:
        with error_boundary(output):
            code = get_command(app).main(
                args=list(arguments), prog_name="mmtool", standalone_mode=False
            )
    except typer.Exit as ending:
        return ending.exit_code
    except typer.Abort:
        return INTERRUPTED
    except typer.TyperException as error:
        return _usage_error(error, output)
    return code if isinstance(code, int) else 0


def _early_output(arguments: Sequence[str]) -> Output:
    """Read the manners off the raw arguments: a misspelt command is answered in them too."""
    color: ColorChoice = "auto"
    for position, argument in enumerate(arguments):
        text = argument.removeprefix("--color=")
        if argument == "--color" and position + 1 < len(arguments):
            text = arguments[position + 1]
        for choice in get_args(ColorChoice):
            if text == choice and argument.startswith("--color"):
                color = choice
    return Output(as_json="--json" in arguments, color=color)


def _usage_error(error: typer.TyperException, output: Output) -> int:
    # Any: the context belongs to typer's private copy of click.
    context: Any = getattr(error, "ctx", None)
    message = error.format_message()
    path = context.command_path if context is not None else "mmtool"
    if context is not None and message.startswith("Usage:") and not output.as_json:
        output.info(message)
        return RequestError.exit_code
    words = " ".join(message.split()).rstrip(".")
    output.error(
        RequestError(words[:1].lower() + words[1:], where="command line", fix=f"{path} --help")
    )
    return RequestError.exit_code
