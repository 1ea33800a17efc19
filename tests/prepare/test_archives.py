import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mmtool.errors import SourceError
from mmtool.media.spec import Source
from mmtool.prepare.archives import open_tree, read_content, read_numbers


def zipped(path: Path, **members: str) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    return path


def test_files_on_disk_and_members_of_an_archive_have_the_same_names(tmp_path):
    folder, packed = tmp_path / "folder", tmp_path / "packed"
    (folder / "Data Set" / "train").mkdir(parents=True)
    (folder / "Data Set" / "train" / "y.txt").write_text("1")
    (folder / "Data Set" / "train" / "._y.txt").write_text("junk")
    packed.mkdir()
    members = {"Data Set/train/y.txt": "1", "__MACOSX/train/y.txt": "junk", "other/z.txt": ""}
    zipped(packed / "set.zip", **members)

    trees = [open_tree(root, "train/*.txt") for root in (folder, packed)]

    assert [list(tree) for tree in trees] == [["train/y.txt"]] * 2
    assert [read_content(tree["train/y.txt"]) for tree in trees] == [b"1", b"1"]
    assert trees[1]["train/y.txt"].member == "Data Set/train/y.txt"


def test_a_pattern_may_name_the_folder_itself_and_a_star_stays_in_one_folder(tmp_path):
    root = tmp_path / "train"
    (root / "deep").mkdir(parents=True)
    (root / "a.txt").touch()
    (root / "deep" / "b.txt").touch()

    assert list(open_tree(root, "train/*.txt")) == ["train/a.txt"]
    assert list(open_tree(root, "*.txt")) == ["a.txt", "b.txt"]
    assert list(open_tree(root, "deep/*.txt", "a.*")) == ["a.txt", "deep/b.txt"]


def test_a_file_on_disk_goes_before_an_archive_even_a_broken_one(tmp_path):
    (tmp_path / "half.zip").write_bytes(b"PK\x03\x04")
    (tmp_path / "a.txt").touch()

    assert list(open_tree(tmp_path, "a.txt")) == ["a.txt"]
    with pytest.raises(SourceError, match=r"half.zip is not a whole zip archive"):
        open_tree(tmp_path, "b.txt")


TABLES = arrays(
    np.float64,
    st.tuples(st.integers(1, 6), st.integers(1, 5)),
    elements=st.floats(allow_nan=True, allow_infinity=False, width=64),
)


@given(
    table=TABLES,
    ending=st.sampled_from(["\n", "\r\n", " \n", "\n\n"]),
    between=st.sampled_from([" ", "\t", "  "]),
)
def test_numbers_are_read_as_they_were_written(tmp_path_factory, table, ending, between):
    path = tmp_path_factory.mktemp("table") / "t.dat"
    text = "".join(between + between.join(map(repr, row)) + ending for row in table.tolist())
    path.write_bytes(text.encode())

    np.testing.assert_array_equal(read_numbers(Source(path), table.shape[1]), table)


def test_a_header_is_passed_over_and_lines_still_count_from_the_top(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("a,b\n1,2\n3,4\n")
    found = read_numbers(Source(path), 2, delimiter=",", header_lines=1)
    np.testing.assert_array_equal(found, [[1, 2], [3, 4]])

    path.write_text("a,b\n1,2\n3\n")
    with pytest.raises(SourceError, match=r"line 3 has 1 columns instead of 2") as caught:
        read_numbers(Source(path), 2, delimiter=",", header_lines=1)
    assert "t.csv:3" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1 2\n3 x\n", r"line 2 is not numbers alone"),
        ("1 2\n3 4 5\n", r"line 2 has 3 columns instead of 2"),
        ("", r"has no rows"),
        (" \n\n", r"has no rows"),
        ("1 2\n3 4\u20ac\n", r"line 2"),
    ],
)
def test_what_is_no_table_is_refused_with_its_line(tmp_path, text, said):
    path = tmp_path / "t.dat"
    path.write_text(text, encoding="utf-8")

    with pytest.raises(SourceError, match=said) as caught:
        read_numbers(Source(path), 2)
    assert caught.value.fix


def test_a_member_that_is_not_there_is_told_to_the_user(tmp_path):
    archive = zipped(tmp_path / "a.zip", **{"x.txt": "1"})

    with pytest.raises(SourceError, match=r"a.zip!y.txt"):
        read_content(Source(archive, member="y.txt"))
