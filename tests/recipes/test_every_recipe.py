"""Every recipe that ships is loaded, completely checked, and survives a round trip."""

import tomllib
from collections import defaultdict
from functools import cache

import pytest

from mmtool import registry
from mmtool.config.dump import to_toml
from mmtool.config.load import load_recipe
from mmtool.paths import bundled

DATASETS = (
    *("avdigits", "ave", "cremad", "kinetics_sounds", "iemocap", "mosei", "ucf101", "food101"),
    *("uci_har", "cg_mnist"),
)
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
    entry = registry.get("recipes", path.relative_to(bundled("recipes")).with_suffix("").as_posix())

    assert registry.summary(entry).endswith((".", ":"))


@cache
def used_methods():
    """Methods of the recipes, by the dataset that begins the recipe's name."""
    found = defaultdict(set)
    for path in RECIPES:
        written = tomllib.loads(path.read_text(encoding="utf-8")).get("method", {})
        name = written if isinstance(written, str) else written.get("name")
        found[next((d for d in DATASETS if path.stem.startswith(f"{d}_")), "")].add(name)
    return found


@pytest.mark.parametrize("method", registry.names("methods"))
def test_every_method_has_a_recipe_for_every_usual_dataset(method):
    without = {d for d in DATASETS if method not in used_methods()[d]}

    # MMTM layers need two modalities, and encoders that work in stages.
    allowed = {"iemocap", "mosei", "food101", "uci_har"} if method == "greedy" else set()
    assert without == allowed
