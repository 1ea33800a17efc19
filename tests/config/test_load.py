"""Recipes load with their origins, or every problem is shown at once."""

import subprocess
import sys
from pathlib import Path

import pytest

from mmtool.config.load import load_recipe, origin_rows
from mmtool.errors import RecipeError, UnknownName


def rendered(name: object, *overrides: str) -> str:
    with pytest.raises(RecipeError) as caught:
        load_recipe(str(name), overrides)
    assert len(caught.value.problems) == caught.value.rendered.count("error: ")
    return caught.value.rendered


def test_a_good_recipe_says_where_every_value_came_from(write):
    loaded = load_recipe(str(write()), ["train.lr=0.1"])
    assert loaded.name == "x"
    assert loaded.text == Path("x.toml").read_text()
    assert loaded.notes == ()
    assert loaded.recipe.method.options["alpha"] == 0.5
    assert loaded.recipe.method.options["window"] == [0.0, 1.0]
    origins = loaded.origins
    assert origins["train.lr"] == "-s"
    assert origins["train.epochs"] == "x.toml:16"
    assert origins["train.momentum"] == "default"
    assert origins["method.alpha"] == "x.toml:13"
    assert origins["method.inner.depth"] == "default"
    assert origins["model.fusion.name"] == "x.toml:6"
    assert origins["model.encoders.video.name"] == "x.toml:9"
    rows = origin_rows(loaded)
    assert ("train.clip_norm", "unset", "default") in rows
    assert ("method.tags", "[]", "default") in rows
    assert {key for key, _, _ in rows} == set(origins)


def test_a_problem_is_shown_with_its_line_a_caret_and_a_suggestion(write):
    write(("alpha =", "alpah ="))
    with pytest.raises(RecipeError) as caught:
        load_recipe("x.toml")
    assert caught.value.rendered == (
        "error: unknown key 'alpah'\n"
        "  --> x.toml:13:1\n"
        "13 | alpah = 0.5\n"
        "   | ^^^^^\n"
        "  help: did you mean 'alpha'?"
    )
    assert caught.value.what == "1 problem in x.toml; nothing was started"
    assert caught.value.problems[0].path == ("method", "alpah")
    assert caught.value.exit_code == 2


def test_all_problems_come_at_once_and_in_the_order_of_lines(write):
    write(
        ("epochs = 3", 'epochs = "3"'),
        ("lr = 0.01", 'optimizer = "adam"\nlr = -1'),
        ("alpha = 0.5", 'window = [1.0]\napply = "updat"'),
        ('dataset = "ave"', "datset = 4"),
        ('fusion = "./plain.py"', 'fusion = "./gone.py"'),
    )
    text = rendered("x.toml", "train.seed=-1", "launch.gpus=two", "foo")
    assert [line for line in text.splitlines() if "-->" in line] == [
        "  --> x.toml:2:2",
        "  --> x.toml:3:1",
        "  --> x.toml:6:10",
        "  --> x.toml:13:10",
        "  --> x.toml:14:9",
        "  --> x.toml:17:10",
        "  --> x.toml:19:13",
        "  --> x.toml:20:6",
        "  --> command line: -s train.seed=-1",
        "  --> command line: -s launch.gpus=two",
        "  --> command line: -s foo",
    ]


@pytest.mark.parametrize(
    ("edit", "what", "fix"),
    [
        (("lr = 0.01", 'lr = "0.01"'), "expected a number, got text", "remove the quotes: 0.01"),
        (("lr = 0.01", 'lr = "0,01"'), "expected a number, got text", "did you mean 0.01?"),
        (("lr = 0.01", "lr = true"), "expected a number, got true", ""),
        (("lr = 0.01", "lr = nan"), "expected a finite number, got the number nan", ""),
        (("lr = 0.01", "lr = 0"), "0 is too small: must be greater than 0", ""),
        (("epochs = 3", "epochs = 3.0"), "expected a whole number, got the number 3.0", "3"),
        (("epochs = 3", "epochs = 0"), "0 is too small: must be at least 1", ""),
        (("lr = 0.01", "momentum = 1.5"), "1.5 is too large: must be at most 1", ""),
        (('"ave"', "3"), "expected text, got the number 3", 'put quotes around it: "3"'),
        (('"ave"', "2024-01-01"), "expected text, got a date", ""),
        (("lr = 0.01", 'optimizer = "sdg"'), '"sdg" is not a choice here', 'mean "sgd"?'),
        (("lr = 0.01", 'select = "zzz"'), '"zzz" is not a choice here', 'one of "best", "last"'),
        (('"ave"', '"ave"\nmodalities = "audio"'), "expected a list, got text", '["audio"]'),
        (("alpha = 0.5", "window = [1]"), "the list is too short", ""),
        (("alpha = 0.5", "window = [1, 2, 3]"), "the list is too long", "give 2 values"),
        (("alpha = 0.5", "mixed = 0.5"), "expected a whole number or text, got", ""),
        (("alpha = 0.5", "inner = {dept = 1}"), "unknown key 'dept'", "did you mean 'depth'?"),
        (("0.5", '"unset"'), "expected a number, got text", ""),
        (("0.5", "nan"), "expected a finite number", ""),
        (("0.5", "inf"), "expected a finite number", ""),
        (("0.5", "2024-01-01"), "expected a number, got text", ""),
        (("alpha = 0.5", "inner = 3"), "expected a table, got the number 3", ""),
        (("[data]", "lr = 1\n[data]"), "unknown key 'lr'", "did you mean train.lr?"),
        (("epochs = 3\n", ""), "missing key 'epochs' in [train]", "add epochs = ..."),
        (('name = "./my_method.py"', ""), "missing key 'name' in [method]", "add name"),
        (('"./my_method.py"', '"zzz"'), "there is no method named 'zzz'", ""),
        (('fusion = "./plain.py"', "fusion = 3"), "expected a table, got the number 3", ""),
        (("lr = 0.01", "lr = 0.01\n[log]\nprobes = 1"), "expected true or false", "write true"),
        (("lr = 0.01", "accumulate = 65"), "a batch of 64 cannot be cut into 65", ""),
    ],
)
def test_what_is_wrong_is_said_in_plain_words(write, edit, what, fix):
    text = rendered(write(edit))
    assert text.startswith(f"error: {what}")
    assert fix in text
    assert text.count("error: ") == 1


@pytest.mark.parametrize(
    ("edits", "expected"),
    [
        ([("[model.encoders]\n", ""), ('audio = "./plain.py"\n', ""), ("video = {", "x = {")], 2),
        ([("[model.encoders]\n", ""), ('audio = "./plain.py"\n', ""), ("video", "#")], 1),
    ],
)
def test_a_recipe_without_encoders_is_told_so(write, edits, expected):
    text = rendered(write(*edits))
    assert "error: missing table [model.encoders]\n  --> x.toml:5:2\n" in text
    assert text.count("error: ") == expected


def test_an_empty_recipe_names_every_missing_table(write):
    text = rendered(write(text=""))
    assert [f"missing table [{t}]" in text for t in ("data", "model", "train")] == [True] * 3
    assert "  --> x.toml\n" in text


@pytest.mark.parametrize(
    ("edit", "line", "fix"),
    [
        (('"ave"', "ave"), 3, "text stands in quotes"),
        (("lr = 0.01", "epochs = 4"), 18, "remove one of the two"),
        (("lr = 0.01", "[data]"), 18, "write each [table] once"),
        (("lr = 0.01", "lr = [1,"), 19, ""),
    ],
)
def test_text_that_is_not_toml_is_shown_where_it_stops(write, edit, line, fix):
    text = rendered(write(edit))
    assert text.startswith("error: this is not TOML: ")
    assert f"  --> x.toml:{line}:" in text
    assert fix in text


def test_a_file_that_is_not_utf8_is_refused(write):
    write().write_bytes(b"# caf\xe9\n")
    assert "not UTF-8 text (byte 5)" in rendered("x.toml")


def test_a_byte_order_mark_is_read_over(write):
    path = write()
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert load_recipe("x.toml").origins["data.dataset"] == "x.toml:3"


def test_a_plugin_that_cannot_be_imported_is_a_problem_of_the_recipe(write):
    Path("my_method.py").write_text("import there_is_no_such_package\n")
    text = rendered(write())
    assert "cannot be imported: ModuleNotFoundError" in text
    assert "  --> x.toml:12:8" in text


def test_a_plugin_whose_options_are_no_options_model_is_refused(write):
    Path("my_method.py").write_text("Options = dict\n")
    assert "is not derived from mmtool.config.schema.Options" in rendered(write())


def test_plugins_stay_untouched_when_they_are_not_checked(write):
    loaded = load_recipe(str(write(("alpha", "zeta"))), ["method.k=[1]"], check_plugins=False)
    assert loaded.recipe.method.options == {"zeta": 0.5, "k": [1]}


def test_a_bundled_recipe_is_found_by_name_and_a_path_goes_first(write):
    write(name="bundled/recipes/ave.toml", text="[data]\n")
    assert "  --> bundled/recipes/ave.toml" in rendered("ave")
    assert "  --> bundled/recipes/ave.toml" in rendered("recipes/ave.toml")
    write(name="ave", text="[train]\n")
    assert "  --> ave:1" in rendered("ave")


def test_a_bundled_recipe_in_place_of_a_named_file_is_noted(write):
    for name in ("plain.py", "my_method.py"):
        Path("bundled/recipes", name).write_text(Path(name).read_text())
    write(name="bundled/recipes/ave.toml")
    assert load_recipe("ave").notes == ()
    assert load_recipe("recipes/ave.toml").notes == (
        "no file recipes/ave.toml; using the bundled 'ave'",
    )


def test_a_misspelt_recipe_is_compared_with_files_beside_it_and_bundled_ones(write):
    Path("mine").mkdir()
    write(name="mine/ave_concat.toml")
    write(name="bundled/recipes/cremad_ogm.toml")
    with pytest.raises(UnknownName) as caught:
        load_recipe("mine/ave_conat.toml")
    assert caught.value.fix == "did you mean 'mine/ave_concat.toml'?"
    with pytest.raises(UnknownName) as caught:
        load_recipe("cremad_omg")
    assert caught.value.fix == "did you mean 'cremad_ogm'?"


def test_loading_a_recipe_imports_no_heavy_package():
    code = (
        "import sys, mmtool.config.load, mmtool.config.json_schema\n"
        "assert not {'torch', 'numpy', 'pandas', 'rich', 'typer'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
