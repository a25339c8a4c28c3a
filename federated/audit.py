"""The audit trail of a task: who did what, in an order that nobody can change unseen.

    AuditTrail.record ──→ JsonLinesTrail: lines, each with the hash of the one before ──→ check_trail

A trail is a sequence of files `audit-00000001.jsonl`, each with one JSON object a line. The hash of a
line is that of a Merkle log's leaf, and `previous` is the hash of the line before, over the borders of the
files too: who changes, drops or moves a line has to write all later ones anew. A crash can only tear
the last line, which is cut off at the next opening.

The files are bounded: the oldest goes when there are too many, so a trail may begin in the middle.
Everything that touches files blocks, see `federated.recorder`. Raises `StorageError`.
Source: RFC 6962, section 2.1, for the leaf hash.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Protocol

from federated.append import AppendFile, opened, storage_errors

if TYPE_CHECKING:
    from p2p.files import Files

MAX_FILE = 4 << 20  # bytes after which the next file begins ...
KEPT = 8  # ... and how many are kept: some 100 000 entries
MAX_LINE = 1 << 17  # bytes; a round of 1024 members takes 60 KiB
MAX_RECORDS = 64  # of one call of `append`
MAX_SIZE = MAX_FILE + MAX_RECORDS * MAX_LINE  # bytes of one file
GENESIS = bytes(32)  # what the first entry of all follows
LEAF = b"\x00"  # in front of a leaf of a Merkle log
NAME = re.compile(r"audit-[0-9]{8}\.jsonl")  # of a file


class AuditTrail(Protocol):
    """Where it is written down who did what.

    `record` returns at once and never fails: an implementation queues, in the order of the calls. What
    it does with its queue, and when an entry is durable, is its own affair.
    """

    def record(self, actor: str, action: str, target: str, outcome: str, body: Mapping[str, Any]) -> None:
        """`actor` did `action` to `target`, and this came of it; `body` is JSON with the particulars."""


class NullTrail:
    """Writes nothing down."""

    def record(self, actor: str, action: str, target: str, outcome: str, body: Mapping[str, Any]) -> None:
        """As `AuditTrail.record`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What one call of `record` said, and when (unix nanoseconds, by the wall clock of this peer)."""

    time_ns: int
    actor: str
    action: str
    object: str
    outcome: str
    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line of a trail; `hash` is over all the rest of it."""

    seq: int
    previous: bytes
    record: Record
    hash: bytes


def encode_record(record: Record, seq: int, previous: bytes) -> tuple[bytes, bytes]:
    """(the line, its hash). A body that makes the line too long is replaced by its hash and size."""
    line, digest = _encode(record, record.body, seq, previous)
    if len(line) > MAX_LINE:
        body = _canonical(record.body)
        replaced = {"sha256": sha256(body).hexdigest(), "size": len(body)}
        line, digest = _encode(record, replaced, seq, previous)
    return line, digest


def _encode(record: Record, body: Mapping[str, Any], seq: int, previous: bytes) -> tuple[bytes, bytes]:
    entry = {
        "seq": seq,
        "time_ns": record.time_ns,
        "actor": record.actor,
        "action": record.action,
        "object": record.object,
        "outcome": record.outcome,
        "body": body,
        "previous": previous.hex(),
    }
    digest = sha256(LEAF + _canonical(entry)).digest()
    return _canonical({**entry, "hash": digest.hex()}) + b"\n", digest


def _canonical(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def decode_entry(line: bytes) -> Entry:
    """What a line says. Raises `ValueError` unless it is an entry, and has the hash that it says."""
    try:
        value = json.loads(line)
        claimed = value.pop("hash")
        record = Record(
            time_ns=value["time_ns"],
            actor=value["actor"],
            action=value["action"],
            object=value["object"],
            outcome=value["outcome"],
            body=value["body"],
        )
        seq, previous = value["seq"], bytes.fromhex(value["previous"])
        again, digest = _encode(record, record.body, seq, previous)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as exc:
        raise ValueError(f"is no entry: {exc}") from exc
    if digest.hex() != claimed or again.rstrip() != line:
        raise ValueError("is not what was written")
    return Entry(seq=seq, previous=previous, record=record, hash=digest)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrailCheck:
    """What came of checking a trail: how many entries are in order, and the first fault.

    `first` and `last` are the sequence numbers of the first and the last of them, `head` is the hash of
    the last; `fault` is None when there is none.
    """

    entries: int
    first: int
    last: int
    head: bytes
    fault: str | None


def check_trail(files: Files) -> TrailCheck:
    """Checks every line of the trail in `files`, from the oldest on, up to the first fault.

    A trail that is cut off at its end is in order: compare `head` with one that was noted before.
    """
    entries, last, first, fault = 0, 0, 0, None
    head: bytes | None = None
    for name in _names(files):
        try:
            for entry in _read_entries(files, name):
                if head is not None and (entry.previous != head or entry.seq != last + 1):
                    raise ValueError(f"{name}: entry {entry.seq} does not follow entry {last}")
                first, last, head = first or entry.seq, entry.seq, entry.hash
                entries += 1
        except ValueError as exc:
            fault = str(exc)
            break
    return TrailCheck(entries=entries, first=first, last=last, head=head or GENESIS, fault=fault)


def _name(number: int) -> str:
    return f"audit-{number:08d}.jsonl"


def _names(files: Files) -> list[str]:
    """The names of the trail's files, oldest first."""
    with storage_errors(files):
        names = [name for name, _ in files.entries()]
    return sorted(name for name in names if NAME.fullmatch(name))


def _read_entries(files: Files, name: str) -> Iterator[Entry]:
    """The entries of one file, each a whole line; `ValueError` names the first one that is not."""
    with storage_errors(f"{files}/{name}"):
        data = files.read(name, 0, MAX_SIZE)
    for number, line in enumerate(data.split(b"\n")[:-1], 1):
        try:
            yield decode_entry(line)
        except ValueError as exc:
            raise ValueError(f"{name}: line {number} {exc}") from exc


class JsonLinesTrail:
    """The trail in the folder `files`, as the one process that writes to it has it."""

    def __init__(self, files: Files) -> None:
        """Opens or makes the newest file, and cuts a torn end off.

        A file that is damaged is left for people to look at: `damage` says what is wrong with it, and the
        trail goes on in the next one.
        """
        self.damage: str | None = None
        self._files = files
        self._seq, self._head = 0, GENESIS
        self._number = 0
        self._file: AppendFile | None = None
        with storage_errors(files):
            try:
                files.entries()
            except FileNotFoundError:
                files.make()  # only then: it removes what others are about to write
        names = _names(files)
        if names:
            self._resume(names)

    def append(self, records: Sequence[Record]) -> None:
        """Writes up to `MAX_RECORDS` and returns once they are on the disk: all or, with an error, none."""
        assert len(records) <= MAX_RECORDS
        seq, head, lines = self._seq, self._head, []
        for record in records:
            seq += 1
            line, head = encode_record(record, seq, head)
            lines.append(line)
        file = self._file
        if file is None or file.end >= MAX_FILE:
            file = self._turn()
        file.append(b"".join(lines))
        self._seq, self._head = seq, head

    def close(self) -> None:
        """Closes the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _resume(self, names: Sequence[str]) -> None:
        """Goes on where the newest of these files ends, or the one before if that is still empty."""
        name = names[-1]
        self._number = int(name.partition("-")[2].partition(".")[0])
        try:
            for written in reversed(names):
                for entry in _read_entries(self._files, written):
                    self._seq, self._head = entry.seq, entry.hash
                if self._seq:
                    break
        except ValueError as exc:
            self.damage = str(exc)
            self._turn()
            return
        place = f"{self._files}/{name}"
        with storage_errors(place):
            end = self._files.read(name, 0, MAX_SIZE).rfind(b"\n") + 1
            with opened(self._files, name) as file:
                self._file = AppendFile(file, place, end=end, torn=True)
                self._file.repair()

    def _turn(self) -> AppendFile:
        """Begins the next file, and removes the oldest of too many."""
        name = _name(self._number + 1)
        with storage_errors(self._files):
            file = AppendFile(self._files.open(name), f"{self._files}/{name}", end=0, torn=True)
            self.close()
            self._file, self._number = file, self._number + 1
            for old in _names(self._files)[:-KEPT]:
                self._files.remove(old)
        return file
