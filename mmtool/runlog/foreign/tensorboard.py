"""TensorBoard event files, read without TensorBoard.

A file is a chain of records: the length in 8 bytes, a checksum of it in 4, an `Event` message and
its checksum in 4. Of the messages only what leads to a scalar is decoded: Event {1: time, 2: step,
5: Summary}, Summary {1: Value}, Value {1: tag, 2: number, 8: TensorProto}, where a tensor holds its
number in 4 (raw bytes) or 5, 6, 7, 10 (lists of float, double, int32, int64).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path

from mmtool.runlog.foreign.tracks import Tracks

MARK = "tfevents"
MAX_RECORD_BYTES = 2**26
"""Longer records hold pictures or graphs and are passed over."""
_RAW = {1: "<f", 2: "<d", 3: "<i", 9: "<q"}  # by the tensor's type
_LISTS = {5: "<f", 6: "<d"}


def event_files(path: Path) -> list[Path]:
    """Give the event files of a folder and the folders in it, oldest first."""
    if path.is_file():
        return [path]
    # Links are not followed: one may lead back to where the walk came from.
    found = [
        Path(folder) / name
        for folder, _, names in os.walk(path, followlinks=False)
        for name in names
        if MARK in name
    ]
    return sorted(found, key=lambda file: (file.name, str(file)))


def read_tensorboard(path: Path) -> Tracks:
    """Read every scalar; one that was written again under the same step is in the tracks twice."""
    tracks = Tracks()
    for file in event_files(path):
        prefix = file.parent.relative_to(path).as_posix() if path.is_dir() else "."
        try:
            for t, step, tag, value in _scalars(file, tracks.warnings):
                name = tag if prefix == "." else f"{prefix}/{tag}"
                tracks.add(name, step, value, t=t)
        except OSError as error:
            tracks.warnings.append(f"{file.name} cannot be read ({error.strerror or error})")
    return tracks


def _scalars(file: Path, warnings: list[str]) -> Iterator[tuple[float, int, str, float]]:
    with file.open("rb") as stream:
        for record in _records(stream, file.name, warnings):
            try:
                yield from _scalars_of(record)
            except (ValueError, struct.error, IndexError):
                warnings.append(f"{file.name}: a record that is no event is left out")
                return


def _records(stream: BufferedReader, name: str, warnings: list[str]) -> Iterator[bytes]:
    while header := stream.read(12):
        if len(header) < 12:
            warnings.append(f"{name}: the last record was cut off and is left out")
            return
        (size, checksum) = struct.unpack("<QI", header)
        if _masked_crc(header[:8]) != checksum:
            warnings.append(f"{name}: damaged at byte {stream.tell() - 12}; the rest is left out")
            return
        if size > MAX_RECORD_BYTES:
            stream.seek(size + 4, os.SEEK_CUR)
            continue
        record = stream.read(size + 4)
        if len(record) < size + 4:
            warnings.append(f"{name}: the last record was cut off and is left out")
            return
        yield record[:-4]


def _scalars_of(event: bytes) -> Iterator[tuple[float, int, str, float]]:
    t, step, summaries = 0.0, 0, []
    for number, value in _fields(event):
        if number == 1 and isinstance(value, bytes):
            (t,) = struct.unpack("<d", value)
        elif number == 2 and isinstance(value, int):
            step = value - 2**64 if value >= 2**63 else value
        elif number == 5 and isinstance(value, bytes):
            summaries.append(value)
    for summary in summaries:
        for number, entry in _fields(summary):
            if number != 1 or not isinstance(entry, bytes):
                continue
            tag, scalar = _tag_and_number(entry)
            if scalar is not None:
                yield t, step, tag, scalar


def _tag_and_number(entry: bytes) -> tuple[str, float | None]:
    tag, scalar = "", None
    for number, value in _fields(entry):
        if not isinstance(value, bytes):
            continue
        if number == 1:
            tag = value.decode("utf-8", errors="replace")
        elif number == 2:
            (scalar,) = struct.unpack("<f", value)
        elif number == 8:
            scalar = _tensor_number(value)
    return tag, scalar


def _tensor_number(tensor: bytes) -> float | None:
    """Give the number of a tensor that holds just one."""
    kind = 0
    for number, value in _fields(tensor):
        if number == 1 and isinstance(value, int):
            kind = value
        elif number == 4 and isinstance(value, bytes) and kind in _RAW:
            form = _RAW[kind]
            single = len(value) == struct.calcsize(form)
            return float(struct.unpack(form, value)[0]) if single else None
        elif number in _LISTS and isinstance(value, bytes):
            form = _LISTS[number]
            single = len(value) == struct.calcsize(form)
            return float(struct.unpack(form, value)[0]) if single else None
        elif number in (7, 10):
            if isinstance(value, bytes):
                value = _varint(value, 0)[0]
            return float(value - 2**64 if value >= 2**63 else value)
    return None


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Give (number, value) of a message: an int of a varint, bytes of everything else."""
    at, size = 0, len(message)
    while at < size:
        key, at = _varint(message, at)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, at = _varint(message, at)
            yield number, value
            continue
        if wire == 2:
            length, at = _varint(message, at)
        elif wire in (1, 5):
            length = 8 if wire == 1 else 4
        else:
            raise ValueError(f"wire type {wire}")
        if at + length > size:
            raise ValueError("a field that is longer than its message")
        yield number, message[at : at + length]
        at += length


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("a number of more than 64 bits")


def _masked_crc(data: bytes) -> int:
    """Give the checksum of a record's length: CRC-32C, turned and shifted."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _CRC_TABLE[(crc ^ byte) & 255] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def _crc_table() -> tuple[int, ...]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return tuple(table)


_CRC_TABLE = _crc_table()
