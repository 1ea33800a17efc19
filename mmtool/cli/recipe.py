"""`mmtool recipe`: show, check and copy recipes, and their JSON Schema for editors."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmtool import registry
from mmtool.cli.completion import recipe_names
from mmtool.cli.options import RecipeArgument, SetOption, command
from mmtool.cli.output import Output, align
from mmtool.errors import RecipeError, RequestError
from mmtool.text import plural

if TYPE_CHECKING:
    from mmtool.config.load import Loaded

SCHEMA = "mmtool.recipe/1"

recipe_app = typer.Typer(
    rich_markup_mode=None,
    no_args_is_help=True,
    help="Show, check and copy recipes.",
)


def value_lines(loaded: "Loaded") -> list[str]:
    """Give every value of a recipe with where it comes from, in columns."""
    from mmtool.config.load import origin_rows

    return align(origin_rows(loaded))


@recipe_app.command("show")
@command
def show(output: Output, recipe: RecipeArgument, settings: SetOption = None) -> None:
    """Print every value and where it comes from.

    \b
    mmtool recipe show avdigits_ogm -s train.lr=0.01
    """
    from mmtool.config.load import load_recipe, origin_rows

    loaded = load_recipe(recipe, settings or ())
    for note in loaded.notes:
        output.note(note)
    data = {
        "recipe": loaded.path,
        "values": loaded.recipe.model_dump(mode="json"),
        "origins": {row[0]: row[-1] for row in origin_rows(loaded)},
    }
    output.result(SCHEMA, data, value_lines(loaded))


@recipe_app.command("check")
@command
def check(
    output: Output,
    recipes: Annotated[
        list[str],
        typer.Argument(
            metavar="RECIPE...",
            help="Recipe files or names of bundled recipes.",
            autocompletion=recipe_names,
            show_default=False,
        ),
    ],
) -> None:
    """Say what is wrong with recipes, all at once.

    \b
    mmtool recipe check recipes/*.toml
    """
    from mmtool.config.load import load_recipe

    good: list[str] = []
    bad: list[RequestError] = []
    notes: list[str] = []
    for recipe in recipes:
        try:
            loaded = load_recipe(recipe, ())
        except RequestError as error:
            bad.append(error)
        else:
            good.append(recipe)
            notes += [f"{recipe}: {note}" for note in loaded.notes]
    for note in notes:
        output.note(note)
    if not bad:
        output.result(SCHEMA, {"valid": good, "notes": notes}, [f"{name}: valid" for name in good])
        return
    if len(recipes) == 1:
        raise bad[0]
    raise _together(bad, len(recipes))


def _together(errors: list[RequestError], num_recipes: int) -> RecipeError:
    problems = [p for error in errors if isinstance(error, RecipeError) for p in error.problems]
    count = plural(num_recipes, "recipe")
    return RecipeError(
        f"{len(errors)} of {count} {'has' if len(errors) == 1 else 'have'} problems",
        problems=problems,
        rendered="\n\n".join(map(_block, errors)),
    )


def _block(error: RequestError) -> str:
    return str(error) if isinstance(error, RecipeError) else f"error: {error}"


@recipe_app.command("copy")
@command
def copy(
    output: Output,
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="A bundled recipe (see mmtool list recipes).",
            autocompletion=recipe_names,
            show_default=False,
        ),
    ],
    destination: Annotated[
        Path | None, typer.Argument(metavar="[DEST]", help="A file or folder; else ./NAME.toml.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace DEST.")] = False,
) -> None:
    """Copy a bundled recipe to edit it; prints its path.

    \b
    mmtool recipe copy avdigits_ogm my.toml
    """
    entry = registry.get("recipes", name.removesuffix(".toml"))
    source = Path(entry.target)
    target = destination or Path(source.name)
    if target.is_dir():
        target = target / source.name
    if target.exists() and target.resolve() == source.resolve():
        raise RequestError(
            f"{target} is the bundled recipe itself", fix=f"mmtool recipe copy {name} my.toml"
        )
    if target.exists() and not force:
        raise RequestError(
            f"{target} exists already",
            why="it may hold your changes",
            fix=f"mmtool recipe copy {name} {target} --force",
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(source.read_text(encoding="utf-8"), encoding="utf-8")
    output.result(SCHEMA, {"path": target}, str(target))
    output.hint(f"mmtool train {target}")


@recipe_app.command("schema")
@command
def schema(
    output: Output,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Write it to a file instead.")
    ] = None,
) -> None:
    """Print the JSON Schema of recipes, for editors.

    \b
    mmtool recipe schema --out recipe.schema.json
    """
    from mmtool.config.json_schema import recipe_json_schema

    found: dict[str, Any] = recipe_json_schema()
    text = json.dumps(found, indent=2)
    if out is None:
        output.result(SCHEMA, {"json_schema": found}, text)
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text + "\n", encoding="utf-8")
    output.result(SCHEMA, {"path": out}, str(out))
