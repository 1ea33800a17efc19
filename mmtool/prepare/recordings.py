"""From a recording of a release with a label per row to one clip per window of it."""

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field

from mmtool.config.schema import Options
from mmtool.errors import SourceError
from mmtool.media.spec import Source
from mmtool.prepare.clip import Clip
from mmtool.prepare.windows import label_windows


class WindowOptions(Options):
    """How recordings are cut; a preparer overrides the defaults."""

    window_s: float = Field(5.12, gt=0)
    stride_s: float = Field(1.0, gt=0)
    """Seconds from the begin of a window to the begin of the next."""
    min_share: float = Field(0.8, gt=0, le=1)
    """Share of a window's rows that must have one label."""


def between(sources: Mapping[str, Source], start_s: float, end_s: float) -> dict[str, Source]:
    """Give the same sources from one time to another."""
    return {name: replace(source, start_s=start_s, end_s=end_s) for name, source in sources.items()}


def window_clips(
    whole: Clip, times_s: ArrayLike, labels: ArrayLike, options: WindowOptions
) -> Iterator[Clip]:
    """Give a clip for each window of a recording, whose clip `whole` stands for all of it.

    A label below 0 is none. Ids end in the milliseconds from the begin of the recording.
    """
    times = np.asarray(times_s, np.float64)
    for window in label_windows(
        times,
        labels,
        window_s=options.window_s,
        stride_s=options.stride_s,
        min_share=options.min_share,
    ):
        yield replace(
            whole,
            id=f"{whole.id}_{round(1000 * (window.start_s - float(times[0]))):08d}",
            label=window.label,
            sources=between(whole.sources, window.start_s, window.start_s + options.window_s),
        )


def labels_of_numbers(
    numbers: NDArray[np.float64], label_by_number: Mapping[int, int], where: str
) -> NDArray[np.int64]:
    """Give the labels of a column of activity numbers; a number that is not known is refused."""
    there, inverse = np.unique(numbers, return_inverse=True)
    unknown = [at for at, number in enumerate(there.tolist()) if number not in label_by_number]
    if unknown:
        row = int(np.argmax(inverse == unknown[0])) + 1
        names = ", ".join(f"{there[at]:g}" for at in unknown[:5])
        raise SourceError(
            f"the activity {names} is unknown",
            where=f"{where}, row {row}",
            why=f"known are {', '.join(map(str, sorted(label_by_number)))}",
            fix="take the file from the release again",
        )
    found = np.array([label_by_number[int(number)] for number in there.tolist()], np.int64)
    labels: NDArray[np.int64] = found[inverse]
    return labels
