"""A verdict on a running job changes only when it has been another one for three epochs."""

from typing import Any

from mmtool.diagnose.steady import Judgement, SteadyVerdict, judgement_of

BALANCED, NEGLECTED = Judgement("balanced"), Judgement("neglected", ("audio",))


def seen(*codes: Judgement) -> SteadyVerdict:
    steady = SteadyVerdict()
    for epoch, code in enumerate(codes):
        steady.see(epoch, code)
    return steady


def test_two_epochs_are_no_verdict() -> None:
    steady = seen(BALANCED, BALANCED)
    assert steady.held is None
    assert steady.words == "no verdict yet: balanced in 2 of 3 epochs one after the other"


def test_three_epochs_one_after_the_other_are() -> None:
    assert seen(BALANCED, BALANCED, BALANCED).held == BALANCED
    assert seen(BALANCED, BALANCED, NEGLECTED, BALANCED).held is None


def test_a_verdict_holds_until_another_one_lasted() -> None:
    three = (BALANCED,) * 3
    assert seen(*three, NEGLECTED, NEGLECTED).held == BALANCED
    assert seen(*three, NEGLECTED, NEGLECTED).words == (
        "balanced; neglected audio in 2 of 3 epochs one after the other"
    )
    assert seen(*three, NEGLECTED, BALANCED, NEGLECTED, NEGLECTED).held == BALANCED
    assert seen(*three, NEGLECTED, NEGLECTED, NEGLECTED).held == NEGLECTED


def test_an_epoch_counts_once_however_often_it_is_looked_at() -> None:
    steady = SteadyVerdict()
    for _ in range(5):
        steady.see(4, BALANCED)
    assert steady.held is None


def test_the_same_code_on_another_modality_is_another_verdict() -> None:
    report: dict[str, Any] = {"metrics": {"verdict": {"code": "neglected", "modalities": ["a"]}}}
    other: dict[str, Any] = {"metrics": {"verdict": {"code": "neglected", "modalities": ["b"]}}}
    assert judgement_of(report) != judgement_of(other)
    assert judgement_of(report).words == "neglected a"


def test_without_a_verdict_the_first_finding_stands_for_it() -> None:
    assert judgement_of({"findings": [{"rule": "straggler"}]}).code == "straggler"
    assert judgement_of({}).code == "nothing found"
