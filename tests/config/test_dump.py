"""A recipe written out is the same recipe when it is read again."""

import math
import tomllib
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmtool.config.dump import flatten, to_toml, toml_value
from mmtool.config.load import load_recipe
from mmtool.config.schema import (
    Augment,
    DataConfig,
    LaunchConfig,
    ModelConfig,
    Plugin,
    Recipe,
    TrainConfig,
)

TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=8)
FLOATS = st.floats(1e-9, 1e9)
OPTION_NAMES = TEXT.filter(lambda key: key not in ("name", ""))
VALUES = st.recursive(
    st.booleans() | st.integers(-(2**40), 2**40) | FLOATS | TEXT.filter(lambda t: t != "unset"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)


@st.composite
def plugins(draw: st.DrawFn) -> Plugin:
    name = draw(TEXT.filter(lambda text: not text.endswith(".py")))
    return Plugin(name=name, **draw(st.dictionaries(OPTION_NAMES, VALUES, max_size=3)))


@st.composite
def recipes(draw: st.DrawFn) -> Recipe:
    modalities = draw(st.lists(TEXT, min_size=1, max_size=3, unique=True))
    optimizer = draw(st.sampled_from(["sgd", "adamw"]))
    schedule = draw(st.sampled_from(["constant", "step", "cosine"]))
    train = {
        "epochs": draw(st.integers(1, 999)),
        "batch_size": draw(st.integers(8, 999)),
        "accumulate": draw(st.integers(1, 8)),
        "optimizer": optimizer,
        "schedule": schedule,
        "lr": draw(FLOATS),
        "clip_norm": draw(st.none() | FLOATS),
    }
    if optimizer == "sgd":
        train["momentum"] = draw(st.floats(0, 1))
    if schedule == "step":
        train["step_epochs"] = draw(st.integers(1, 99))
    augment = Augment(size=draw(st.none() | st.integers(1, 512)), crop_scale=(0.25, 1.0))
    data = DataConfig(
        dataset=draw(TEXT),
        split=draw(st.none() | TEXT.filter(lambda text: text != "unset")),
        modalities=draw(st.sampled_from([None, tuple(modalities)])),
        columns=dict.fromkeys(draw(st.sets(st.sampled_from(modalities))), "a.b"),
        augment=dict.fromkeys(draw(st.sets(st.sampled_from(modalities))), augment),
    )
    model = ModelConfig(
        fusion=draw(plugins()), encoders={name: draw(plugins()) for name in modalities}
    )
    launch = LaunchConfig(threads=draw(st.none() | st.integers(1, 9)))
    return Recipe(
        data=data, model=model, method=draw(plugins()), train=TrainConfig(**train), launch=launch
    )


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(recipe=recipes())
def test_every_recipe_written_out_loads_to_an_equal_one(recipe: Recipe, tmp_path_factory) -> None:
    path = tmp_path_factory.mktemp("dump") / "resolved.toml"
    path.write_bytes(to_toml(recipe).encode())
    assert load_recipe(str(path), check_plugins=False).recipe == recipe


def test_a_loaded_recipe_with_its_plugin_options_round_trips_from_another_folder(write):
    first = load_recipe(str(write()), ["method.stop_epoch=unset", "method.tags=a,b"])
    Path("elsewhere").mkdir()
    path = write(name="elsewhere/resolved.toml", text=to_toml(first.recipe))
    again = load_recipe(str(path))
    assert again.recipe == first.recipe
    assert again.recipe.method.options["stop_epoch"] is None
    assert to_toml(again.recipe) == to_toml(first.recipe)
    assert 'stop_epoch = "unset"' in to_toml(first.recipe)


def test_a_recipe_may_clear_an_optional_key_with_the_word_the_command_line_uses(write):
    path = write(("lr = 0.01", 'clip_norm = "unset"'), ("alpha = 0.5", 'stop_epoch = "unset"'))
    recipe = load_recipe(str(path)).recipe
    assert recipe.train.clip_norm is None
    assert recipe.method.options["stop_epoch"] is None


def test_flattening_gives_every_value_by_its_dotted_key(write):
    flat = flatten(load_recipe(str(write())).recipe)
    assert flat["method.inner.depth"] == 1
    assert flat["train.clip_norm"] is None
    assert flat["data.columns"] == {}
    assert flat["model.encoders.audio.name"].endswith("plain.py")


@given(value=VALUES)
def test_a_value_written_as_toml_reads_back(value) -> None:
    assert tomllib.loads(f"v = {toml_value(value)}")["v"] == value


def test_numbers_that_are_not_finite_can_be_written() -> None:
    assert math.isnan(tomllib.loads(f"v = {toml_value(math.nan)}")["v"])
    assert tomllib.loads(f"v = {toml_value(-math.inf)}")["v"] == -math.inf
