import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from mmtool.errors import SourceError
from mmtool.media.decode import decode
from mmtool.prepare.api import Clip, SeriesSpec
from mmtool.prepare.editions import locate
from mmtool.prepare.loader import load_preparer, parse_options
from mmtool.prepare.pipeline import prepare
from mmtool.prepare.request import PrepareRequest
from mmtool.store.reader import open_store

PREPARER = load_preparer("mfeat")
VIEWS = {"fac": 216, "fou": 76, "kar": 64, "mor": 6, "pix": 240, "zer": 47}
OPTIONS = parse_options(PREPARER, {})


def read(root: Path) -> list[Clip]:
    return list(PREPARER.clips(root, OPTIONS))


def values(view: str) -> np.ndarray:
    """Give rows that differ in their first number alone, so that text is made quickly."""
    found = np.tile(np.arange(VIEWS[view]) / 1000, (2000, 1))
    found[:, 0] = np.arange(2000)
    return found


def write(root: Path, form: str) -> Path:
    root.mkdir()
    for view, width in VIEWS.items():
        rest = [f"{column / 1000:.3f}" for column in range(1, width)]
        if form == "original":
            text = "".join(f"   {n:4d}.000  {'  '.join(rest)}\n" for n in range(2000))
            (root / f"mfeat-{view}").write_text(text)
        else:
            header = ",".join(map(str, [*range(width), 0]))
            lines = "".join(f"{n},{','.join(rest)},{n // 200}\n" for n in range(2000))
            (root / f"mfeat-{view}.csv").write_text(f"{header}\n{lines}")
    return root


@pytest.mark.parametrize("form", ["original", "csv"])
def test_a_row_is_one_step_of_each_view_and_the_label_is_not_among_its_numbers(tmp_path, form):
    root = write(tmp_path / "raw", form)

    clips = read(root)

    assert locate(root, PREPARER.editions).edition == form
    assert [clip.label for clip in clips] == [n // 200 for n in range(2000)]
    for row in (0, 199, 1999):
        for view in VIEWS:
            found = decode(clips[row].sources[view], SeriesSpec()).array
            assert found.shape == (1, VIEWS[view])
            np.testing.assert_allclose(found[0], values(view)[row], atol=1e-3)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda text: text[: text.rindex("\n1")] + "\n", r"has 1,999 rows instead of 2,000"),
        (lambda text: text.replace(",0\n", ",1\n", 2), r"last column is not the digit"),
        (lambda text: text.replace("0.001,", "", 1), r"line 2 has 6 columns instead of 7"),
    ],
)
def test_a_damaged_view_is_refused_by_name(tmp_path, damage, said):
    root = write(tmp_path / "raw", "csv")
    path = root / "mfeat-mor.csv"
    path.write_text(damage(path.read_text()))

    with pytest.raises(SourceError, match=said) as caught:
        read(root)
    assert "mfeat-mor.csv" in str(caught.value)


def test_a_lacking_view_is_named(tmp_path):
    with zipfile.ZipFile(tmp_path / "mfeat.zip", "w") as archive:
        archive.writestr("mfeat/mfeat-fac", "1\n")

    with pytest.raises(SourceError, match=r"mfeat-fou is missing"):
        read(tmp_path)


def test_the_kit_becomes_a_store_with_splits_even_over_the_digits(kit, tmp_path):
    made = prepare(PrepareRequest("mfeat", kit / "mfeat", tmp_path / "out"), lambda _: None)

    with open_store(made.path) as store:
        assert store.modalities == tuple(sorted(VIEWS))
        for view, width in VIEWS.items():
            assert tuple(store.columns[view].shape) == (width,)
            assert store.columns[view].max_length == 1
        labels = np.asarray(store.index.label)
        sizes = {"stratified": (1200, 400, 400), "random-half": (900, 100, 1000)}
        for protocol, expected in sizes.items():
            rows = [store.index.rows(s, protocol) for s in ("train", "val", "test")]
            assert tuple(map(len, rows)) == expected
            for some in rows:
                assert len(set(Counter(labels[some].tolist()).values())) == 1
        mor, _ = store.gather("mor", np.array([store.index.ids().index("0000")]))
        np.testing.assert_allclose(mor[0, 0], [1, 0, 0, 133.15, 1.3117, 1620.2], rtol=1e-6)
