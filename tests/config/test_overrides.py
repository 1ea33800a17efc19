"""`-s key=value` is typed by the schema."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmtool.config.load import load_recipe
from mmtool.config.overrides import typed
from mmtool.config.shape import quoted
from mmtool.errors import RecipeError


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("train.lr=1e-3", "train.lr", 1e-3),
        ("train.lr = 3", "train.lr", 3.0),
        ("train.epochs=1_000", "train.epochs", 1000),
        ("train.precision=bf16", "train.precision", "bf16"),
        ('train.precision="bf16"', "train.precision", "bf16"),
        ("data.split=2024-01-01", "data.split", "2024-01-01"),
        ("data.split=7", "data.split", "7"),
        ("data.split='true'", "data.split", "true"),
        ("data.split=a=b", "data.split", "a=b"),
        ("log.probes=false", "log.probes", False),
        ("log.probes=0", "log.probes", False),
        ("data.modalities=video,audio", "data.modalities", ("video", "audio")),
        ("data.modalities=[audio, video]", "data.modalities", ("audio", "video")),
        ('data.modalities=["audio", "video"]', "data.modalities", ("audio", "video")),
        ("data.modalities=unset", "data.modalities", None),
        ("train.clip_norm=unset", "train.clip_norm", None),
        ("train.clip_norm=2", "train.clip_norm", 2.0),
        ('data.columns={audio = "audio.logmel"}', "data.columns.audio", "audio.logmel"),
        ("data.columns.audio=audio.logmel", "data.columns.audio", "audio.logmel"),
        ("data.augment.video.crop_scale=0.5,1", "data.augment.video.crop_scale", (0.5, 1.0)),
        ("method.alpha=2", "method.alpha", 2.0),
        ("method.apply=update", "method.apply", "update"),
        ("method.stop_epoch=unset", "method.stop_epoch", None),
        ("method.window=0.1,0.2", "method.window", [0.1, 0.2]),
        ("method.tags=a,2", "method.tags", ["a", "2"]),
        ("method.mixed=7", "method.mixed", 7),
        ("method.mixed=seven", "method.mixed", "seven"),
        ("method.inner.depth=4", "method.inner.depth", 4),
        ("method.inner={depth = 4}", "method.inner.depth", 4),
    ],
)
def test_text_becomes_what_the_key_holds(write, override, key, value):
    from mmtool.config.dump import flatten

    loaded = load_recipe(str(write()), [override])
    assert flatten(loaded.recipe)[key] == value
    assert loaded.origins[key] == "-s"


@pytest.mark.parametrize(
    "override",
    [
        "method=./other_method.py",
        "method.name=./other_method.py",
        'method="./other_method.py"',
        'method={name = "./other_method.py"}',
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_a_plugin_is_replaced_and_its_options_belong_to_the_new_one(write, override, first):
    both = [override, "method.beta=7"] if first else ["method.beta=7", override]
    loaded = load_recipe(str(write()), both)
    assert loaded.recipe.method.name == str(Path("other_method.py").resolve())
    assert loaded.recipe.method.options["beta"] == 7.0
    assert "alpha" not in loaded.recipe.method.options
    assert loaded.origins["method.name"] == "-s"
    assert len(loaded.notes) == 1


def test_naming_the_plugin_already_there_keeps_its_options(write):
    loaded = load_recipe(str(write()), ["method=./my_method.py"])
    assert loaded.recipe.method.options["alpha"] == 0.5
    assert loaded.origins["method.alpha"] == "x.toml:13"


def test_encoders_can_be_given_as_one_table(write):
    loaded = load_recipe(str(write()), ['model.encoders={text = "./plain.py"}'])
    assert list(loaded.recipe.model.encoders) == ["text"]
    assert loaded.origins["model.encoders.text.name"] == "-s"


def test_the_last_of_several_overrides_of_a_key_counts(write):
    assert load_recipe(str(write()), ["train.lr=1", "train.lr=2"]).recipe.train.lr == 2.0


@pytest.mark.parametrize(
    ("override", "what", "fix"),
    [
        ("train.lr=0,01", "expected a number, got text", "did you mean 0.01?"),
        ("train.epochs=1.5", "expected a whole number, got text", ""),
        ("train.epochs=0", "0 is too small: must be at least 1", ""),
        ("train.epochs=unset", "expected a whole number, got text", ""),
        ("train.precision=bf61", '"bf61" is not a choice here', '"bf16"'),
        ("trian.lr=1", "unknown key 'trian'", "did you mean 'train'?"),
        ("train.epoch=1", "unknown key 'epoch'", "did you mean 'epochs'?"),
        ("lr=1", "unknown key 'lr'", "did you mean train.lr?"),
        ("method.alpah=1", "unknown key 'alpah'", "did you mean 'alpha'?"),
        ("model.fusion.dim=1", "unknown key 'dim'", "known keys: name"),
        ("method.alpha=x", "expected a number, got text", ""),
        ("method=zzz", "there is no method named 'zzz'", ""),
        ("train.lr.x=1", "train.lr is one value and has no keys", ""),
        ("train=1", "expected a table, got the number 1", ""),
        ("train.lr", "'train.lr' has no '='", "-s train.lr=0.01"),
        ("=1", "'' is not a key", "-s train.lr=0.01"),
    ],
)
def test_a_bad_override_is_shown_as_the_command_line_wrote_it(write, override, what, fix):
    with pytest.raises(RecipeError) as caught:
        load_recipe(str(write()), [override])
    text = caught.value.rendered
    assert f"error: {what}" in text
    assert f"  --> command line: -s {override}" in text
    assert fix in text


def test_what_a_replaced_table_held_before_is_a_default_again(write):
    loaded = load_recipe(str(write()), ["train={epochs = 1, batch_size = 8}"])
    assert loaded.origins["train.epochs"] == "-s"
    assert loaded.origins["train.lr"] == "default"


def test_a_table_given_whole_replaces_the_one_in_the_recipe(write):
    with pytest.raises(RecipeError) as caught:
        load_recipe(str(write()), ["train={epochs = 1}"])
    assert caught.value.rendered.startswith(
        "error: missing key 'batch_size' in [train]\n  --> command line: -s train={epochs = 1}"
    )


@given(text=st.text(st.characters(exclude_categories=("Cs",)), max_size=12))
def test_any_text_can_be_given_in_quotes_and_plain_text_stays_as_it_is(text: str) -> None:
    assert typed(quoted(text), str) == text
    if not (text and text[0] in "\"'" and text[0] == text[-1]):
        assert typed(text, str) == text


@given(number=st.floats(allow_nan=False, allow_infinity=False), count=st.integers())
def test_numbers_survive_as_text(number: float, count: int) -> None:
    assert typed(repr(number), float) == number
    assert typed(str(count), int) == count
    assert typed(f"{count},{count}", tuple[int, ...]) == [count, count]
