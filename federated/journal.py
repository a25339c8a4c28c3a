"""What must survive kill -9: the votes of the round in progress, and the last certified model.

The journal is a file of records, each a header (length, CRC-32, both u32 big-endian) and its bytes,
synced before `append` returns. A crash can only tear its end, which is cut off at the next opening;
damage anywhere else is refused, since a forgotten vote could be contradicted.
The chain of certificates is a file of the same records that only grows; they are read one by one.
A checkpoint is one file, replaced whole and durably; the one before is kept.

Everything here blocks; the driver calls it in a worker thread. Raises `StorageError`.
"""

from __future__ import annotations

import hashlib
import logging
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from federated.append import AppendFile, opened, storage_errors
from federated.errors import StorageError

if TYPE_CHECKING:
    from p2p.files import Files, OpenFile

logger = logging.getLogger(__name__)

HEADER = struct.Struct(">II")  # length, CRC-32
MAX_RECORD = 1 << 16  # bytes; an announcement has at most 4 KiB
MAX_JOURNAL = 1 << 24  # bytes; a round has a few hundred records
SLICE = 1 << 20  # bytes of the chain that are read at once
CHECKPOINT_HEADER = struct.Struct(">8sQQ")  # magic, length of the certificate, length of the model
MAGIC = b"atcp-ck1"
MAX_CERTIFICATE = 1 << 16  # bytes
PREFIX = "checkpoint-"  # of a file's name, before the number of its round
KEPT = 2  # checkpoints: the newest, and the one before in case it does not read


class Journal:
    """The records of the round in progress, and of some before it, in the file `name` of `files`."""

    def __init__(self, files: Files, name: str) -> None:
        """Opens or makes the file, cuts a torn end off, and has the rest in `records`."""
        place = f"{files}/{name}"
        with storage_errors(place), opened(files, name) as file:
            data = files.read(name, 0, MAX_JOURNAL + 1)
            if len(data) > MAX_JOURNAL:
                raise StorageError(f"the journal {place} is over the limit of {MAX_JOURNAL} bytes")
            self.records, end = _parse_records(data, place)
            self._file = AppendFile(file, place, end=end, torn=end < len(data))
            self._file.repair()

    @property
    def size(self) -> int:
        """Bytes of all records."""
        return self._file.end

    def append(self, records: Sequence[bytes]) -> None:
        """Writes `records` and returns once they are on the disk, all of them or, with an error, none."""
        self._file.append(b"".join(_framed(record) for record in records))
        self.records += records

    def clear(self) -> None:
        """Forgets all records: their round is in a checkpoint."""
        self.records = []
        self._file.clear()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def _framed(record: bytes) -> bytes:
    return HEADER.pack(len(record), zlib.crc32(record)) + record


def _parse_records(data: bytes, place: str) -> tuple[list[bytes], int]:
    """(the records, the offset behind the last whole one). Raises `StorageError` for damage elsewhere."""
    records: list[bytes] = []
    at = 0
    while (record := _record_at(data, at)) is not None:
        records.append(record)
        at += HEADER.size + len(record)
    # a torn end has nothing whole behind it; damage in the middle has
    if any(_record_at(data, later) is not None for later in range(at + 1, len(data))):
        raise StorageError(
            f"the journal {place} is damaged at byte {at}; do not vote with it: remove the folder"
        )
    return records, at


def _record_at(data: bytes, at: int) -> bytes | None:
    """The whole and undamaged record at this offset, or None."""
    if len(data) - at <= HEADER.size:
        return None
    length, checksum = HEADER.unpack_from(data, at)
    record = data[at + HEADER.size : at + HEADER.size + length]
    fits = 0 < length <= MAX_RECORD and len(record) == length
    return record if fits and zlib.crc32(record) == checksum else None


class ChainFile:
    """The certificates of a task in the file `name` of `files`, from the first one on; it only grows."""

    def __init__(self, files: Files, name: str) -> None:
        """Opens or makes the file; a torn end is cut off by the next `append`."""
        self._files = files
        self._name = name
        self._place = f"{files}/{name}"
        self._offsets: list[int] = []
        with storage_errors(self._place), opened(files, name) as file:
            self._file = self._scan(file)

    def __len__(self) -> int:
        return len(self._offsets)

    def append(self, records: Sequence[bytes]) -> None:
        """Writes `records` and returns once they are on the disk, all of them or, with an error, none."""
        offsets, block = list[int](), bytearray()
        for record in records:
            offsets.append(self._file.end + len(block))
            block += _framed(record)
        self._file.append(bytes(block))
        self._offsets += offsets

    def read(self, first: int, count: int) -> list[bytes]:
        """Up to `count` records from the one with index `first` on."""
        offsets = self._offsets[first : first + count]
        ends = [*self._offsets[first + 1 : first + 1 + len(offsets)], self._file.end][: len(offsets)]
        with storage_errors(self._place):
            return [
                self._files.read(self._name, start + HEADER.size, end - start - HEADER.size)
                for start, end in zip(offsets, ends, strict=True)
            ]

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _scan(self, file: OpenFile) -> AppendFile:
        """Finds where each record begins. Raises `StorageError` for damage before the end."""
        start, at = 0, 0  # of the slice, and in it
        data = self._files.read(self._name, start, SLICE)
        while True:
            record = _record_at(data, at)
            if record is not None:
                self._offsets.append(start + at)
                at += HEADER.size + len(record)
            elif at:
                start, at = start + at, 0
                data = self._files.read(self._name, start, SLICE)
            else:
                break
        if any(_record_at(data, later) is not None for later in range(1, len(data))):
            raise StorageError(
                f"the chain {self._place} is damaged at byte {start}: remove the folder to start anew"
            )
        return AppendFile(file, self._place, end=start, torn=len(data) > 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedState:
    """One checkpoint: the encoded certificate of a round, and the model that it certifies."""

    certificate: bytes
    model: bytes


class CheckpointStore:
    """The newest checkpoints of one task, in `files`; models have at most `max_model` bytes."""

    def __init__(self, files: Files, max_model: int) -> None:
        self._files = files
        self._max_size = CHECKPOINT_HEADER.size + MAX_CERTIFICATE + max_model + 32

    def save(self, round_number: int, state: SavedState) -> None:
        """Saves `state` whole or not at all; it is on the disk when this returns."""
        head = CHECKPOINT_HEADER.pack(MAGIC, len(state.certificate), len(state.model))
        body = head + state.certificate + state.model
        name = f"{PREFIX}{round_number:08d}"
        with storage_errors(f"{self._files}/{name}"):
            self._files.write_durably(name, body + hashlib.sha256(body).digest())
            for old in self._existing()[:-KEPT]:
                self._files.remove(old)

    def load(self) -> SavedState | None:
        """The newest checkpoint that is whole, or None when there is none at all.

        One that is damaged is logged and passed over. Raises `StorageError` when none is whole, or when
        the disk fails: an older one is not taken because of an error that may pass.
        """
        with storage_errors(self._files):
            names = self._existing()
        for name in reversed(names):
            with storage_errors(f"{self._files}/{name}"):
                data = self._files.read(name, 0, self._max_size)  # a larger one is not whole then
            try:
                return _parse_checkpoint(data)
            except ValueError as exc:
                logger.error("the checkpoint %s/%s %s; the one before is used", self._files, name, exc)
        if names:
            raise StorageError(f"no checkpoint in {self._files} can be read; remove the folder to start anew")
        return None

    def _existing(self) -> list[str]:
        """The names of the checkpoints, oldest first."""
        names = [name for name, _ in self._files.entries()]
        return sorted(name for name in names if name.startswith(PREFIX) and "." not in name)


def _parse_checkpoint(data: bytes) -> SavedState:
    """What a checkpoint holds. Raises `ValueError` when it is not one, or not whole."""
    body, checksum = data[:-32], data[-32:]
    if len(body) < CHECKPOINT_HEADER.size or hashlib.sha256(body).digest() != checksum:
        raise ValueError("is damaged")
    magic, certificate, model = CHECKPOINT_HEADER.unpack_from(body)
    start = CHECKPOINT_HEADER.size
    if magic != MAGIC or start + certificate + model != len(body):
        raise ValueError("is of another kind")
    return SavedState(certificate=body[start : start + certificate], model=body[start + certificate :])
