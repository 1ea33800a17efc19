"""mfeat: six views of 2,000 handwritten digits (UCI Multiple Features), 200 of each class.

    mmtool prepare mfeat --source DIR

    DIR/mfeat-fac  mfeat-fou  mfeat-kar  mfeat-mor  mfeat-pix  mfeat-zer
        the original: 2,000 rows of numbers; row i is a digit i // 200
    DIR/mfeat-fac.csv ...                with a header and the label in the last column
    DIR/*.zip                            an archive of either

Columns  fac  216 profile correlations     fou   76 Fourier coefficients of the shape
         kar   64 Karhunen-Loeve           mor    6 morphological features
         pix  240 averages of 2 x 3 pixels zer   47 Zernike moments
         each a series of one step, so that the encoder `series` with kernel 1 is a small network

Splits  stratified    three fifths train, a fifth val, a fifth test, drawn evenly over the digits
        random-half   half test, as the published figures; a tenth of the rest is val

The release says nothing of who wrote which digit, so no split can keep writers apart.

Traps  The csv files hold the label among the numbers; it is taken out. The scales of `mor` differ
       by a factor of ten thousand: standardise, as recipes do by default.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mmtool.prepare import api

NAME = "mfeat"
TITLE = "Multiple features: six views of handwritten digits"
LICENCE = "CC BY 4.0"
SOURCE = "archive.ics.uci.edu/dataset/72"
CITATION = (
    "M. van Breukelen, R. P. W. Duin, D. M. J. Tax, J. E. den Hartog, Handwritten digit "
    "recognition by combined classifiers, Kybernetika 34(4), 1998"
)
VIEWS = {"fac": 216, "fou": 76, "kar": 64, "mor": 6, "pix": 240, "zer": 47}
EDITIONS = {
    "csv": [f"mfeat-{view}.csv" for view in VIEWS],
    "original": [f"mfeat-{view}" for view in VIEWS],
    "zip": ["*mfeat*.zip"],
    "uci-zip": ["multiple*features*.zip"],
}
MEDIA = ["mfeat-???", "mfeat-???.csv"]
MAX_MISSING = 0.0
NUM_ROWS, ROWS_PER_CLASS = 2_000, 200


class Options(api.Options):
    """There are none."""


def columns(root: Path, options: Options) -> Mapping[str, api.Column]:
    """The six views, each one step of as many channels as it has features."""
    del root, options
    return {view: api.Column(view, api.SeriesSpec()) for view in VIEWS}


def classes(root: Path, options: Options) -> Sequence[str]:
    """The ten digits."""
    del root, options
    return [str(digit) for digit in range(10)]


def clips(root: Path, options: Options) -> Iterable[api.Clip]:
    """Every row."""
    del options
    tree = api.open_tree(root, "mfeat-???", "mfeat-???.csv")
    sources = {view: _source(tree, root, view) for view in VIEWS}
    for source in sources.values():
        _features(source)
    labels = {f"{row:04d}": row // ROWS_PER_CLASS for row in range(NUM_ROWS)}
    protocols = {
        "stratified": _split(labels, test=0.2, val=0.25, salt="mfeat"),
        "random-half": _split(labels, test=0.5, val=0.1, salt="mfeat/half"),
    }
    for row, (name, label) in enumerate(labels.items()):
        yield api.Clip(
            id=name,
            label=label,
            sources=api.between(sources, float(row), float(row + 1)),
            split={protocol: split[name] for protocol, split in protocols.items()},
        )


def _split(labels: Mapping[str, int], *, test: float, val: float, salt: str) -> dict[str, str]:
    drawn = api.draw_share(list(labels), test, f"{salt}/test", labels=list(labels.values()))
    splits = {name: "test" if name in drawn else "train" for name in labels}
    return api.carve(splits, val, f"{salt}/val", labels=labels)


def _source(tree: Mapping[str, api.Source], root: Path, view: str) -> api.Source:
    for name in (f"mfeat-{view}.csv", f"mfeat-{view}"):
        if name in tree:
            return replace(tree[name], read=_read_view)
    raise api.SourceError(
        f"mfeat-{view} is missing", where=str(root), fix="put all six files into this folder"
    )


def _read_view(source: api.Source) -> dict[str, api.Recording]:
    """Give the rows as if one were measured each second."""
    values = _features(source)
    return {"view": api.Recording(np.arange(len(values), dtype=np.float64), values)}


def _features(source: api.Source) -> NDArray[np.float32]:
    path = Path(source.member or source.path)
    width = VIEWS[path.stem.removeprefix("mfeat-")]
    is_csv = path.suffix == ".csv"
    numbers = (
        api.read_numbers(source, width + 1, delimiter=",", header_lines=1)
        if is_csv
        else api.read_numbers(source, width)
    )
    problem = ""
    if len(numbers) != NUM_ROWS:
        problem = f"it has {len(numbers):,} rows instead of {NUM_ROWS:,}"
    elif is_csv and (numbers[:, -1] != np.arange(NUM_ROWS) // ROWS_PER_CLASS).any():
        problem = f"its last column is not the digit, {ROWS_PER_CLASS} rows of each in order"
    if problem:
        raise api.SourceError(
            f"{path.name} is not a view of the {NUM_ROWS:,} digits",
            where=str(source.path),
            why=problem,
            fix=f"take {path.name} from the release again",
        )
    return numbers[:, :width].astype(np.float32)
