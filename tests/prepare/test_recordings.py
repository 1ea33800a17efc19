from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmtool.errors import SourceError
from mmtool.prepare.api import Clip, Source, WindowOptions, labels_of_numbers, window_clips

WHOLE = Clip("run", 0, {"hand": Source(Path("f"), key="hand")}, {"all": "train"}, group="s1")


@given(
    labels=st.lists(st.integers(-1, 2), min_size=1, max_size=40),
    begin_s=st.sampled_from([0.0, 3.5, 1_657_533_977.864]),
)
def test_every_window_is_one_clip_of_its_label_with_all_else_as_in_the_recording(labels, begin_s):
    options = WindowOptions(window_s=2.0, stride_s=1.0, min_share=1.0)
    times_s = begin_s + np.arange(len(labels)) / 4

    found = list(window_clips(WHOLE, times_s, labels, options))

    whole_windows = [labels[4 * n : 4 * n + 8] for n in range(len(labels) // 4 - 1)]
    wanted = [(n, rows[0]) for n, rows in enumerate(whole_windows) if set(rows) in ({0}, {1}, {2})]
    assert [(clip.id, clip.label) for clip in found] == [
        (f"run_{1000 * n:08d}", label) for n, label in wanted
    ]
    for clip, (n, _) in zip(found, wanted, strict=True):
        source = clip.sources["hand"]
        assert source.start_s == pytest.approx(begin_s + n, abs=1e-6)
        assert source.end_s == pytest.approx(begin_s + n + 2, abs=1e-6)
        assert (source.key, clip.split, clip.group) == ("hand", {"all": "train"}, "s1")


def test_numbers_become_labels_and_an_unknown_one_is_refused_with_its_row():
    known = {0: -1, 7: 0, 24: 1}
    np.testing.assert_array_equal(
        labels_of_numbers(np.array([24.0, 0, 7, 7]), known, "f.dat"), [1, -1, 0, 0]
    )

    for wrong in (5.0, 7.5, np.nan):
        with pytest.raises(SourceError, match=r"is unknown") as caught:
            labels_of_numbers(np.array([0.0, 7, wrong]), known, "f.dat")
        assert "f.dat, row 3" in str(caught.value)
        assert f"{wrong:g}" in str(caught.value)
