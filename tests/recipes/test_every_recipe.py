"""Every recipe that ships is loaded, completely checked, and survives a round trip."""

import pytest

from mmtool import registry
from mmtool.config.dump import to_toml
from mmtool.config.load import load_recipe
from mmtool.paths import bundled

RECIPES = sorted(bundled("recipes").rglob("*.toml"))


def test_the_walk_finds_the_recipes():
    assert len(RECIPES) >= 9


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_it_is_valid_and_its_resolved_form_is_the_same(path, tmp_path):
    loaded = load_recipe(str(path))
    resolved = tmp_path / "resolved.toml"
    resolved.write_text(to_toml(loaded.recipe), encoding="utf-8")

    assert load_recipe(str(resolved)).recipe == loaded.recipe


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_it_says_what_it_shows(path):
    entry = registry.get("recipes", path.stem)

    assert registry.summary(entry).endswith((".", ":"))


@pytest.mark.parametrize("method", registry.names("methods"))
def test_every_method_has_a_recipe(method):
    used = {load_recipe(str(path)).recipe.method.name for path in RECIPES}

    assert method in used
