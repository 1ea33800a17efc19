"""Labels and values of clips that a preparer must not hand on."""

from dataclasses import replace
from pathlib import Path

import pytest

from mmtool.errors import SourceError
from mmtool.media.spec import SeriesSpec, Source
from mmtool.prepare.api import Clip, Column
from mmtool.prepare.checks import check_clips
from mmtool.prepare.contents import shared_contents
from mmtool.prepare.plan import limited

COLUMNS = {"imu": Column("imu", SeriesSpec())}


def clip(name: str, labels: tuple[int, ...] | None = None, value: float | None = None) -> Clip:
    return Clip(
        id=name,
        label=0 if labels is None else -1,
        sources={"imu": Source(Path(f"/raw/{name}.npy"))},
        split={"main": "train"},
        value=value,
        labels=labels,
    )


def refusal(*clips: Clip) -> str:
    with pytest.raises(SourceError) as caught:
        check_clips(clips, COLUMNS, ["a", "b"], where="list.csv")
    return str(caught.value)


def test_clips_with_any_number_of_labels_are_accepted() -> None:
    clips = [clip("x", ()), clip("y", (0, 1)), clip("z", (1,))]

    assert check_clips(clips, COLUMNS, ["a", "b"], where="list.csv") == ("main",)


def test_all_clips_have_one_label_or_all_have_several() -> None:
    said = refusal(clip("x", (0,)), clip("y"))

    assert "'x' and 'y' differ in what a label is" in said


def test_a_label_beyond_the_classes_is_refused_among_several_too() -> None:
    assert "has label 2, but classes are 0..1" in refusal(clip("x", (0, 2)))
    assert "has label -1" in refusal(replace(clip("x"), label=-1))


def test_a_label_that_is_listed_twice_or_beside_several_is_refused() -> None:
    assert "each once" in refusal(clip("x", (1, 1)))
    assert "each once" in refusal(replace(clip("x", (1,)), label=1))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_value_that_is_no_number_is_refused(value: float) -> None:
    assert "not a finite number" in refusal(clip("x", value=value))


def test_a_limit_takes_clips_in_proportion_to_their_sets_of_classes() -> None:
    sets = [(0,), (0, 1), ()]
    clips = [clip(f"c{i:02d}", sets[i % 3]) for i in range(30)]

    taken = limited(clips, 9, "main")

    assert [sum(c.labels == labels for c in taken) for labels in sets] == [3, 3, 3]


def test_the_same_content_under_the_same_set_of_classes_is_no_contradiction() -> None:
    content = [{"imu": "same"}] * 2

    (same,) = shared_contents([clip("x", (0, 1)), clip("y", (1, 0))], content)
    (other,) = shared_contents([clip("x", (0, 1)), clip("y", (1,))], content)

    assert same.same_label
    assert not other.same_label
