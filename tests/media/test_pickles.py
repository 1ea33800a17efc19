import builtins
import functools
import gzip
import io
import os
import pickle
import threading
import zipfile
from collections import Counter, OrderedDict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from mmtool.media import pickles
from mmtool.media.decode import decode
from mmtool.media.failure import MediaError
from mmtool.media.pickles import read_pickle
from mmtool.media.raw import fingerprint
from mmtool.media.spec import SeriesSpec, Source

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5)
    | st.binary(max_size=5) | st.complex_numbers(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3)
    | st.tuples(inner, inner)
    | st.frozensets(st.integers(), max_size=3)
    | st.builds(OrderedDict, st.dictionaries(st.text(max_size=3), inner, max_size=2)),
    max_leaves=8,
)  # fmt: skip


def loaded(content: bytes) -> Any:
    return pickles._load(io.BytesIO(content), "a.pkl")


@given(plain, st.integers(0, 5))
def test_plain_values_come_back_whatever_the_protocol(value, protocol):
    found = loaded(pickle.dumps(value, protocol))

    assert found == value
    assert type(found) is type(value)


@given(
    arrays(
        st.sampled_from(["f4", ">f8", "i2", "?", "U3", "S2", "c8"]),
        array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3),
    ),
    st.integers(0, 5),
    st.booleans(),
)
def test_arrays_come_back_from_old_and_new_numpy(array, protocol, old):
    content = pickle.dumps({"x": array, "one": np.float32(2.5)}, protocol)
    if old and protocol < 4:
        content = content.replace(b"numpy._core", b"numpy.core")

    found = loaded(content)

    np.testing.assert_array_equal(found["x"], array)
    # numpy itself writes big-endian arrays in either order.
    assert found["x"].dtype.newbyteorder("=") == array.dtype.newbyteorder("=")
    assert found["one"] == np.float32(2.5)


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_of_objects_and_numbers_by_themselves_come_back(protocol):
    mixed = np.array([1, "x", None, [2.5], np.ones(2)], object)
    value = {"mixed": mixed, "n": np.int64(7), "y": np.bool_(True), "s": np.str_("ü"), "e": b""}

    found = loaded(pickle.dumps(value, protocol))

    assert found["mixed"][:4].tolist() == [1, "x", None, [2.5]]
    assert found["mixed"][4].tolist() == [1, 1]
    assert (found["n"], found["y"], found["s"], found["e"]) == (7, True, "ü", b"")
    assert isinstance(found["n"], np.int64)


class Calls:
    """Makes a pickle that calls a function when it is read."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.called = function, arguments

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.called


@pytest.mark.parametrize("protocol", range(6))
def test_a_program_in_a_pickle_is_named_and_never_runs(tmp_path, protocol):
    marker = tmp_path / "marker"
    touch = f"touch {marker}"
    programs = {
        f"{os.system.__module__}.system": Calls(os.system, touch),
        "builtins.eval": Calls(eval, f"open({str(marker)!r}, 'w')"),
        "builtins.getattr": Calls(getattr, Calls(builtins.__import__, "os"), "system"),
        "functools.partial": Calls(functools.partial(os.system, touch)),
        "pathlib.PosixPath.touch": Calls(Path.touch, marker),
        "collections.Counter": Counter("ab"),
    }

    for name, program in programs.items():
        path = tmp_path / "a.pkl"
        path.write_bytes(pickle.dumps({"train": [np.zeros(3), program]}, protocol))
        with pytest.raises(MediaError) as caught:
            read_pickle(path)
        said = str(caught.value)
        last = name.rpartition(".")[2]
        asked = said.partition("asks for ")[2].split(";")[0].replace("__builtin__", "builtins")
        assert asked in (name, "builtins.getattr", "builtins.__import__") or last in asked
        assert str(path) in said
        assert "can run any program" in said
        assert not marker.exists()
    pickle.loads(pickle.dumps(programs[f"{os.system.__module__}.system"], protocol))
    assert marker.exists(), "the program would have run"


def test_nothing_a_pickle_does_to_the_functions_it_is_given_lasts(tmp_path):
    # BUILD with a pair sets attributes: here the defaults of the function that makes dtypes.
    poison = b"\x80\x02cnumpy\ndtype\nN}X\x0c\x00\x00\x00__defaults__K\x01K\x02\x86s\x86b."
    loaded(poison)

    array = np.arange(3.0)
    np.testing.assert_array_equal(loaded(pickle.dumps(array)), array)


@given(st.binary(max_size=60), st.integers(0, 200))
def test_damaged_pickles_end_in_an_explanation(junk, cut):
    whole = pickle.dumps({"a": np.arange(5), "b": [1, "x"]})
    for damaged in (whole[: cut % len(whole)], junk, whole[: cut % len(whole)] + junk):
        try:
            loaded(damaged)
        except (MediaError, EOFError) as error:
            assert str(error)  # noqa: PT017 - either outcome is right


def test_strings_and_numbers_of_python_2_are_read():
    # {'id': 'a\xe9', u't': 5L} as Python 2 writes it.
    content = b"\x80\x02}q\x00(U\x02idq\x01U\x02a\xe9q\x02X\x01\x00\x00\x00tq\x03\x8a\x01\x05u."

    assert loaded(content) == {"id": "aé", "t": 5}


@pytest.fixture
def release(tmp_path) -> Path:
    rng = np.random.default_rng(1)
    content = {
        "train": {"audio": rng.normal(size=(3, 5, 2)), "id": [b"v_0", b"v_1", b"v_2"]},
        b"valid": {"text": [np.ones((4, 2)), np.ones((2, 2))]},
        3: {"audio": np.full((2, 5), -np.inf)},
    }
    (tmp_path / "data.pkl").write_bytes(pickle.dumps(content))
    return tmp_path / "data.pkl"


def test_a_key_and_a_row_lead_to_one_series(release):
    train = read_pickle(release)["train"]["audio"]

    found = decode(Source(release, key="train/audio", row=1), SeriesSpec()).array
    ragged = decode(Source(release, key="valid/text/1"), SeriesSpec()).array
    same = decode(Source(release, key="valid/text", row=1), SeriesSpec()).array

    np.testing.assert_array_equal(found, train[1].astype(np.float32))
    assert ragged.tolist() == same.tolist() == [[1, 1], [1, 1]]


def test_infinity_becomes_zero_where_the_column_says_so(release):
    source = Source(release, key="3/audio", row=0)

    found = decode(source, SeriesSpec(replace_non_finite=True))

    assert found.array.tolist() == [[0]] * 5
    assert "replaced" in found.facts.flags
    with pytest.raises(MediaError) as caught:
        decode(source, SeriesSpec())
    assert caught.value.reason == "non-finite"


@pytest.mark.parametrize(
    ("key", "row", "reason", "words"),
    [
        ("tran/audio", 0, "missing", r"no 'tran'; there are: 3, b'valid', train"),
        ("train/audio", 9, "missing", "holds 3 records"),
        ("train", 0, "decode-error", "a dict, no rows"),
        ("train/id/7", None, "missing", "holds 3 entries"),
        ("train/audio/x", None, "missing", r"train/audio is an array float64 \[3, 5, 2\]"),
        ("train/id", 0, "decode-error", "numbers were expected"),
    ],
)
def test_a_wrong_key_or_row_says_what_there_is(release, key, row, reason, words):
    with pytest.raises(MediaError, match=words) as caught:
        decode(Source(release, key=key, row=row), SeriesSpec())

    assert caught.value.reason == reason
    assert str(release) in str(caught.value)


def test_rows_have_fingerprints_of_their_own(release):
    rows = [fingerprint(Source(release, key="train/audio", row=i)) for i in range(3)]

    assert len(set(rows)) == 3
    assert fingerprint(Source(release, key="valid/text/0")) not in rows


def test_zipped_pickles_and_members_of_archives_are_the_same(release, tmp_path):
    content = release.read_bytes()
    (tmp_path / "a.pkl.gz").write_bytes(gzip.compress(content))
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("in/a.pkl", content)

    for found in (
        read_pickle(tmp_path / "a.pkl.gz"),
        read_pickle(tmp_path / "a.zip", member="in/a.pkl"),
    ):
        np.testing.assert_array_equal(
            found["train"]["audio"], read_pickle(release)["train"]["audio"]
        )


def test_many_threads_read_a_file_once_and_nobody_can_change_it(release, monkeypatch):
    calls, lock = [], threading.Lock()
    read = pickles._read

    def counted(source: Source) -> Any:
        with lock:
            calls.append(source)
        return read(source)

    monkeypatch.setattr(pickles, "_read", counted)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: read_pickle(release), range(8)))

    assert len(calls) == 1
    assert all(one is found[0] for one in found)
    with pytest.raises(ValueError, match="read-only"):
        found[0][b"valid"]["text"][0][0] = 7


def test_what_is_no_pickle_is_named(tmp_path):
    for content, reason in (
        (b"", "empty"),
        (b"version https://git-lfs.github.com/spec/v1\n", "lfs-pointer"),
        (b"<html>no such file</html>", "not-media"),
        (b"a,b\n1,2\n", "decode-error"),
        (gzip.compress(pickle.dumps([1] * 99))[:14], "decode-error"),
    ):
        path = tmp_path / "a.pkl"
        path.write_bytes(content)
        with pytest.raises(MediaError, match=r"a\.pkl") as caught:
            read_pickle(path)
        assert caught.value.reason == reason
