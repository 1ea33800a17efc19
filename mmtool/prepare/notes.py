"""What is noted about a shard while it is written, in a form that survives a restart exactly."""

from collections.abc import Mapping, Sequence
from typing import Any

from mmtool.prepare.api import Clip
from mmtool.prepare.decode import Sample, Skipped
from mmtool.prepare.facts import FactsSeen
from mmtool.prepare.statistics import Moments
from mmtool.store.schema import ColumnInfo


class ShardNotes:
    """Which clips a shard holds and why others are missing, lengths, flags and statistics."""

    def __init__(self, columns: Mapping[str, ColumnInfo], protocols: Sequence[str]) -> None:
        self._columns = columns
        self._kept: list[int] = []
        self._skipped: list[list[Any]] = []
        self._flags: list[list[Any]] = []
        self._present: list[list[str]] = []
        self._contents: list[Mapping[str, str]] = []
        self._facts = FactsSeen()
        self._lengths: dict[str, list[int]] = {n: [] for n, c in columns.items() if c.ragged}
        self._moments = {
            protocol: {name: Moments() for name, c in columns.items() if c.kind != "tokens"}
            for protocol in protocols
        }

    def skip(self, position: int, skipped: Skipped) -> None:
        """Note a clip that is left out; positions count within the shard's range of clips."""
        self._skipped.append([position, skipped.reason, skipped.detail])

    def keep(self, position: int, clip: Clip, sample: Sample) -> None:
        """Note a clip that is stored."""
        self._kept.append(position)
        self._flags += [[position, flag] for flag in sample.flags]
        present = {self._columns[n].modality for n, a in sample.arrays.items() if a is not None}
        self._present.append(sorted(present))
        self._contents.append(sample.contents)
        self._facts.add(sample.facts)
        for name, lengths in self._lengths.items():
            array = sample.arrays[name]
            lengths.append(0 if array is None else len(array))
        for protocol, moments in self._moments.items():
            if clip.split.get(protocol) == "train":
                for name, found in sample.moments.items():
                    moments[name].merge(found)

    def as_json(self) -> dict[str, Any]:
        """Give the notes as plain values."""
        return {
            "kept": self._kept,
            "skipped": self._skipped,
            "flags": self._flags,
            "present": self._present,
            "contents": self._contents,
            "facts": self._facts.as_json(),
            "lengths": self._lengths,
            "moments": {
                protocol: {name: found.as_json() for name, found in moments.items()}
                for protocol, moments in self._moments.items()
            },
        }
