from hypothesis import given
from hypothesis import strategies as st

from mmtool.prepare.splits import carve, draw_share, leave_one_out

sizes = st.integers(0, 80)
shares = st.floats(0, 0.9)


@given(size=sizes, share=shares, num_labels=st.integers(1, 5))
def test_the_share_is_met_to_half_a_clip_and_spread_over_labels(
    size: int, share: float, num_labels: int
) -> None:
    ids = [f"clip{i}" for i in range(size)]
    labels = [i % num_labels for i in range(size)]
    drawn = draw_share(ids, share, "val", labels=labels)
    assert abs(len(drawn) - share * size) <= 0.5 + 1e-9
    for label in range(num_labels):
        members = [name for name, found in zip(ids, labels, strict=True) if found == label]
        assert abs(len(drawn & set(members)) - share * len(members)) <= 1 + 1e-9


@given(size=sizes, share=shares, num_groups=st.integers(1, 9))
def test_groups_stay_whole_and_one_stays_behind(size: int, share: float, num_groups: int) -> None:
    ids = [f"clip{i}" for i in range(size)]
    groups = [f"g{i % num_groups}" for i in range(size)]
    drawn = draw_share(ids, share, "val", groups=groups)
    members = {g: {n for n, h in zip(ids, groups, strict=True) if h == g} for g in groups}
    assert all(found <= drawn or not found & drawn for found in members.values())
    assert len(drawn) < size or size == 0


@given(order=st.permutations([f"clip{i}" for i in range(20)]))
def test_the_draw_does_not_depend_on_the_order_of_the_list(order: list[str]) -> None:
    assert draw_share(order, 0.3, "val") == draw_share(sorted(order), 0.3, "val")


def test_another_salt_draws_others_and_a_clip_without_group_stands_alone() -> None:
    ids = [f"clip{i}" for i in range(50)]
    assert draw_share(ids, 0.3, "val:0") != draw_share(ids, 0.3, "val:1")
    assert len(draw_share(ids, 0.3, "val", groups=[""] * 50)) == 15


def test_carving_moves_a_share_of_train_and_nothing_else() -> None:
    splits = {f"c{i}": "test" if i % 5 == 0 else "train" for i in range(100)}
    labels = {name: int(name[1:]) % 4 for name in splits}
    found = carve(splits, 0.1, "salt", labels=labels)
    assert found == carve(splits, 0.1, "salt", labels=labels)
    assert {n for n, s in found.items() if s == "test"} == {
        n for n, s in splits.items() if s == "test"
    }
    assert sum(s == "val" for s in found.values()) == 8
    assert {labels[n] for n, s in found.items() if s == "val"} == {0, 1, 2, 3}


def test_carving_groups_splits_none_of_them() -> None:
    splits = {f"c{i}": "train" for i in range(60)}
    groups = {name: f"g{int(name[1:]) // 6}" for name in splits}
    found = carve(splits, 0.2, "salt", groups=groups)
    by_group = {g: {found[n] for n in found if groups[n] == g} for g in groups.values()}
    assert all(len(splits) == 1 for splits in by_group.values())
    assert sum(s == "val" for s in found.values()) == 12


def test_leave_one_out_holds_every_group_out_once() -> None:
    folds = leave_one_out(["b", "a", "c", "a"], prefix="subject")
    assert list(folds) == ["subject-a", "subject-b", "subject-c"]
    assert folds["subject-c"] == {"a": "val", "b": "train", "c": "test"}
