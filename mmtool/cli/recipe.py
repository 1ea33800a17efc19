"""`mmtool recipe`: show, check and copy recipes, and their JSON Schema for editors."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmtool import registry
from mmtool.cli.completion import recipe_names
from mmtool.cli.options import (
    OneVariantOption,
    RecipeArgument,
    SetOption,
    command,
    refuse_with,
)
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
def show(
    output: Output,
    recipe: RecipeArgument,
    settings: SetOption = None,
    variant: OneVariantOption = None,
) -> None:
    """Print every value and where it comes from.

    \b
    mmtool recipe show avdigits_ogm -s train.lr=0.01
    mmtool recipe show bench/mfeat --variant mla
    """
    from mmtool.config.load import load_recipe, origin_rows

    loaded = load_recipe(recipe, settings or (), variant=variant)
    if variant is not None and loaded.suite is None:
        refuse_with("one recipe", {"--variant": variant}, why="only a suite has variants")
    for note in loaded.notes:
        output.note(note)
    data: dict[str, Any] = {
        "recipe": loaded.path,
        "values": loaded.recipe.model_dump(mode="json"),
        "origins": {row[0]: row[-1] for row in origin_rows(loaded)},
    }
    lines = value_lines(loaded)
    if loaded.suite is not None and variant is None:
        suite = loaded.suite
        data["suite"] = suite.model_dump(mode="json")
        seeds = ", ".join(map(str, suite.seeds))
        lines += ["", f"a suite with the seeds {seeds} and the variants:"]
        lines += [f"  {name}" for name in suite.variants]
    output.result(SCHEMA, data, lines)


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
            continue
        wrong = _wrong_variants(recipe, loaded)
        bad += wrong
        if not wrong:
            good.append(recipe)
            notes += [f"{recipe}: {note}" for note in loaded.notes]
    for note in notes:
        output.note(note)
    if not bad:
        output.result(SCHEMA, {"valid": good, "notes": notes}, [f"{name}: valid" for name in good])
        return
    if len(bad) == 1 and len(recipes) == 1:
        raise bad[0]
    raise _together(bad, recipes)


def _wrong_variants(recipe: str, loaded: "Loaded") -> list[RequestError]:
    """Give what is wrong with each variant of a suite whose own recipe is right."""
    from mmtool.config.load import load_recipe

    wrong: list[RequestError] = []
    for name in () if loaded.suite is None else loaded.suite.variants:
        try:
            load_recipe(recipe, (), variant=name)
        except RequestError as error:
            wrong.append(error)
    return wrong


def _together(errors: list[RequestError], recipes: list[str]) -> RecipeError:
    problems = [p for error in errors if isinstance(error, RecipeError) for p in error.problems]
    if len(recipes) == 1:
        what = f"{plural(len(errors), 'variant')} of {recipes[0]} cannot be used"
    else:
        count = plural(len(recipes), "recipe")
        what = f"{len(errors)} of {count} {'has' if len(errors) == 1 else 'have'} problems"
    return RecipeError(
        what,
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
