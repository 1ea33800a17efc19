"""What `mmtool prepare` can be told."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class MissingModality(StrEnum):
    """What becomes of a clip of which only some modalities can be read."""

    skip = "skip"
    keep = "keep"


class DuplicatePolicy(StrEnum):
    """Which of several rows with one id is kept."""

    first = "first"
    last = "last"
    multi = "multi"
    drop = "drop"


class ExportFormat(StrEnum):
    """A format that other tools stream."""

    mds = "mds"
    webdataset = "webdataset"


SourceOption = Annotated[
    Path | None,
    typer.Option("--source", metavar="DIR", help="The raw release; else bundled samples."),
]
OutOption = Annotated[
    Path | None, typer.Option("--out", metavar="DIR", help="The store; else under data root.")
]
WorkersOption = Annotated[
    int | None, typer.Option("--workers", metavar="N", min=1, help="Threads; else one per core.")
]
LimitOption = Annotated[
    int | None, typer.Option("--limit", metavar="N", min=1, help="Only N clips, in proportion.")
]
OverwriteOption = Annotated[
    bool, typer.Option("--overwrite", help="Replace a store that is already there.")
]
DatasetSetOption = Annotated[
    list[str] | None,
    typer.Option("--set", "-s", metavar="KEY=VALUE", help="An option of the dataset."),
]
MaxSkippedOption = Annotated[
    float,
    typer.Option(
        "--max-skipped", metavar="SHARE", min=0.0, max=1.0, help="Share of clips that may fail."
    ),
]
MaxMissingOption = Annotated[
    float | None,
    typer.Option(
        "--max-missing",
        metavar="SHARE",
        min=0.0,
        max=1.0,
        help="Share of clips without a file; else what suits the dataset.",
    ),
]
MissingModalityOption = Annotated[
    MissingModality,
    typer.Option("--missing-modality", help="Clips of which only a part can be read."),
]
DuplicatesOption = Annotated[
    DuplicatePolicy,
    typer.Option("--duplicates", help="Which of several rows with one id to keep."),
]
MaxSecondsOption = Annotated[
    float | None,
    typer.Option("--max-seconds", metavar="S", min=0.01, help="Cut sound and video after S."),
]
AllowLeakOption = Annotated[
    bool, typer.Option("--allow-leak", help="Accept splits that share raw recordings.")
]
ToOption = Annotated[
    ExportFormat | None,
    typer.Option("--to", help="Write the store anew in this format, beside it."),
]
