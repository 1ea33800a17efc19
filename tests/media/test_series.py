import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from mmtool.media.decode import decode as decode_with_facts
from mmtool.media.failure import MediaError
from mmtool.media.records import parse_rows
from mmtool.media.series import parse_csv
from mmtool.media.spec import SeriesSpec, Source


def decode(source, spec):
    return decode_with_facts(source, spec).array


SPEC = SeriesSpec()


@pytest.fixture
def written(tmp_path):
    def write(content: str | bytes | np.ndarray, name: str = "a.csv") -> Source:
        path = tmp_path / name
        if isinstance(content, np.ndarray):
            np.save(path, content)
        else:
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        return Source(path)

    return write


@given(
    values=arrays(
        np.float64,
        array_shapes(min_dims=2, max_dims=2, max_side=5),
        elements=st.floats(-1e6, 1e6),
    ),
    delimiter=st.sampled_from([",", ";", "\t", " ", ", "]),
    header=st.booleans(),
    ending=st.sampled_from(["\n", "\r\n", "\n\n"]),
)
def test_tables_give_back_what_was_written(values, delimiter, header, ending):
    lines = [delimiter.join(repr(float(v)) for v in row) for row in values]
    names = [f"c{i}" for i in range(values.shape[1])]
    text = ending.join([delimiter.join(names), *lines] if header else lines)

    found, found_names, _ = parse_csv(text, "a")

    np.testing.assert_array_equal(found, values)
    assert found_names == (tuple(names) if header else ())


@pytest.mark.parametrize(
    "text",
    [
        "x;y\n1,5;2\n3;4,25\n",
        "1.5\t2\n3\t4.25",
        "# made by hand\n1.5,2,\n3,4.25,\n",
        "1.5  2\n3   4.25",
    ],
    ids=["decimal comma", "tabs", "comment and trailing commas", "runs of blanks"],
)
def test_the_delimiter_is_found(written, text):
    found = decode(written(text), SPEC)

    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, [[1.5, 2.0], [3.0, 4.25]])


def test_one_axis_becomes_one_channel_and_steps_are_cut(written):
    found = decode(written(np.arange(9), "a.npy"), SeriesSpec(dtype="float16", max_steps=4))

    assert found.dtype == np.float16
    assert found.tolist() == [[0], [1], [2], [3]]


def test_a_row_of_an_array_of_windows_is_one_series(written):
    windows = np.arange(24.0).reshape(2, 4, 3)
    path = written(windows, "a.npy").path

    np.testing.assert_array_equal(decode(Source(path, row=1), SPEC), windows[1])


def test_tables_and_arrays_are_read_from_archives(tmp_path):
    buffer = io.BytesIO()
    np.save(buffer, np.ones((2, 2)))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.csv", "1,1\n1,1\n")
        archive.writestr("a.npy", buffer.getvalue())

    for member in ("a.csv", "a.npy"):
        assert decode(Source(tmp_path / "a.zip", member), SPEC).tolist() == [[1, 1], [1, 1]]


@pytest.mark.parametrize(
    ("content", "reason", "words"),
    [
        ("t,x\n0,1\n1,nan\n", "non-finite", r":3: column 2 'x' is 'nan'"),
        ("0,1\n,2\n", "non-finite", r":2: column 1 is 'empty'"),
        ("0,1\n1,-inf\n", "non-finite", r":2: column 2 is '-inf'"),
        ("0,1\n1,2,3\n", "decode-error", ":2: 3 columns, the rows above have 2"),
        ("0,1\n1,high\n", "decode-error", ":2: column 2 is 'high', not a number"),
        ("t,x\n", "too-short", "header but no rows"),
        ("\n \n", "empty", "no rows"),
        ("1e39\n", "non-finite", "too large for float32"),
        ("<html><body>404</body></html>", "not-media", "web page"),
        (b"", "empty", "empty"),
        (np.array([[1.0, 2.0], [np.nan, np.inf]]), "non-finite", r"row 1 column 1 is nan \(2 such"),
        (np.zeros((2, 2, 2)), "decode-error", "3 axes"),
        (np.array(["a"]), "decode-error", "numbers were expected"),
        (np.zeros((0, 3)), "too-short", "no rows"),
        (b"\x93NUMPY\x01\x00garbage", "decode-error", "plain npy"),
    ],
)
def test_what_is_no_series_says_where_and_why(written, content, reason, words):
    with pytest.raises(MediaError, match=words) as caught:
        decode(written(content), SPEC) if isinstance(content, str | bytes) else decode(
            written(content, "a.npy"), SPEC
        )

    assert caught.value.reason == reason


def test_pickled_objects_are_never_loaded(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)

    with pytest.raises(MediaError, match="save it with a numeric dtype") as caught:
        decode(Source(tmp_path / "a.npy"), SPEC)

    assert caught.value.reason == "decode-error"


def test_a_constant_series_is_flagged(written):
    constant = decode_with_facts(written(np.ones((4, 2)), "a.npy"), SPEC)
    varying = decode_with_facts(written(np.eye(2), "b.npy"), SPEC)

    assert constant.facts.flags == ("constant",)
    assert varying.facts.flags == ()


@pytest.mark.parametrize("ending", ["txt", "npy"])
def test_a_row_of_several_files_is_one_series_of_several_channels(tmp_path, ending):
    windows = np.random.default_rng(0).normal(size=(3, 5, 8)).astype(np.float32)
    paths = []
    for axis, values in zip("xyz", windows, strict=True):
        paths.append(tmp_path / f"total_acc_{axis}.{ending}")
        if ending == "npy":
            np.save(paths[-1], values)
        else:
            np.savetxt(paths[-1], values, fmt=" %15.7e")

    found = decode(Source(paths[0], parts=tuple(paths[1:]), row=2), SPEC)

    assert found.shape == (8, 3)
    np.testing.assert_allclose(found, windows[:, 2].T, rtol=1e-6)


def test_whole_files_are_put_side_by_side_if_they_are_equally_long(written):
    one, two = written("1,2\n3,4\n", "a.csv"), written("5\n6\n", "b.csv")
    three = written("7\n", "c.csv")

    assert decode(Source(one.path, parts=(two.path,)), SPEC).tolist() == [[1, 2, 5], [3, 4, 6]]
    with pytest.raises(MediaError, match=r"\[2, 1\] steps"):
        decode(Source(one.path, parts=(three.path,)), SPEC)


@given(
    values=arrays(np.float32, array_shapes(min_dims=2, max_dims=2, max_side=6),
                  elements=st.floats(-1e6, 1e6, width=32)),
    blank=st.sampled_from([" ", "  ", "\t", ",", ", "]),
    ending=st.sampled_from(["\n", "\r\n", "\n\n"]),
)  # fmt: skip
def test_rows_of_numbers_come_back(values, blank, ending):
    text = ending.join(blank.join(repr(float(v)) for v in row) for row in values)

    np.testing.assert_array_equal(parse_rows(text.encode(), "a"), values)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1 2\n3\n4 5 6\n", "a:2: 1 columns, the rows above have 2"),
        ("1 2\n3 x\n", "numbers alone"),
        (" \n", "no rows"),
    ],
)
def test_rows_that_are_no_numbers_say_where(text, words):
    with pytest.raises(MediaError, match=words):
        parse_rows(text.encode(), "a")


def test_lost_values_become_zero_where_the_column_says_so(written):
    spec = SeriesSpec(replace_non_finite=True)

    table = decode_with_facts(written("t,x\n0,1\n1,\n2,inf\n"), spec)
    clean = decode_with_facts(written("t,x\n0,1\n1,2\n", "b.csv"), spec)

    assert table.array.tolist() == [[0, 1], [1, 0], [2, 0]]
    assert table.facts.flags == ("replaced",)
    assert clean.facts.flags == ()


def test_real_windows_of_three_files(kit, tmp_path):
    with zipfile.ZipFile(next((kit / "uci_har_subset").glob("*.zip"))) as archive:
        names = [n for n in archive.namelist() if "total_acc" in n and n.endswith("test.txt")]
        paths = [Path(archive.extract(name, tmp_path)) for name in sorted(names)]

    found = decode(Source(paths[0], parts=tuple(paths[1:]), row=17), SPEC)

    assert found.shape == (128, 3)
    expected = [float(word) for word in paths[2].read_text().splitlines()[17].split()]
    np.testing.assert_allclose(found[:, 2], expected, rtol=1e-6)
