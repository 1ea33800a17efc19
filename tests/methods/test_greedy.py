"""Greedy: learning speeds worked out by hand, when a modality is cut off, and a run."""

import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from mmtool.engine.build import build_job
from mmtool.engine.distributed import Ranks
from mmtool.errors import RequestError
from mmtool.methods._base import ModelFacts, StepContext
from mmtool.methods.greedy import Method, Options, difference, next_window, speeds_of
from mmtool.testing.cases import Case, contract_recipe, write_contract_store
from mmtool.testing.training import train_here
from mmtool.types import Batch, Outputs

SPEEDS = st.floats(1e-12, 1e12)
ENCODERS = {
    "audio": {"name": "mlp", "hidden": (12, 8, 8)},
    "image": {"name": "cnn", "width": 4},
}


def case(**options):
    return Case(options, fusion="mmtm", modalities=("audio", "image"), encoders=ENCODERS)


def test_speed_is_one_ratio_over_all_tensors_of_a_group():
    gradients = [torch.tensor([3.0, 4.0]), torch.tensor([[1.0]])]  # 9 + 16 + 1
    values = [torch.tensor([1.0, 2.0]), torch.tensor([[2.0]])]  # 1 + 4 + 4

    other = [torch.tensor([2.0])], [torch.tensor([4.0])]

    found = speeds_of([gradients, other[0]], [values, other[1]])

    assert found.tolist() == pytest.approx([26 / 9, 1 / 4])


def test_weights_that_are_zero_or_missing_have_no_speed():
    assert speeds_of([[], []], [[], []]).tolist() == [0.0, 0.0]
    found = speeds_of(
        [[], [torch.ones(2)], [torch.ones(1)]], [[], [torch.zeros(2)], [torch.ones(1)]]
    )
    assert found.tolist() == [0.0, 0.0, 1.0]


def test_the_difference_compares_bypass_to_main_between_modalities():
    # log10(4 / 2) - log10(0.5 / 10) = log10(2) + log10(20) = log10(40)
    speeds = torch.tensor([[2.0, 10.0], [4.0, 0.5]])  # main, bypass

    assert difference(speeds).item() == pytest.approx(math.log10(40))


@given(st.tuples(SPEEDS, SPEEDS, SPEEDS, SPEEDS))
def test_swapping_modalities_turns_the_sign(numbers):
    speeds = torch.tensor(numbers, dtype=torch.float64).reshape(2, 2)

    assert difference(speeds.flip(1)).item() == pytest.approx(-difference(speeds).item(), abs=1e-9)


@given(st.tuples(SPEEDS, SPEEDS, SPEEDS, SPEEDS), st.floats(1e-3, 1e3))
def test_the_difference_knows_ratios_alone(numbers, factor):
    speeds = torch.tensor(numbers, dtype=torch.float64).reshape(2, 2)

    assert difference(speeds * factor).item() == pytest.approx(difference(speeds).item(), abs=1e-9)


@pytest.mark.parametrize("place", [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_nothing_is_compared_before_everything_has_moved(place):
    speeds = torch.ones(2, 2) * 5
    speeds[place] = 0

    assert difference(speeds).item() == 0.0


def window_of(ahead, left=0, cut_off=0, may_begin=True, epsilon=0.01, window=5):
    numbers = (torch.tensor(ahead), torch.tensor(left), torch.tensor(cut_off))
    found = next_window(*numbers, torch.tensor(may_begin), epsilon, window)
    return tuple(value.item() for value in found)


@pytest.mark.parametrize(
    ("ahead", "expected"),
    [(0.02, (5, 0)), (-0.02, (5, 1)), (0.005, (0, 0)), (-0.005, (0, 0)), (0.0, (0, 0))],
)
def test_the_modality_that_relies_more_on_the_other_is_cut_off(ahead, expected):
    assert window_of(ahead) == expected


def test_a_window_runs_out_before_another_begins():
    assert window_of(9.0, left=3, cut_off=1) == (2, 1)
    assert window_of(9.0, left=1, cut_off=1) == (0, 1)
    assert window_of(9.0, left=0, cut_off=1, may_begin=False) == (0, 1)


def method_of(**options):
    method = Method(Options(**options))
    names = ("audio", "image")
    dims = dict.fromkeys(names, 4)
    method.setup(ModelFacts(names, 3, dims, "mmtm", torch.device("cpu")))
    return method


class Grads:
    """Gradients of one number per group, with weights of one."""

    def __init__(self, **of_group):
        self._of_group = {name.replace("_", "."): value for name, value in of_group.items()}

    def tensors(self, group):
        return [torch.tensor([self._of_group[group]])]

    def values(self, group):
        assert group in self._of_group
        return [torch.tensor([1.0])]


def step(method, grads, *, epoch=5, skipped=False):
    logged = {}
    ctx = SimpleNamespace(
        modalities=("audio", "image"),
        epoch=epoch,
        is_skipped=torch.tensor(skipped),
        log=lambda name, value: logged.update({name: value.item()}),
        log_each=lambda name, values: logged.update({name: values.tolist()}),
    )
    heard = method.hears(ctx).tolist()
    method.edit_grads(grads, ctx)
    method.end_step(ctx)
    assert logged["hears"] == heard
    return heard, logged["difference"]


# Audio's bypass moves four times as fast as its encoder, image's as fast.
UNEVEN = Grads(audio=1.0, image=1.0, exchange_audio=2.0, exchange_image=1.0)
OTHER_WAY = Grads(audio=1.0, image=1.0, exchange_audio=1.0, exchange_image=9.0)


def test_a_window_lasts_its_steps_and_its_steps_do_not_count():
    method = method_of(window=3)

    heard, found = step(method, UNEVEN)
    assert (heard, found) == ([True, True], pytest.approx(math.log10(4)))
    for _ in range(3):
        heard, found = step(method, OTHER_WAY)
        assert (heard, found) == ([False, True], pytest.approx(math.log10(4)))
    heard, found = step(method, OTHER_WAY)  # (4 + 1) / 2 against (1 + 81) / 2
    assert (heard, found) == ([True, True], pytest.approx(math.log10(5 / 82)))
    assert step(method, UNEVEN)[0] == [True, False]


def test_nobody_is_cut_off_before_the_first_epoch_that_may():
    method = method_of(start_epoch=2)

    for epoch in (0, 0, 1):
        assert step(method, UNEVEN, epoch=epoch)[0] == [True, True]
    step(method, UNEVEN, epoch=2)
    assert step(method, UNEVEN, epoch=2)[0] == [False, True]


def test_a_skipped_step_changes_nothing():
    method = method_of(window=2)
    step(method, UNEVEN)
    step(method, UNEVEN)
    before = {name: value.clone() for name, value in method.state_dict().items()}

    bad = Grads(audio=math.nan, image=1.0, exchange_audio=math.inf, exchange_image=1.0)
    step(method, bad, skipped=True)

    assert {n: v.tolist() for n, v in method.state_dict().items()} == {
        n: v.tolist() for n, v in before.items()
    }


def test_state_is_speeds_and_window():
    method, again = method_of(window=4), method_of(window=4)
    step(method, UNEVEN)
    again.load_state_dict(method.state_dict())

    for grads in (OTHER_WAY, UNEVEN, OTHER_WAY, UNEVEN, UNEVEN, UNEVEN):
        assert step(method, grads) == step(again, grads)


@pytest.mark.parametrize("options", [{"epsilon": 0}, {"window": 0}, {"start_epoch": -1}])
def test_options_without_meaning_are_refused(options):
    with pytest.raises(ValidationError):
        Options(**options)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("greedy")
    write_contract_store(folder / "fake")
    return folder


def test_a_fusion_whose_encoders_do_not_hear_each_other_is_refused(root):
    late = Case(modalities=("audio", "image"))

    with pytest.raises(RequestError, match="does not work with fusion 'concat'") as told:
        build_job(contract_recipe("greedy", late), Ranks(), data_root=root)
    assert told.value.fix == "-s model.fusion=mmtm"


def test_a_third_modality_is_refused(root):
    with pytest.raises(RequestError, match="cannot train 3 modalities"):
        build_job(contract_recipe("greedy", Case(fusion="mmtm")), Ranks(), data_root=root)


def test_a_window_without_end_is_training_without_the_other(root, tmp_path):
    """The modality that is cut off trains as with nothing but averages from the second step on."""
    steps = []

    def emit(kind, **fields):
        if kind == "step":
            steps.append(fields)

    train_here(
        contract_recipe("greedy", case(start_epoch=0, window=100)),
        data_root=root,
        checkpoints=tmp_path,
        emit=emit,
    )

    hears = [[row["m"][m]["hears"] for m in ("audio", "image")] for row in steps]
    assert hears[0] == [1.0, 1.0]
    assert all(row == hears[1] and sum(row) == 1.0 for row in hears[1:])
    assert len({row["difference"] for row in steps}) == 1


def test_without_imbalance_it_is_training_of_branches_that_hear_each_other(root, tmp_path):
    tolerant = contract_recipe("greedy", case(start_epoch=0, epsilon=1e6))
    never = contract_recipe("greedy", case(start_epoch=100))

    found = train_here(tolerant, data_root=root, checkpoints=tmp_path / "tolerant")
    plain = train_here(never, data_root=root, checkpoints=tmp_path / "never")

    assert [name for name in plain if not torch.equal(plain[name], found[name])] == []


def test_each_branch_has_a_loss_of_its_own_where_the_answer_is_their_mean():
    names = ("audio", "image")
    branches = {
        "audio": torch.tensor([[2.0, 0.0], [0.0, 1.0]]),
        "image": torch.tensor([[0.0, 4.0], [3.0, 0.0]]),
    }
    parts = {m: z / 2 for m, z in branches.items()}
    outputs = Outputs({}, parts["audio"] + parts["image"], parts)
    present = torch.tensor([[True, True], [True, False]])
    batch = Batch({}, {}, present, torch.tensor([0, 1]), torch.arange(2), names)
    context = StepContext(names, 2, 0, 0, 1, 1, torch.Generator())

    terms = Method(Options()).losses(outputs, batch, context)

    assert set(terms) == set(names)
    assert terms["audio"].tolist() == pytest.approx(
        [math.log(1 + math.exp(-2)), math.log(1 + math.exp(-1))]
    )
    # -log softmax of the smaller logit; the second sample has no image.
    assert terms["image"].tolist() == pytest.approx([math.log(1 + math.exp(4)), 0.0])
