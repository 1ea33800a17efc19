"""What is planted is there: large samples of every problem tell what its truth claims."""

import numpy as np
import pytest

from mmtool.testing.planted.conditions import CONDITIONS
from mmtool.testing.planted.grid import (
    PROBLEMS,
    RANDOM_REPORTING_SEEDS,
    RANDOM_TUNING_SEEDS,
    REPORTING_SEEDS,
    TUNING_SEEDS,
    all_cells,
)
from mmtool.testing.planted.oracle import chance, read_out, readout
from mmtool.testing.planted.problem import HEALTHY, STARVED, Sizes, Truth
from mmtool.testing.planted.random_problems import drawn_problem
from mmtool.testing.planted.scenarios import SCENARIOS

LARGE = Sizes(train=5000, val=2000)
SEED = 11
NOTHING = 0.04
WEAK = 0.6

_found = {}


def alone(name, modality):
    """What a large sample of one modality tells above chance."""
    return _score(name, (modality,)) - chance(PROBLEMS[name](LARGE, SEED))


def together(name):
    problem = PROBLEMS[name](LARGE, SEED)
    return _score(name, problem.modalities) - chance(problem)


def _score(name, modalities):
    key = name, tuple(modalities)
    if key not in _found:
        _found[key] = readout(PROBLEMS[name](LARGE, SEED), modalities, steps=350)
    return _found[key]


def where(codes):
    """Problems whose truth is one of these codes, whatever the fusion."""
    return [name for name, make in PROBLEMS.items() if make(Sizes(40, 20), 0).truth.codes <= codes]


@pytest.mark.parametrize("name", where(HEALTHY))
def test_the_modalities_of_a_healthy_problem_tell_much_each(name):
    found = [alone(name, m) for m in PROBLEMS[name](LARGE, SEED).modalities]

    # Of the complementary one each tells its part of the label and no more.
    assert min(found) > (0.1 if name == "unique" else WEAK * max(found))


def test_redundant_modalities_together_tell_no_more_than_one():
    assert together("redundant") - max(alone("redundant", m) for m in ("audio", "video")) < 0.02


@pytest.mark.parametrize("name", ["unique", "class_specific", "four", "null3"])
def test_complementary_modalities_together_tell_more_than_the_best(name):
    best = max(alone(name, m) for m in PROBLEMS[name](LARGE, SEED).modalities)

    assert together(name) - best > 0.05


@pytest.mark.parametrize("name", where({"low-information"}))
def test_a_modality_of_low_information_tells_something_but_little(name):
    ratio = alone(name, "video") / alone(name, "audio")

    assert 0.0 < ratio < WEAK


@pytest.mark.parametrize("name", where(STARVED))
def test_a_starved_modality_tells_nearly_as_much_as_the_one_relied_on(name):
    for m in PROBLEMS[name](LARGE, SEED).truth.modalities:
        assert alone(name, m) > 0.75 * alone(name, "audio")


@pytest.mark.parametrize("name", where({"uninformative"}))
def test_an_uninformative_modality_tells_nothing(name):
    assert alone(name, "video") < NOTHING
    assert alone(name, "audio") > 0.3


def test_either_modality_of_xor_tells_nothing_and_both_tell_all():
    assert alone("xor", "audio") < NOTHING
    assert alone("xor", "video") < NOTHING
    assert together("xor") > 0.4


def test_a_mark_is_right_in_train_and_in_three_of_ten_validation_samples():
    problem = PROBLEMS["shortcut_ood"](LARGE, SEED)
    shown = problem.inputs["audio"][:, :8].argmax(1)
    agrees = shown == problem.labels

    assert agrees[problem.train].all()
    assert agrees[problem.val].mean() == pytest.approx(0.3 + 0.7 / 8, abs=0.03)
    assert alone("shortcut_ood", "video") > alone("shortcut_ood", "audio") + 0.2
    assert alone("shortcut_ood", "video") > together("shortcut_ood"), "the mark does harm"


def test_the_mark_of_the_fair_shortcut_is_right_everywhere():
    problem = PROBLEMS["shortcut_iid"](LARGE, SEED)

    assert (problem.inputs["audio"][:, :8].argmax(1) == problem.labels).all()


@pytest.mark.parametrize(("modality", "told"), [("audio", range(4)), ("video", range(4, 8))])
def test_each_modality_of_the_class_specific_problem_tells_its_half_of_the_classes(modality, told):
    problem = PROBLEMS["class_specific"](LARGE, SEED)
    said, label = read_out(problem, [modality], steps=350)
    known = np.isin(label, list(told))

    assert (said.argmax(1) == label)[known].mean() > 0.85
    assert (said.argmax(1) == label)[~known].mean() < 0.45


def test_a_network_learns_the_overfitting_modality_by_heart_on_the_usual_sample():
    problem = PROBLEMS["overfit"](Sizes(), SEED)
    told = readout(problem, ["video"], steps=300)

    assert problem.inputs["video"].shape[1] == 400
    assert told < 0.93, "else there is nothing left to overfit"
    assert problem.num_train < 6 * problem.inputs["video"].shape[1]


def test_label_noise_has_the_planted_rate():
    problem = PROBLEMS["labelnoise"](LARGE, SEED)
    said, label = read_out(problem, ["video"], steps=350)

    # Of what v shows, 0.4 + 0.6 / 8 agrees with the label.
    assert (said.argmax(1) == label).mean() == pytest.approx(0.475, abs=0.06)


@pytest.mark.parametrize(("name", "share"), [("misaligned_some", 0.25), ("misaligned_most", 0.6)])
def test_so_many_training_pairs_are_torn_apart_and_no_validation_pair(name, share):
    problem = PROBLEMS[name](LARGE, SEED)
    x, y = problem.inputs["video"], problem.labels
    centres = np.stack([x[problem.val][y[problem.val] == c].mean(0) for c in range(8)])
    nearest = ((x[:, None] - centres) ** 2).sum(2).argmin(1)
    right = nearest == y
    whole = right[problem.val].mean()

    assert right[problem.train].mean() == pytest.approx(whole * (1 - share) + share / 8, abs=0.03)


@pytest.mark.parametrize("name", ["missing_balanced", "missing_starved"])
def test_two_in_ten_samples_lack_a_modality_whatever_their_label(name):
    problem = PROBLEMS[name](LARGE, SEED)
    gone = ~problem.present["video"]
    by_class = [gone[problem.labels == c].mean() for c in range(problem.num_classes)]

    assert gone.mean() == pytest.approx(0.2, abs=0.02)
    assert max(by_class) - min(by_class) < 0.08


def test_only_the_validation_split_of_the_imbalanced_problem_is_imbalanced():
    problem = PROBLEMS["imbalanced_val"](LARGE, SEED)
    shares = [np.bincount(problem.labels[part]) for part in (problem.train, problem.val)]
    train, val = (counts / counts.sum() for counts in shares)

    assert train.max() < 0.16
    assert val.max() > 0.5


def test_labels_get_worse_with_the_row_and_only_on_train():
    clean = PROBLEMS["drifting_labels"](LARGE, SEED)
    x, y = np.concatenate(list(clean.inputs.values()), axis=1), clean.labels
    centres = np.stack([x[clean.val][y[clean.val] == c].mean(0) for c in range(8)])
    wrong = ((x[:, None] - centres) ** 2).sum(2).argmin(1) != y
    first, last = wrong[:1000].mean(), wrong[4000:5000].mean()

    assert first < 0.1
    assert last > 0.25
    assert wrong[clean.val].mean() < 0.05


def test_half_of_the_samples_of_the_prior_problem_are_of_one_class():
    problem = PROBLEMS["prior"](LARGE, SEED)

    assert np.bincount(problem.labels).max() / len(problem.labels) == pytest.approx(0.5, abs=0.02)


def test_problems_are_a_function_of_name_and_seed():
    for make in PROBLEMS.values():
        one, again, other = make(Sizes(50, 20), 3), make(Sizes(50, 20), 3), make(Sizes(50, 20), 4)
        for m in one.modalities:
            assert np.array_equal(one.inputs[m], again.inputs[m])
            assert not np.array_equal(one.inputs[m], other.inputs[m])


def test_every_scenario_is_in_the_grid_and_seeds_are_kept_apart():
    assert len(SCENARIOS) == 17
    assert {cell.problem for cell in all_cells()} == {*SCENARIOS, *CONDITIONS}
    assert len(set(all_cells())) == len(all_cells())
    assert not set(TUNING_SEEDS) & set(REPORTING_SEEDS)
    assert not set(RANDOM_TUNING_SEEDS) & set(RANDOM_REPORTING_SEEDS)
    assert len(RANDOM_REPORTING_SEEDS) == 60


def test_few_samples_of_a_random_problem_are_the_first_of_the_many():
    drawn = [drawn_problem(seed) for seed in RANDOM_TUNING_SEEDS]
    for one in drawn:
        assert len(one.few.labels) == one.many.num_train + one.num_few
        for m, inputs in one.few.inputs.items():
            assert np.array_equal(inputs, one.many.inputs[m][: len(inputs)])

    assert {one.many.num_classes for one in drawn} == {4, 8, 16}
    assert {one.num_few for one in drawn} == {300, 1000}
    assert {len(one.many.inputs) for one in drawn} == {2, 3}


def test_a_truth_wants_the_code_and_exactly_the_modalities():
    truth = Truth(STARVED, frozenset({"video"}))

    assert truth.accepts("neglected", frozenset({"video"}))
    assert not truth.accepts("neglected", frozenset({"audio"}))
    assert not truth.accepts("neglected", frozenset({"audio", "video"}))
    assert not truth.accepts("low-information", frozenset({"video"}))
    assert Truth(HEALTHY).accepts("balanced-redundant", frozenset({"video"}))
    assert Truth(HEALTHY).is_healthy
    assert not truth.is_healthy
