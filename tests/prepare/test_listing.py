from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmtool.errors import SourceError
from mmtool.prepare.api import Clip, Source
from mmtool.prepare.listing import Listing, one_entry_per_clip


def clip(name: str, split: str, label: int = 0, file: str = "", **more: Any) -> Clip:
    source = Source(Path(f"/raw/{file or name}.wav"))
    return Clip(name, label, {"audio": source}, {"official": split, **more.pop("also", {})}, **more)


def listed(*clips: Clip, duplicates: str = "first", leaks: str = "refuse") -> Listing:
    return one_entry_per_clip(clips, duplicates=duplicates, leaks=leaks, where="list.csv")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("policy", "labels", "ids", "num_out"),
    [
        ("first", [3], ["a"], 1),
        ("last", [5], ["a"], 1),
        ("multi", [3, 5], ["a", "a#2"], 0),
        ("drop", [], [], 2),
    ],
)
def test_a_repeated_id_is_handled_as_asked_and_counted(
    policy: str, labels: list[int], ids: list[str], num_out: int
) -> None:
    found = listed(clip("a", "train", 3), clip("a", "train", 5), duplicates=policy)
    assert [c.label for c in found.clips] == labels
    assert [c.id for c in found.clips] == ids
    assert [f.reason for f in found.left_out] == ["duplicate-id"] * num_out


def test_a_clip_in_train_and_test_is_refused() -> None:
    with pytest.raises(SourceError, match="in two splits of protocol 'official'") as caught:
        listed(clip("a", "train"), clip("a", "test"))
    assert "--allow-leak" in caught.value.fix


def test_an_official_list_that_leaks_loses_the_training_side() -> None:
    found = listed(
        clip("a", "train", 1), clip("a", "test", 2), clip("b", "train"), leaks="drop-train"
    )
    assert [(c.id, c.split["official"], c.label) for c in found.clips] == [
        ("a", "test", 2),
        ("b", "train", 0),
    ]
    (out,) = found.left_out
    assert (out.reason, out.detail, out.clip.split) == (
        "cross-split", "official: also in test", {"official": "train"},
    )  # fmt: skip


def test_between_val_and_test_the_test_clip_stays() -> None:
    found = listed(clip("a", "test"), clip("a", "val"), leaks="drop-train")
    assert [c.split["official"] for c in found.clips] == ["test"]


def test_a_clip_that_leaks_under_one_protocol_stays_under_the_other() -> None:
    found = listed(
        clip("a", "train", file="same", also={"fold": "train"}),
        clip("b", "test", file="same", also={"fold": "train"}),
        leaks="drop-train",
    )
    assert [dict(c.split) for c in found.clips] == [
        {"fold": "train"},
        {"official": "test", "fold": "train"},
    ]
    assert found.left_out == ()
    assert [(f.clip.id, f.reason) for f in found.removed] == [("a", "cross-split")]


def test_clips_of_two_splits_may_share_raw_data_only_when_allowed() -> None:
    clips = clip("a", "train", file="same"), clip("b", "test", file="same")
    with pytest.raises(SourceError, match=r"leak: clips 'b' \(test\) and 'a' \(train\)|leak"):
        listed(*clips)
    assert len(listed(*clips, leaks="allow").clips) == 2


def test_rows_the_preparer_calls_unusable_are_counted_before_anything_else() -> None:
    found = listed(clip("a", "train", skip="zero-length"), clip("a", "test"))
    assert [c.split["official"] for c in found.clips] == ["test"]
    assert [f.reason for f in found.left_out] == ["zero-length"]


entries = st.lists(
    st.tuples(st.sampled_from("abcd"), st.sampled_from(["train", "val", "test"])), max_size=12
)


@given(entries, st.sampled_from(["first", "last", "multi", "drop"]))
def test_no_id_is_held_out_and_trained_on_and_no_row_vanishes(
    rows: list[tuple[str, str]], policy: str
) -> None:
    clips = [clip(name, split) for name, split in rows]
    found = listed(*clips, duplicates=policy, leaks="drop-train")
    assert len(found.clips) + len(found.left_out) == len(clips)
    assert len({c.id for c in found.clips}) == len(found.clips)
    splits: dict[str, set[str]] = {}
    for c in found.clips:
        splits.setdefault(c.id.partition("#")[0], set()).add(c.split["official"])
    assert all(len(names) == 1 for names in splits.values())
