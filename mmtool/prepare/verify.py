"""Check a prepared dataset from the first byte to the last."""

from pathlib import Path
from typing import Any

from mmtool.errors import StoreError
from mmtool.store.reader import open_store
from mmtool.store.schema import content_hash

SCHEMA = "mmtool-verify-report/1"


def verify_store(path: Path) -> dict[str, Any]:
    """Check every checksum, the hash and the index against the manifest; give the counts.

    Raises `StoreError` naming the first file or fact that is wrong.
    """
    with open_store(path, verify="full") as store:
        manifest, index = store.manifest, store.index
        found = content_hash(
            columns=manifest.columns,
            shards=manifest.shards,
            index=manifest.index,
            classes=manifest.classes,
            preparer=str(manifest.provenance.get("preparer")),
            options=manifest.provenance.get("options", {}),
            is_multi_label=manifest.is_multi_label,
        )
        if found != manifest.hash:
            raise _wrong(path, "the manifest was edited: its hash does not follow from it")
        for protocol, counts in manifest.protocols.items():
            for split, count in counts.items():
                if index.rows(split, protocol).size != count:
                    raise _wrong(path, f"split {protocol}/{split} does not have {count} clips")
        if not index.labels_lie_within(len(manifest.classes)):
            raise _wrong(path, "a label of the index has no class name")
        for name, column in manifest.columns.items():
            if column.ragged and store.lengths(name).max(initial=0) != column.max_length:
                raise _wrong(path, f"the longest sample of {name} is not {column.max_length}")
        return {
            "schema": SCHEMA,
            "path": str(path),
            "hash": manifest.hash,
            "rows": manifest.num_rows,
            "files": len(manifest.files()),
            "bytes": store.nbytes(),
            "protocols": {name: dict(counts) for name, counts in manifest.protocols.items()},
        }


def _wrong(path: Path, why: str) -> StoreError:
    return StoreError(
        "this dataset contradicts its manifest",
        where=str(path),
        why=why,
        fix="prepare the dataset again: mmtool prepare NAME --overwrite",
    )
