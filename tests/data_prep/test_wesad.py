import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmtool.errors import RequestError, SourceError
from mmtool.media.decode import decode
from mmtool.prepare.api import Clip
from mmtool.prepare.loader import load_preparer, parse_options
from mmtool.prepare.pipeline import prepare
from mmtool.prepare.request import PrepareRequest
from mmtool.store.reader import open_store

PREPARER = load_preparer("wesad")
SUBJECTS = [f"S{n}" for n in range(2, 18) if n != 12]
WRIST_HZ = {"ACC": 32, "BVP": 64, "EDA": 4, "TEMP": 4}
QUICK = {"window_s": "2", "stride_s": "2"}


def read(root: Path, **options: str) -> list[Clip]:
    return list(PREPARER.clips(root, parse_options(PREPARER, {**QUICK, **options})))


def subject(*stretches: tuple[int, int], number: int = 0) -> dict[str, Any]:
    """Give a subject whose signals are the second since the begin, plus `number`."""
    seconds = sum(s for _, s in stretches)

    def ramp(rate_hz: int, width: int) -> np.ndarray:
        return np.repeat(np.arange(seconds * rate_hz)[:, None] / rate_hz + number, width, axis=1)

    chest = {name: ramp(700, 3 if name == "ACC" else 1) for name in
             ("ACC", "ECG", "EMG", "EDA", "Temp", "Resp")}  # fmt: skip
    wrist = {name: ramp(hz, 3 if name == "ACC" else 1) for name, hz in WRIST_HZ.items()}
    label = np.concatenate([np.full(700 * s, n, np.int32) for n, s in stretches])
    return {"signal": {"chest": chest, "wrist": wrist}, "label": label, "subject": "S2"}


def write(root: Path, protocol: int = 2, **special: dict[str, Any]) -> Path:
    for number, name in enumerate(SUBJECTS):
        (root / name).mkdir(parents=True)
        content = special.get(name) or subject((1, 2), (2, 2), number=number)
        (root / name / f"{name}.pkl").write_bytes(pickle.dumps(content, protocol))
    return root


def test_states_that_are_none_of_the_classes_take_no_part(tmp_path):
    stretches = ((0, 4), (1, 4), (5, 4), (2, 4), (4, 4), (3, 4), (7, 4))
    root = write(tmp_path, S2=subject(*stretches))

    def labels(**options: str) -> list[str]:
        names = PREPARER.classes(root, parse_options(PREPARER, options))
        return [names[clip.label] for clip in read(root, **options) if clip.group == "S2"]

    assert labels() == ["baseline"] * 2 + ["stress"] * 2 + ["amusement"] * 2
    assert labels(classes="binary") == ["no stress"] * 2 + ["stress"] * 2 + ["no stress"] * 2


def test_all_signals_show_the_same_time_whatever_their_rate(tmp_path):
    root = write(tmp_path, S2=subject((0, 3), (1, 6)))
    options = parse_options(PREPARER, QUICK)
    clip = [clip for clip in read(root) if clip.group == "S2"][1]

    rates_hz = {"chest": 140, **{f"wrist_{n.lower()}": hz for n, hz in WRIST_HZ.items()}}
    for name, column in PREPARER.columns(root, options).items():
        found = decode(clip.sources[name], column.spec).array
        width = {"chest": 8, "wrist_acc": 3}.get(name, 1)
        assert found.shape == (2 * rates_hz[name], width)
        expected = clip.sources[name].start_s + np.arange(len(found)) / rates_hz[name]
        np.testing.assert_allclose(found[:, 0], expected, atol=1e-3)


def test_the_chest_is_averaged_and_not_merely_thinned_out(tmp_path):
    content = subject((1, 4))
    content["signal"]["chest"]["ECG"] = np.tile([[1.0], [-1.0]], (1400, 1))
    root = write(tmp_path, S2=content)
    spec = PREPARER.columns(root, parse_options(PREPARER, {"chest_hz": "70"}))["chest"].spec

    clip = read(root, chest_hz="70")[0]
    assert np.abs(decode(clip.sources["chest"], spec).array[:, 3]).max() < 1e-6


@pytest.mark.parametrize("chest_hz", ["300", "0", "1400"])
def test_a_rate_that_does_not_divide_is_refused(chest_hz):
    with pytest.raises(RequestError, match=r"chest_hz"):
        parse_options(PREPARER, {"chest_hz": chest_hz})


@pytest.mark.parametrize("protocol", [0, 2])
def test_pickles_of_every_age_become_a_store_of_five_modalities(tmp_path, protocol):
    root = write(tmp_path / "WESAD", protocol)

    made = prepare(
        PrepareRequest("wesad", tmp_path, tmp_path / "out", options=QUICK), lambda _: None
    )

    with open_store(made.path) as store:
        assert len(store.modalities) == 5
        assert store.index.num_rows == len(read(root)) == 2 * len(SUBJECTS)
        assert len(store.index.rows("test")) == 4
        assert len(store.index.rows("test", "subject-S2")) == 2


def drop(content: dict[str, Any], place: str, name: str) -> dict[str, Any]:
    content["signal"][place].pop(name)
    return content


def shorten(content: dict[str, Any]) -> dict[str, Any]:
    content["signal"]["wrist"]["BVP"] = content["signal"]["wrist"]["BVP"][::2]
    return content


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"signal": {}}, r"it has no signal and label"),
        (drop(subject((1, 2)), "chest", "Temp"), r"signal/chest has no Temp"),
        (shorten(subject((1, 40))), r"wrist/BVP: at 64 Hz it lasts 20 s, the labels 40 s"),
        (subject((1, 2), (9, 2)), r"the activity 9 is unknown"),
    ],
)
def test_a_pickle_that_contradicts_the_release_is_refused(tmp_path, content, said):
    with pytest.raises(SourceError, match=said) as caught:
        read(write(tmp_path, S3=content))
    assert "S3.pkl" in str(caught.value)


def test_a_pickle_that_brings_code_is_not_run(tmp_path):
    root = write(tmp_path)
    (root / "S4" / "S4.pkl").write_bytes(b"cos\nsystem\n(S'touch ran'\ntR.")

    with pytest.raises(SourceError, match=r"S4.pkl is not a pickle that can be read"):
        read(root)
