"""Files of a report are whole or not there, and what cannot be written does not cost the report."""

import os
import subprocess
from pathlib import Path

import pytest

from mmtool.cli.report_files import write_whole
from mmtool.errors import NotWritable


def left_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_missing_folder_is_made(tmp_path: Path) -> None:
    write_whole(tmp_path / "a" / "b" / "page.html", b"x")
    assert (tmp_path / "a" / "b" / "page.html").read_bytes() == b"x"
    assert left_in(tmp_path / "a" / "b") == {"page.html"}


def test_a_folder_in_the_place_of_the_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotWritable, match="it is a folder"):
        write_whole(tmp_path, b"x")
    assert left_in(tmp_path) == set()


def test_a_file_in_the_place_of_the_folder_is_refused_with_its_path(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("in the way", encoding="utf-8")
    with pytest.raises(NotWritable) as refused:
        write_whole(tmp_path / "a" / "page.html", b"x")
    assert refused.value.where.endswith("a/page.html")
    assert (tmp_path / "a").read_text(encoding="utf-8") == "in the way"


@pytest.fixture
def small_disk(tmp_path: Path):
    """A file system of 64 KiB."""
    place = tmp_path / "disk"
    place.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(words, check=False, capture_output=True).returncode:
        pytest.skip("a file system cannot be mounted here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_on_a_full_disk_what_stood_there_stays(small_disk: Path) -> None:
    page = small_disk / "page.html"
    write_whole(page, b"before")
    with pytest.raises(NotWritable, match="No space left") as refused:
        write_whole(page, b"x" * 200_000)
    assert refused.value.exit_code == 74
    assert page.read_bytes() == b"before"
    assert left_in(small_disk) == {"page.html"}


def test_a_read_only_file_system_is_refused(small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(NotWritable, match="Read-only file system"):
        write_whole(small_disk / "page.html", b"x")
    with pytest.raises(NotWritable, match="Read-only file system"):
        write_whole(small_disk / "new" / "page.html", b"x")
