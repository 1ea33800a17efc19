from pathlib import Path

import pytest

from mmtool.prepare.editions import edition_of, likeness, locate, not_found

FIRST = {"clips": ("wav/*.wav", "list.csv"), "features": ("all.pkl",)}
OTHER = {"release": ("videos/*.mp4",)}


@pytest.fixture
def release(tmp_path: Path) -> Path:
    root = tmp_path / "download" / "Release_v1"
    (root / "wav").mkdir(parents=True)
    (root / "wav" / "a.wav").touch()
    (root / "list.csv").touch()
    return root


def test_an_edition_needs_all_its_markers(release: Path) -> None:
    assert edition_of(release, FIRST) == "clips"
    (release / "list.csv").unlink()
    assert edition_of(release, FIRST) == ""
    (release / "all.pkl").touch()
    assert edition_of(release, FIRST) == "features"


def test_a_release_is_found_where_the_archive_put_it(release: Path, tmp_path: Path) -> None:
    found = locate(tmp_path, FIRST)
    assert found is not None
    assert (found.root, found.edition) == (release, "clips")
    assert locate(release / "wav", FIRST) is None


def test_what_macos_adds_is_no_marker(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "._a.mp4").touch()
    assert locate(tmp_path, OTHER) is None


def test_a_folder_of_another_dataset_names_it(release: Path) -> None:
    error = not_found(release, "other", OTHER, {"first": FIRST, "other": OTHER})
    assert "looked for release: videos/*.mp4" in error.why
    assert "found list.csv, wav/" in error.why
    assert error.fix == f"mmtool prepare first --source {release}"


def test_an_incomplete_release_says_what_is_missing(release: Path) -> None:
    (release / "list.csv").unlink()
    assert likeness(release, FIRST) == 0.5
    error = not_found(release, "first", FIRST, {"first": FIRST})
    assert "incomplete first: list.csv missing" in error.why
    assert "complete the release" in error.fix


def test_an_empty_folder_is_called_empty(tmp_path: Path) -> None:
    assert "found an empty folder" in not_found(tmp_path, "other", OTHER, {}).why
