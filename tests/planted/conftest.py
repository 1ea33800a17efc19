"""Planted problems: the whole grid takes an hour or more, so only `-m planted` runs it."""

import pytest
import torch


def pytest_collection_modifyitems(config, items):
    if "planted" in (config.option.markexpr or ""):
        return
    asked_for = [item for item in items if item.get_closest_marker("planted")]
    if asked_for:
        config.hook.pytest_deselected(items=asked_for)
        items[:] = [item for item in items if item not in asked_for]


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
