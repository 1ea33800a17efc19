"""G-Blending: weights worked out by hand, their symmetries, when branches are due, and a run."""

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from mmtool.engine.combinations import check_needs
from mmtool.errors import RequestError
from mmtool.methods._base import BranchResult, ModelFacts
from mmtool.methods.gblend import Method, Options, blend, branch_length
from mmtool.testing.cases import Case, contract_recipe, write_contract_store
from mmtool.testing.training import train_here

FLOOR = 0.05
CHANGES = st.floats(-2.0, 2.0, allow_nan=False)
TABLES = st.integers(2, 5).flatmap(
    lambda n: st.lists(st.tuples(CHANGES, CHANGES), min_size=n, max_size=n)
)


def losses(changes):
    """Mean losses whose gain and overfitting are the given pairs; [train and val, loss] each."""
    gain, overfitting = torch.tensor(changes, dtype=torch.float64).T
    before = torch.stack([torch.full_like(gain, 3.0), torch.full_like(gain, 3.5)])
    val = before[1] - gain
    return before, torch.stack([val - 0.5 - overfitting, val])


def weights_of(changes, **options):
    return blend(*losses(changes), **{"floor": FLOOR, **options})


def test_weights_are_gain_over_squared_overfitting():
    # audio 0.6 / 0.3^2 = 20/3, image 0.2 / 0.2^2 = 5, fused 0.9 / 0.6^2 = 2.5; in all 85/6
    found = weights_of([(0.6, 0.3), (0.2, 0.2), (0.9, 0.6)])

    assert found.tolist() == pytest.approx([40 / 85, 30 / 85, 15 / 85])


def test_weights_come_from_losses_before_and_after():
    before = torch.tensor([[1.0, 1.2], [1.1, 1.2]])  # train, val
    after = torch.tensor([[0.2, 0.6], [0.5, 0.7]])
    # audio: V 1.1 -> 0.5, gap 0.1 -> 0.3: 0.6 / 0.2^2 = 15; image: 1.2 -> 0.7, 0 -> 0.1: 50
    found = blend(before, after, floor=FLOOR)

    assert found.tolist() == pytest.approx([15 / 65, 50 / 65], rel=1e-5)


def test_a_gap_that_shrinks_counts_as_much_as_one_that_grows():
    assert weights_of([(0.5, 0.4), (0.5, -0.4)]).tolist() == pytest.approx([0.5, 0.5])


def test_a_loss_that_overfits_by_nothing_is_held_at_the_floor():
    # floor * largest gain = 0.05 * 0.8 = 0.04: 0.8 / 0.04^2 = 500 beside 0.4 / 0.2^2 = 10
    found = weights_of([(0.8, 0.0), (0.4, 0.2)])

    assert found.tolist() == pytest.approx([500 / 510, 10 / 510])


def test_a_loss_that_learnt_nothing_gets_little_however_little_it_overfits():
    # 1e-4 / 0.05^2 = 0.04 beside 1 / 0.3^2 = 100/9
    found = weights_of([(1e-4, 1e-9), (1.0, 0.3)])

    assert found[0].item() == pytest.approx(0.04 / (0.04 + 100 / 9))


def test_a_loss_that_got_worse_gets_nothing():
    assert weights_of([(-0.3, 0.1), (0.4, 0.2)]).tolist() == [0.0, 1.0]


@pytest.mark.parametrize("changes", [[(-0.3, 0.1), (-0.1, 0.2)], [(0.0, 0.0), (0.0, 0.0)]])
def test_without_any_gain_all_weights_are_equal(changes):
    assert weights_of(changes).tolist() == [0.5, 0.5]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_makes_all_weights_equal(bad):
    before, after = losses([(0.6, 0.3), (0.2, 0.2), (0.9, 0.6)])
    after[1, 1] = bad

    assert blend(before, after, floor=FLOOR).tolist() == pytest.approx([1 / 3] * 3)


def test_absolute_changes_reward_getting_worse_as_the_released_code_does():
    # 0.3 / 0.1^2 = 30 and 0.4 / 0.2^2 = 10
    found = weights_of([(-0.3, 0.1), (0.4, 0.2)], measure="absolute")

    assert found.tolist() == pytest.approx([0.75, 0.25])


def test_levels_use_the_losses_at_the_end_alone():
    before = torch.tensor([[9.0, 7.0], [8.0, 6.0]])
    after = torch.tensor([[0.5, 0.2], [1.0, 0.4]])  # 1 / 0.5^2 = 4 and 0.4 / 0.2^2 = 10

    found = blend(before, after, floor=FLOOR, measure="levels")

    assert found.tolist() == pytest.approx([4 / 14, 10 / 14])


@given(TABLES, st.sampled_from(["changes", "absolute", "levels"]))
def test_weights_are_shares(changes, measure):
    found = weights_of(changes, measure=measure)

    assert bool(torch.isfinite(found).all())
    assert bool((found >= 0).all())
    assert found.sum().item() == pytest.approx(1.0)


@given(TABLES, st.floats(1e-3, 1e3))
def test_losses_in_another_unit_have_the_same_weights(changes, factor):
    before, after = losses(changes)
    least = max(abs(gain) for gain, _ in changes)
    if least < 1e-6:
        return  # nothing but rounding is left of the changes

    scaled = blend(before * factor, after * factor, floor=FLOOR)

    assert torch.allclose(scaled, blend(before, after, floor=FLOOR), atol=1e-5)


@given(TABLES, st.randoms(use_true_random=False))
def test_weights_follow_their_losses(changes, random):
    order = list(range(len(changes)))
    random.shuffle(order)

    found = weights_of([changes[place] for place in order])

    assert torch.allclose(found, weights_of(changes)[order], atol=1e-12)


@given(TABLES)
def test_more_gain_never_weighs_less(changes):
    gain, overfitting = changes[0]
    largest = max(abs(g) for g, _ in changes)
    if gain < 0 or gain + 0.1 > largest:
        return  # a new largest gain moves the floor of all
    more = [(gain + 0.1, overfitting), *changes[1:]]

    assert weights_of(more)[0] >= weights_of(changes)[0] - 1e-9


def test_online_branches_come_before_every_super_epoch_and_end_with_the_run():
    options = Options(super_epoch=3, start_epoch=1)

    assert [branch_length(options, e, 8) for e in range(8)] == [0, 3, 0, 0, 3, 0, 0, 1]
    assert [branch_length(Options(), e, 25) for e in (0, 10, 20)] == [10, 10, 5]


def test_offline_branches_come_once_and_are_as_long_as_the_training():
    offline = Options(mode="offline")

    assert [branch_length(offline, e, 4) for e in range(4)] == [4, 0, 0, 0]
    short = Options(mode="offline", super_epoch=2, start_epoch=1)
    assert [branch_length(short, e, 4) for e in range(4)] == [0, 2, 0, 0]


@pytest.mark.parametrize("options", [{"super_epoch": 0}, {"floor": 0}, {"mode": "both"}])
def test_options_without_meaning_are_refused(options):
    with pytest.raises(ValidationError):
        Options(**options)


def method_for(*modalities, **options):
    method = Method(Options(**options))
    dims = dict.fromkeys(modalities, 4)
    method.setup(ModelFacts(modalities, 3, dims, "concat", torch.device("cpu")))
    return method


def test_weights_are_equal_until_they_are_estimated_and_are_state():
    method = method_for("audio", "image")
    ctx = SimpleNamespace(branch=None)
    terms = {"audio": torch.tensor(1.0), "image": torch.tensor(2.0), "fused": torch.tensor(6.0)}
    assert method.compose(terms, ctx).item() == pytest.approx(3.0)

    before, after = losses([(0.6, 0.3), (0.2, 0.2), (0.9, 0.6)])

    def table(values):
        names = ("audio", "image", "fused")
        pairs = zip(("train", "val"), values, strict=True)
        return {f"{s}.{n}": float(v) for s, row in pairs for n, v in zip(names, row, strict=True)}

    # What a branch does to other losses than its own must not matter.
    results = {}
    for place, name in enumerate(("audio", "image", "fused")):
        own = torch.full_like(after, 77.0)
        own[:, place] = after[:, place]
        results[name] = BranchResult(table(before), table(own))
    method.end_branches(results, ctx)

    expected = (40 * 1 + 30 * 2 + 15 * 6) / 85
    assert method.compose(terms, ctx).item() == pytest.approx(expected)
    again = method_for("audio", "image")
    again.load_state_dict(method.state_dict())
    assert again.compose(terms, ctx).item() == pytest.approx(expected)


def test_a_branch_trains_with_its_loss_alone():
    method = method_for("audio", "image")
    terms = {"audio": torch.tensor(1.0)}

    assert method.compose(terms, SimpleNamespace(branch="audio")).item() == 1.0
    (sub,) = method.plan_step(SimpleNamespace(branch="image"))
    assert (sub.modalities, sub.groups) == (("image",), ("image",))
    assert method.plan_step(SimpleNamespace(branch="fused")) == ()
    assert method.plan_step(SimpleNamespace(branch=None)) == ()


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gblend")
    write_contract_store(folder / "fake")
    return folder


def branch_events(root, tmp_path, case):
    found = []

    def emit(kind, **fields):
        found.append((kind, fields))

    train_here(contract_recipe("gblend", case), data_root=root, checkpoints=tmp_path, emit=emit)
    ends = [f for _, f in found if f.get("what") == "branch" and "after" in f]
    return ends, [f for kind, f in found if kind == "step"]


def test_the_branch_of_a_modality_leaves_the_losses_of_the_others_as_they_are(root, tmp_path):
    ends, _ = branch_events(root, tmp_path, Case({"super_epoch": 2}))

    assert [f["branch"] for f in ends] == ["audio", "image", "motion", "fused"]
    for fields in ends[:3]:
        moved = {k for k, v in fields["before"].items() if fields["after"][k] != v}
        own = fields["branch"]
        assert moved == {f"{s}.{name}" for s in ("train", "val") for name in (own, "fused")}


def test_logged_weights_are_those_of_the_branches(root, tmp_path):
    ends, steps = branch_events(root, tmp_path, Case({"super_epoch": 1, "start_epoch": 1}))

    names = ("audio", "image", "motion", "fused")
    rows = {f["branch"]: f for f in ends}
    before, after = (
        torch.tensor([[rows[n][when][f"{s}.{n}"] for n in names] for s in ("train", "val")])
        for when in ("before", "after")
    )
    expected = blend(before.double(), after.double(), floor=FLOOR).tolist()
    for record in steps:
        logged = [record["m"][n]["weight"] for n in names[:3]] + [record["fused_weight"]]
        wanted = [0.25] * 4 if record["epoch"] == 0 else expected
        assert logged == pytest.approx(wanted, rel=1e-5)


def test_a_dataset_without_validation_split_is_refused():
    dataset = SimpleNamespace(
        modalities=("audio", "image"), task="single_label", rows={"val": ()}.get
    )
    with pytest.raises(RequestError, match="held-out split"):
        check_needs(contract_recipe("gblend"), dataset, method_for("audio", "image"))
