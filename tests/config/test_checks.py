"""A key that has no effect is an error where it is written, and dropped where it is overruled."""

import pytest

from mmtool.config.dump import to_toml
from mmtool.config.load import load_recipe
from mmtool.errors import RecipeError


def rendered(path, *overrides: str) -> str:
    with pytest.raises(RecipeError) as caught:
        load_recipe(str(path), overrides)
    return caught.value.rendered


@pytest.mark.parametrize(
    ("edit", "what"),
    [
        (
            ("lr = 0.01", 'optimizer = "adamw"\nmomentum = 0.9'),
            "train.momentum has no effect: optimizer is 'adamw', not 'sgd'",
        ),
        (("lr = 0.01", "step_epochs = 7"), "train.step_epochs has no effect: schedule is"),
        (("lr = 0.01", "step_factor = 0.5"), "train.step_factor has no effect: schedule is"),
        (
            ('"ave"', '"ave"\nmodalities = ["audio"]'),
            "model.encoders.video has no effect: data.modalities is audio",
        ),
        (
            ('"ave"', '"ave"\n[data.augment.vide]\nflip = true'),
            "data.augment.vide has no effect: did you mean 'video'?",
        ),
        (
            ('"ave"', '"ave"\ncolumns = {text = "text.tokens"}'),
            "data.columns.text has no effect: 'text' is not used",
        ),
        (
            ('"ave"', '"ave"\nmodalities = ["audio", "video", "text"]'),
            "modality 'text' has no encoder",
        ),
        (
            ('"ave"', '"ave"\nmodalities = ["audio", "video", "audio"]'),
            "modality 'audio' is listed twice",
        ),
    ],
)
def test_what_has_no_effect_is_an_error_in_the_recipe_that_wrote_it(write, edit, what):
    text = rendered(write(edit))
    assert f"error: {what}" in text
    assert text.count("error: ") == 1


def test_a_step_schedule_uses_the_keys_of_its_steps(write):
    path = write(("lr = 0.01", 'schedule = "step"\nstep_epochs = 7\nstep_factor = 0.5'))
    assert load_recipe(str(path)).recipe.train.step_epochs == 7


def test_defaults_without_effect_are_no_problem_and_are_not_written_out(write):
    recipe = load_recipe(str(write(("lr = 0.01", 'optimizer = "adamw"')))).recipe
    assert "momentum" not in to_toml(recipe)
    assert "step_" not in to_toml(recipe)
    assert "momentum" in to_toml(load_recipe(str(write())).recipe)


def test_another_optimizer_from_the_command_line_drops_the_momentum_of_the_recipe(write):
    loaded = load_recipe(str(write(("lr = 0.01", "momentum = 0.8"))), ["train.optimizer=adamw"])
    assert loaded.notes == ("train.momentum (x.toml:18) dropped: optimizer is 'adamw', not 'sgd'",)
    assert loaded.origins["train.momentum"] == "default"


def test_momentum_beside_adamw_on_the_command_line_is_an_error(write):
    text = rendered(write(), "train.optimizer=adamw", "train.momentum=0.8")
    assert "  --> command line: -s train.momentum=0.8" in text


def test_fewer_modalities_from_the_command_line_drop_the_encoders_of_the_others(write):
    path = write(('"ave"', '"ave"\naugment = {video = {flip = true}, audio = {flip = true}}'))
    loaded = load_recipe(str(path), ["data.modalities=audio"])
    assert list(loaded.recipe.model.encoders) == ["audio"]
    assert list(loaded.recipe.data.augment) == ["audio"]
    assert len(loaded.notes) == 2


def test_a_child_that_lists_fewer_modalities_drops_the_encoders_of_its_base(write):
    write()
    text = 'extends = "x"\n[data]\nmodalities = ["video"]\n'
    loaded = load_recipe(str(write(name="child.toml", text=text)))
    assert list(loaded.recipe.model.encoders) == ["video"]


def test_no_modality_at_all_is_an_error(write):
    assert "no modality is listed" in rendered(write(), "data.modalities=")
    assert "no modality has an encoder" in rendered(write(), "model.encoders={}")
