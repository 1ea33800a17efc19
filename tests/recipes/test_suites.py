"""The suites that ship: every method that fits is in them, and every variant can be built."""

import re

import pytest

from mmtool import registry
from mmtool.config.load import load_recipe
from mmtool.engine.launch import TrainRequest
from mmtool.engine.preview import check
from mmtool.errors import MmtoolError
from mmtool.paths import bundled
from mmtool.testing.fakes import FakeModality, write_fake_store

SUITES = sorted((bundled("recipes") / "bench").glob("*.toml"))
VOICE = FakeModality((1, 40, 40), "spectrogram")
SENSOR = FakeModality((3,), "series", max_length=24)
GRAY = FakeModality((1, 28, 28), "frames")
MODALITIES = {
    "av_mnist": {"audio": VOICE, "image": GRAY},
    "avdigits": {"audio": VOICE, "image": GRAY},
    "cg_mnist": {"colour": FakeModality((3, 28, 28), "frames"), "gray": GRAY},
    "grid": {"audio": VOICE, "video": FakeModality((4, 1, 12, 12), "frames")},
    "mfeat": dict.fromkeys(("fac", "fou", "kar", "mor", "pix", "zer"), SENSOR),
    "sp_sw_har": dict.fromkeys(("phone_acc", "phone_gyro", "watch_acc", "watch_gyro"), SENSOR),
    "uci_har": dict.fromkeys(("body_gyro", "total_acc"), SENSOR),
}
NOT_FOR_SENSORS = {"greedy"}
"""It exchanges between stages, which encoders of series do not have, and of two modalities."""


def test_there_is_a_suite_of_each_of_seven_sets():
    assert [path.stem for path in SUITES] == sorted(MODALITIES)


@pytest.mark.parametrize("path", SUITES, ids=lambda p: p.stem)
def test_every_method_that_fits_is_in_it_with_three_seeds(path):
    suite = load_recipe(str(path)).suite
    used = {
        load_recipe(str(path), check_plugins=False, variant=name).recipe.method.name
        for name in suite.variants
    }
    has_stages = path.stem in ("avdigits", "av_mnist", "cg_mnist", "grid")

    assert set(registry.names("methods")) - used == (set() if has_stages else NOT_FOR_SENSORS)
    assert next(iter(suite.variants)) == "none"
    assert len(suite.seeds) == 3


@pytest.mark.parametrize("path", SUITES, ids=lambda p: p.stem)
def test_every_variant_of_it_can_be_built(path, tmp_path):
    write_fake_store(tmp_path / "data" / path.stem, MODALITIES[path.stem], num_classes=4)
    overrides = ["data.split=unset", "data.columns={}", "launch.device=cpu"]
    refused = {}
    for name in load_recipe(str(path)).suite.variants:
        loaded = load_recipe(str(path), overrides, variant=name)
        try:
            check(TrainRequest(loaded, tmp_path / "runs", tmp_path / "data"))
        except MmtoolError as error:
            refused[name] = str(error)

    assert not refused


def test_methods_on_avdigits_have_the_options_of_their_recipes():
    path, recipes = bundled("recipes") / "bench" / "avdigits.toml", bundled("recipes")
    differ = []
    for name in load_recipe(str(path)).suite.variants:
        variant = load_recipe(str(path), variant=name).recipe
        own = recipes.glob(f"avdigits_{variant.method.name}*.toml")
        if variant not in [load_recipe(str(file)).recipe for file in own]:
            differ.append(name)

    # The recipes have unimodal for the voice, and no greedy that never cuts.
    assert differ == ["unimodal image", "greedy, uncut"]


@pytest.mark.parametrize("path", SUITES, ids=lambda p: p.stem)
def test_its_comment_says_how_to_prepare_train_and_compare(path):
    text = path.read_text(encoding="utf-8")

    for command in (
        f"mmtool prepare {path.stem}",
        f"mmtool train recipes/bench/{path.name}",
        f"mmtool diagnose runs/{path.stem} --markdown recipes/bench/RESULTS.md",
    ):
        assert re.search(rf"^#     {re.escape(command)}", text, re.MULTILINE), command


def test_a_suite_is_found_by_the_name_that_is_listed_and_where_only_the_wheel_is(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)

    assert "bench/mfeat" in registry.names("recipes")
    for name in ("bench/mfeat", "recipes/bench/mfeat.toml"):
        assert load_recipe(name).suite is not None
