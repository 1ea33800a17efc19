"""Whatever a recipe says, the answer is a checked recipe or a list of problems."""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmtool.config.dump import to_toml
from mmtool.config.load import load_recipe
from mmtool.errors import RecipeError

VALUES = st.sampled_from(
    [
        *("1", "0", "-1", "0.5", "nan", "true", '"text"', '"unset"', '"0.5"', '"sgd"', '"step"'),
        *("[]", "[1]", '["audio"]', '["audio", "audio"]', '["audio", 3]', "[[1]]", "[{a = 1}]"),
        *("{}", "{name = 1}", '{name = "gone"}', "{a = {b = 1}}", "{audio = {size = 8}}"),
        *("2024-01-01", "07:32:00", '"""a\nb"""', '"./plain.py"', '"./my_method.py"'),
    ]
)
KEYS = st.sampled_from(
    [
        *("data", "data.dataset", "data.modalities", "data.columns", "data.augment", "data.split"),
        *("data.augment.audio.crop_scale", "model", "model.fusion", "model.fusion.x"),
        *("model.encoders", "model.encoders.audio", "model.encoders.audio.name", "method"),
        *("method.name", "method.alpha", "method.inner", "method.mixed", "method.tags", "train"),
        *("train.epochs", "train.optimizer", "train.momentum", "train.schedule", "train.lr.x"),
        *("train.step_epochs", "train.accumulate", "train.clip_norm", "log.probes", "zzz", '"a b"'),
    ]
)
PAIRS = st.lists(st.tuples(KEYS, VALUES), max_size=4)


def problems_of(path, overrides) -> RecipeError | None:
    """Load a recipe; where it is good, demand that it survives being written out."""
    try:
        loaded = load_recipe(str(path), overrides)
    except RecipeError as error:
        return error
    again = path.with_name("again.toml")
    again.write_text(to_toml(loaded.recipe))
    assert load_recipe(str(again)).recipe == loaded.recipe
    return None


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(written=PAIRS, base=PAIRS, overrides=PAIRS)
def test_any_recipe_loads_or_is_explained(write_once, written, base, overrides):
    child = "".join(f"{key} = {value}\n" for key, value in written)
    parent = "".join(f"{key} = {value}\n" for key, value in base)
    write_once(name="base.toml", text=f"{parent}\n")
    plain = write_once(name="y.toml", text=f'extends = "x"\n{child}')
    upon = write_once(name="z.toml", text=f'extends = "base"\n{child}')
    flags = [f"{key}={value}" for key, value in overrides]
    for path in (plain, upon):
        error = problems_of(path, flags)
        if error is not None:
            assert error.problems
            assert error.rendered.count("  --> ") == len(error.problems)
