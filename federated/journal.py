"""What must survive kill -9: the votes of the round in progress, and the last certified model.

The journal is a file of records, each a header (length, CRC-32, both u32 big-endian) and its bytes,
synced before `append` returns. A crash can only tear its end, which is cut off at the next opening;
damage anywhere else is refused, since a forgotten vote could be contradicted.
A checkpoint is one file, written under another name, synced, and renamed; the one before is kept.

Everything here blocks; the driver calls it in a worker thread. Raises `StorageError`.
"""

from __future__ import annotations

import hashlib
import logging
import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from federated.errors import StorageError
from p2p.durable import sync_folder, write_durably

logger = logging.getLogger(__name__)

HEADER = struct.Struct(">II")  # length, CRC-32
MAX_RECORD = 1 << 16  # bytes; an announcement has at most 4 KiB
MAX_JOURNAL = 1 << 24  # bytes; a round has a few hundred records
CHECKPOINT_HEADER = struct.Struct(">8sQQ")  # magic, length of the certificate, length of the model
MAGIC = b"atcp-ck1"
MAX_CERTIFICATE = 1 << 16  # bytes
KEPT = 2  # checkpoints: the newest, and the one before in case it does not read


class Journal:
    """The records of the round in progress, in the file `path`."""

    def __init__(self, path: Path) -> None:
        """Opens or makes the file, cuts a torn end off, and has the rest in `records`."""
        with _storage(path):
            new = not path.exists()
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                data = _read_all(self._file, MAX_JOURNAL)
                self.records, self._end = _parse_records(data, path)
                if self._end < len(data):
                    os.ftruncate(self._file, self._end)
                    os.fsync(self._file)
                if new:
                    sync_folder(path.parent)
            except BaseException:
                os.close(self._file)
                raise
        self._path = path

    def append(self, records: Sequence[bytes]) -> None:
        """Writes `records` and returns once they are on the disk, all of them or, with an error, none."""
        block = b"".join(HEADER.pack(len(record), zlib.crc32(record)) + record for record in records)
        with _storage(self._path):
            try:
                _write_all(self._file, block, self._end)
                os.fsync(self._file)
            except OSError:
                os.ftruncate(self._file, self._end)
                raise
        self._end += len(block)
        self.records += records

    def clear(self) -> None:
        """Forgets all records: their round is in a checkpoint."""
        with _storage(self._path):
            os.ftruncate(self._file, 0)
            os.fsync(self._file)
        self._end = 0
        self.records = []

    def close(self) -> None:
        """Closes the file."""
        os.close(self._file)


def _parse_records(data: bytes, path: Path) -> tuple[list[bytes], int]:
    """(the records, the offset behind the last whole one). Raises `StorageError` for damage elsewhere."""
    records: list[bytes] = []
    at = 0
    while (record := _record_at(data, at)) is not None:
        records.append(record)
        at += HEADER.size + len(record)
    # a torn end has nothing whole behind it; damage in the middle has
    if any(_record_at(data, later) is not None for later in range(at + 1, len(data))):
        raise StorageError(
            f"the journal {path} is damaged at byte {at}; do not vote with it: remove the folder"
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


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedState:
    """One checkpoint: the encoded certificate of a round, and the model that it certifies."""

    certificate: bytes
    model: bytes


class CheckpointStore:
    """The newest checkpoints of one task, in `folder`; models have at most `max_model` bytes."""

    def __init__(self, folder: Path, max_model: int) -> None:
        self._folder = folder
        self._max_model = max_model

    def save(self, round_number: int, state: SavedState) -> None:
        """Saves `state` whole or not at all; it is on the disk when this returns."""
        head = CHECKPOINT_HEADER.pack(MAGIC, len(state.certificate), len(state.model))
        body = head + state.certificate + state.model
        path = self._path(round_number)
        with _storage(path):
            write_durably(path, body + hashlib.sha256(body).digest())
            for old in self._existing()[:-KEPT]:
                old.unlink()

    def load(self) -> SavedState | None:
        """The newest checkpoint that reads, or None when there is none at all.

        One that does not read is logged and passed over. Raises `StorageError` when none reads.
        """
        paths = self._existing()
        for path in reversed(paths):
            try:
                return self._read(path)
            except StorageError as exc:
                logger.error("%s; the one before is used", exc)
        if paths:
            raise StorageError(
                f"no checkpoint in {self._folder} can be read; remove the folder to start anew"
            )
        return None

    def _read(self, path: Path) -> SavedState:
        with _storage(path):
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                data = _read_all(file, CHECKPOINT_HEADER.size + MAX_CERTIFICATE + self._max_model + 32)
            finally:
                os.close(file)
        body, digest = data[:-32], data[-32:]
        if len(body) < CHECKPOINT_HEADER.size or hashlib.sha256(body).digest() != digest:
            raise StorageError(f"the checkpoint {path} is damaged")
        magic, certificate, model = CHECKPOINT_HEADER.unpack_from(body)
        start = CHECKPOINT_HEADER.size
        if magic != MAGIC or start + certificate + model != len(body):
            raise StorageError(f"the checkpoint {path} is of another kind")
        return SavedState(certificate=body[start : start + certificate], model=body[start + certificate :])

    def _path(self, round_number: int) -> Path:
        return self._folder / f"checkpoint-{round_number:08d}"

    def _existing(self) -> list[Path]:
        """The checkpoints, oldest first."""
        return sorted(path for path in self._folder.glob("checkpoint-*") if not path.suffix)


@contextmanager
def _storage(path: Path) -> Iterator[None]:
    """Every failure of the system leaves as `StorageError` with the path."""
    try:
        yield
    except OSError as exc:
        raise StorageError(f"{path}: {exc.strerror or exc}") from exc


def _read_all(file: int, limit: int) -> bytes:
    size = os.fstat(file).st_size
    if size > limit:
        raise StorageError(f"a file of {size} bytes is over the limit of {limit}")
    data = bytearray()
    while len(data) < size and (piece := os.pread(file, size - len(data), len(data))):
        data += piece
    return bytes(data)


def _write_all(file: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(file, view, offset)
        view, offset = view[written:], offset + written
