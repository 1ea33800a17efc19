"""Options of a plugin are checked by the plugin's own model."""

from pathlib import Path

import pytest

from mmtool import registry
from mmtool.config.plugins import options_model, plugin_options
from mmtool.config.schema import Options, Plugin
from mmtool.errors import EnvironmentLacks, RecipeError


def test_options_come_back_checked_with_defaults(write):
    write()
    options = plugin_options("methods", Plugin(name="./my_method.py", alpha=1), Path.cwd())
    assert options.alpha == 1.0
    assert options.window == (0.0, 1.0)


def test_a_file_name_is_relative_to_the_folder_given(write):
    write()
    Path("sub").mkdir()
    Path("my_method.py").rename("sub/mine.py")
    plugin = Plugin(name="./mine.py", window=[0.5, 1.0])
    assert plugin_options("methods", plugin, Path("sub")).window == (0.5, 1.0)
    with pytest.raises(RecipeError, match="no plugin file"):
        plugin_options("methods", plugin, Path.cwd())


def test_wrong_options_are_listed_all_at_once(write):
    write()
    with pytest.raises(RecipeError) as caught:
        plugin_options("methods", Plugin(name="./my_method.py", alpha="x", zeta=1), Path.cwd())
    assert {problem.path for problem in caught.value.problems} == {("alpha",), ("zeta",)}
    assert "alpha: expected a number, got text" in caught.value.rendered


def test_a_plugin_without_options_takes_none(write):
    write()
    assert plugin_options("fusion", Plugin(name="./plain.py"), Path.cwd()) == Options()
    with pytest.raises(RecipeError):
        plugin_options("fusion", Plugin(name="./plain.py", dim=1), Path.cwd())


def test_what_the_machine_lacks_is_not_blamed_on_the_recipe(write):
    write()
    Path("needy.py").write_text(
        "from mmtool.errors import EnvironmentLacks\nraise EnvironmentLacks('no package x')\n"
    )
    with pytest.raises(EnvironmentLacks):
        plugin_options("fusion", Plugin(name="./needy.py"), Path.cwd())


@pytest.mark.parametrize("kind", ["methods", "fusion", "encoders"])
def test_every_plugin_of_the_house_declares_options_that_can_be_read(kind):
    for name in registry.names(kind):
        model = options_model(kind, name)
        assert isinstance(model, type), f"{kind} {name}: {model}"
        undocumented = [key for key, f in model.model_fields.items() if not f.description]
        assert not undocumented, f"{kind} {name}: {undocumented}"
