"""A recipe changes another one; what that leaves without effect is dropped and said."""

from pathlib import Path

import pytest

from mmtool.config.load import load_recipe
from mmtool.errors import RecipeError


def child(write, text: str, extends: str = "x.toml"):
    write()
    return write(name="child.toml", text=f'extends = "{extends}"\n{text}')


def rendered(path, *overrides: str) -> str:
    with pytest.raises(RecipeError) as caught:
        load_recipe(str(path), overrides)
    return caught.value.rendered


@pytest.mark.parametrize("extends", ["x.toml", "x", "./x.toml"])
def test_tables_are_merged_key_by_key(write, extends):
    loaded = load_recipe(str(child(write, "[train]\nlr = 0.5\n", extends)))
    assert (loaded.recipe.train.lr, loaded.recipe.train.epochs) == (0.5, 3)
    assert loaded.origins["train.lr"] == "child.toml:3"
    assert loaded.origins["train.epochs"] == "x.toml:16"
    assert loaded.name == "child"
    assert loaded.text.startswith("extends")


def test_a_bundled_recipe_can_be_extended(write):
    write(name="bundled/recipes/base.toml")
    for name in ("plain.py", "my_method.py"):
        Path("bundled/recipes", name).write_text(Path(name).read_text())
    write(name="child.toml", text='extends = "base"\n[train]\nlr = 0.5\n')
    loaded = load_recipe("child.toml")
    assert loaded.origins["data.dataset"] == "bundled/recipes/base.toml:3"
    assert loaded.recipe.method.name == str(Path("bundled/recipes/my_method.py").resolve())


@pytest.mark.parametrize(
    "text", ['[method]\nname = "./other_method.py"', 'method = "./other_method.py"']
)
def test_another_plugin_drops_the_options_of_the_one_it_replaces(write, text):
    loaded = load_recipe(str(child(write, text)))
    assert "alpha" not in loaded.recipe.method.options
    assert loaded.origins["method.beta"] == "default"
    assert len(loaded.notes) == 1
    assert "dropped the options of" in loaded.notes[0]
    assert "alpha" in loaded.notes[0]


def test_a_dropped_option_of_the_same_name_has_its_default_and_says_so(write):
    Path("twin.py").write_text(Path("my_method.py").read_text() if write() else "")
    loaded = load_recipe(str(child(write, 'method = "./twin.py"')))
    assert loaded.recipe.method.options["alpha"] == 0.3
    assert loaded.origins["method.alpha"] == "default"


@pytest.mark.parametrize("text", ["[method]\ninner.depth = 2", 'method = {name="./my_method.py"}'])
def test_the_same_plugin_keeps_its_options(write, text):
    loaded = load_recipe(str(child(write, text)))
    assert loaded.recipe.method.options["alpha"] == 0.5
    assert loaded.notes == ()


def test_a_problem_is_shown_in_the_file_that_wrote_it(write):
    path = child(write, "[train]\nlr = 0\n")
    write(("epochs = 3", "epochs = 0"))
    text = rendered(path, "train.seed=x")
    places = [line.strip() for line in text.splitlines() if "-->" in line]
    assert places == ["--> child.toml:3:6", "--> x.toml:16:10", "--> command line: -s train.seed=x"]


@pytest.mark.parametrize(
    ("extends", "what"),
    [
        ('"../x.toml"', "'extends' takes the name of one recipe"),
        ('["x.toml"]', "'extends' takes the name of one recipe"),
        ('"y.toml"', "there is no other recipe 'y.toml' to extend"),
        ('"child.toml"', "there is no other recipe 'child.toml' to extend"),
    ],
)
def test_what_cannot_be_extended_is_pointed_at(write, extends, what):
    write()
    text = rendered(write(name="child.toml", text=f"extends = {extends}\n"))
    assert text.startswith(f"error: {what}")
    assert "  --> child.toml:1:11\n" in text


def test_only_one_level_is_extended(write):
    path = child(write, "")
    write(name="x.toml", text='# top\nextends = "other"\n')
    text = rendered(path)
    assert "error: child.toml extends this recipe, so it cannot extend another" in text
    assert "  --> x.toml:2:1\n" in text


def test_extends_is_not_for_the_command_line(write):
    assert "'extends' cannot be set" in rendered(write(), "extends=x")


def test_a_misspelt_extends_is_recognised(write):
    assert "did you mean 'extends'?" in rendered(write(("[data]", 'extend = "x"\n[data]')))


def test_an_option_both_plugins_have_belongs_to_the_file_that_named_the_plugin(write):
    Path("twin.py").write_text(Path("my_method.py").read_text() if write() else "")
    path = child(write, '[method]\nname = "./twin.py"\nalpha = 0.7\n')
    loaded = load_recipe(str(path))
    assert loaded.recipe.method.options["alpha"] == 0.7
    assert loaded.origins["method.alpha"] == "child.toml:4"
    assert loaded.origins["method.name"] == "child.toml:3"


def test_a_base_that_names_its_plugin_in_one_word_can_be_given_options(write):
    write(('[method]\nname = "./my_method.py"\nalpha = 0.5\n', ""))
    base = Path("x.toml").read_text()
    write(text='method = "./my_method.py"\n' + base)
    path = write(name="child.toml", text='extends = "x"\n[method]\nalpha = 0.7\n')
    loaded = load_recipe(str(path))
    assert loaded.origins["method.name"] == "x.toml:1"
    assert loaded.recipe.method.options["alpha"] == 0.7
