import zipfile
from pathlib import Path

import numpy as np
import pytest

from mmtool.errors import SourceError
from mmtool.media.decode import decode
from mmtool.prepare.api import Clip
from mmtool.prepare.loader import load_preparer, parse_options
from mmtool.prepare.pipeline import prepare
from mmtool.prepare.request import PrepareRequest
from mmtool.store.reader import open_store

PREPARER = load_preparer("mhealth")
OPTIONS = parse_options(PREPARER, {})
README = """Each file contains the samples (by rows) recorded for all sensors (by columns).

Column 1: acceleration from the chest sensor (X axis)
Column 4: electrocardiogram signal (lead 1)
Column 6: acceleration from the left-ankle sensor (X axis)
Column 15: acceleration from the right-lower-arm sensor (X axis)
Column 24: Label (0 for the null class)
"""


def read(root: Path) -> list[Clip]:
    return list(PREPARER.clips(root, OPTIONS))


def text(*stretches: tuple[int, float], more: float = 0.0) -> str:
    """Give rows of 50 Hz; a value is its column, counted from 1, plus 0.01 per second."""
    lines = []
    for label, seconds in stretches:
        for _ in range(round(50 * seconds)):
            at_s = len(lines) / 50
            lines.append(
                "\t".join([*(f"{n + at_s / 100 + more:.5f}" for n in range(1, 24)), str(label)])
            )
    return "\n".join(lines) + "\n"


SHORT = text((0, 2.0), (1, 6.0), (0, 1.0))


def write(root: Path, **special: str) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    for number in range(1, 11):
        path = root / f"mHealth_subject{number}.log"
        short = text((0, 2.0), (1, 6.0), (0, 1.0), more=(number - 1) / 100)
        path.write_text(special.get(f"s{number}", short))
    (root / "README.txt").write_text(README)
    return root


def test_what_lies_between_exercises_takes_no_part(tmp_path):
    root = write(tmp_path, s2=text((0, 20.0), (12, 8.0), (0, 20.0)))
    names = PREPARER.classes(root, OPTIONS)

    clips = [clip for clip in read(root) if clip.group == "02"]

    assert {names[clip.label] for clip in clips} == {"jump front and back"}
    starts_s = [clip.sources["ecg"].start_s for clip in clips]
    assert min(starts_s) >= 20 - 0.2 * 5.12
    assert max(starts_s) + 5.12 <= 28 + 0.2 * 5.12


def test_the_sensors_are_the_columns_the_release_says(tmp_path):
    root = write(tmp_path)
    clip = read(root)[0]
    columns = PREPARER.columns(root, OPTIONS)

    shapes = {"chest": (1, 4), "ecg": (4, 6), "ankle": (6, 15), "arm": (15, 24)}
    for name, (first, end) in shapes.items():
        found = decode(clip.sources[name], columns[name].spec).array
        assert found.shape == (256, end - first)
        expected = np.arange(first, end) + clip.sources[name].start_s / 100
        np.testing.assert_allclose(found[0], expected, atol=1e-4)


def test_the_readme_is_believed_where_it_contradicts(tmp_path):
    root = write(tmp_path)
    (root / "README.txt").write_text(README.replace("Column 4: electro", "Column 2: electro"))

    with pytest.raises(SourceError, match=r"column 2 is 'electrocardiogram signal") as caught:
        read(root)
    assert "README.txt" in str(caught.value)


def test_subjects_are_apart_and_every_one_is_tested_once(tmp_path):
    split = {clip.group: clip.split for clip in read(write(tmp_path))}

    assert {n: s["holdout"] for n, s in split.items() if s["holdout"] != "train"} == {
        "08": "val",
        "09": "test",
        "10": "test",
    }
    for number in range(1, 11):
        tested = [n for n, s in split.items() if s[f"subject-{number:02d}"] == "test"]
        assert tested == [f"{number:02d}"]


def test_an_archive_becomes_a_store(tmp_path):
    root = write(tmp_path / "MHEALTHDATASET")
    (tmp_path / "zip").mkdir()
    with zipfile.ZipFile(tmp_path / "zip" / "MHEALTHDATASET.zip", "w") as archive:
        for path in sorted(root.iterdir()):
            archive.write(path, path.relative_to(tmp_path).as_posix())

    made = prepare(PrepareRequest("mhealth", tmp_path / "zip", tmp_path / "out"), lambda _: None)

    with open_store(made.path) as store:
        assert store.modalities == ("ankle", "arm", "chest", "ecg")
        assert store.index.num_rows == len(read(root))
        assert len(store.classes) == 12


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            SHORT + SHORT.splitlines()[0].rpartition("\t")[0] + "\t13\n",
            r"the activity 13 is unknown",
        ),
        (SHORT + "1\t2\n", r"line 451 has 2 columns instead of 24"),
        ("", r"has no rows"),
    ],
)
def test_a_log_that_contradicts_the_layout_is_refused(tmp_path, content, said):
    with pytest.raises(SourceError, match=said) as caught:
        read(write(tmp_path, s7=content))
    assert "mHealth_subject7.log" in str(caught.value)
