"""One table of thresholds: every name of the typed view is in it, and every report carries it."""

import tomllib
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import pytest

from mmtool.diagnose.api import diagnose
from mmtool.diagnose.rules import _thresholds as thresholds


def table() -> dict[str, object]:
    text = files("mmtool.diagnose.rules").joinpath(thresholds.TABLE).read_text(encoding="utf-8")
    return tomllib.loads(text)


def test_every_name_of_the_view_is_in_the_table_with_its_type_and_the_other_way_round() -> None:
    typed = thresholds.__annotations__
    assert {name.lower() for name in typed} == set(table())
    for name, wanted in typed.items():
        assert type(getattr(thresholds, name)) is wanted, name


def test_a_name_that_is_not_in_the_table_is_an_error_that_names_the_table() -> None:
    with pytest.raises(AttributeError, match=r"1\.toml has no threshold 'no_such_bound'"):
        _ = thresholds.NO_SUCH_BOUND


def test_bounds_for_two_and_three_modalities_are_their_own_and_more_follow_the_rule() -> None:
    assert [thresholds.dominant_share(m) for m in (2, 3)] == [0.72, 0.60]
    assert thresholds.dominant_share(4) == pytest.approx(0.25 + 0.44 * 0.75)
    assert thresholds.weak_share(2) == pytest.approx(0.22)


def test_the_table_with_its_version_is_in_every_report(plant: Callable[..., Path]) -> None:
    stamped = diagnose([plant()]).as_dict()["meta"]["thresholds"]
    assert stamped == table()
    assert stamped["version"] == "1"
