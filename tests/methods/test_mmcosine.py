"""MMCosine is a head; the method itself only asks for it."""

import pytest

from mmtool.engine.build import build_job
from mmtool.engine.distributed import Ranks
from mmtool.errors import RequestError
from mmtool.methods.mmcosine import Method
from mmtool.testing.cases import Case, contract_recipe, write_contract_store
from mmtool.testing.training import train_here


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mmcosine")
    write_contract_store(folder / "fake")
    return folder


def test_it_asks_for_the_cosine_fusion():
    assert Method.needs.fusions == {"cosine"}


def test_another_fusion_is_refused_with_the_setting_to_paste(root):
    with pytest.raises(RequestError, match="concat") as caught:
        build_job(contract_recipe("mmcosine", Case(fusion="concat")), Ranks(), data_root=root)
    assert caught.value.fix == "-s model.fusion=cosine"


def test_it_is_joint_training_with_that_fusion(root, tmp_path):
    case = Case(fusion="cosine")
    cosine = train_here(contract_recipe("mmcosine", case), data_root=root, checkpoints=tmp_path)
    joint = train_here(contract_recipe("none", case), data_root=root, checkpoints=tmp_path)

    assert all((cosine[name] == joint[name]).all() for name in joint)
