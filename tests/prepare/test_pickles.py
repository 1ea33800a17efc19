import pickle

import numpy as np

from mmtool.prepare.api import read_pickle


def test_a_pickle_is_kept_for_the_next_caller_unless_it_is_said_otherwise(tmp_path):
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps({"x": np.arange(3)}))

    assert read_pickle(path) is read_pickle(path)
    once = read_pickle(path, keep=False)
    assert once is not read_pickle(path)
    np.testing.assert_array_equal(once["x"], [0, 1, 2])
