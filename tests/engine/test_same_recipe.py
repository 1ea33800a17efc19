"""A run goes on under the recipe it was begun with, also if that is older than a key."""

from mmtool.engine.same_recipe import changes, recorded
from mmtool.testing.cases import contract_recipe


def test_a_checkpoint_from_before_there_were_tasks_goes_on_as_single_label():
    recipe = contract_recipe("none")
    before = {key: value for key, value in recorded(recipe).items() if key != "data.task"}

    assert changes(before, recipe) == []
    assert changes(before, contract_recipe("none", task="multi_label")) == [
        'data.task: "single_label" -> "multi_label"'
    ]


def test_another_task_is_another_experiment():
    before = recorded(contract_recipe("none", task="regression"))

    assert any("data.task" in change for change in changes(before, contract_recipe("none")))
