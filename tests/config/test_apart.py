"""A recipe loaded in another process is the same recipe, and its errors are the same errors."""

import subprocess
import sys

import pytest

from mmtool.config.apart import load_apart
from mmtool.config.load import load_recipe
from mmtool.errors import RecipeError, UnknownName


def test_it_gives_what_loading_here_gives():
    overrides = ["train.lr=0.5", "method.alpha=0.25", "launch.gpus=3"]

    apart, here = load_apart("avdigits_ogm", overrides), load_recipe("avdigits_ogm", overrides)

    assert apart == here
    assert apart.origins["method.alpha"] == here.origins["method.alpha"]


def test_it_refuses_in_the_same_words():
    overrides = ["train.lr=fast", "method.alpha=much"]
    with pytest.raises(RecipeError) as apart:
        load_apart("avdigits_ogm", overrides)
    with pytest.raises(RecipeError) as here:
        load_recipe("avdigits_ogm", overrides)

    assert str(apart.value) == str(here.value)
    assert apart.value.problems == here.value.problems


def test_an_unknown_recipe_stays_an_unknown_name():
    with pytest.raises(UnknownName) as caught:
        load_apart("avdigits_omg")

    assert "avdigits_o" in caught.value.fix


def test_nothing_heavy_is_loaded_here():
    code = (
        "import sys; from mmtool.config.apart import load_apart; load_apart('avdigits_ogm');"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "False"
