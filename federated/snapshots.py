"""What a trainer keeps from one round to the next: an optimiser's moments, a generator, a residual.

    train ──→ update in the blob store ──→ snapshot-<round> ──→ `Trained`, which the journal gets

A snapshot is durable before the machine hears of its update. A process that dies in between trains the
round again, and must come to the same update: so a training gets the newest state of an *earlier* round,
and two snapshots are kept. Each is one file, replaced whole and durably:

    magic · round · task · digest of the base · root of the update · state as safetensors · SHA-256

Without files they live in memory. Everything here blocks. Raises `StorageError`.
"""

from __future__ import annotations

import hashlib
import re
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from federated import codec
from federated.append import storage_errors
from federated.errors import CodecError, StorageError
from federated.parameters import Parameters

if TYPE_CHECKING:
    from p2p.files import Files

HEADER = struct.Struct(">8sQ32s32s32s")  # magic, round, task, base, root
MAGIC = b"atcp-sn1"
CHECKSUM = 32  # bytes; SHA-256
NAME = re.compile(r"snapshot-([0-9]{8}|[1-9][0-9]{8,18})")
MAX_ROUND = (1 << 63) - 1  # no round has a higher number
KEPT = 2  # the one of the round in progress, and the one that this round was trained from
MODELS = 8  # times a model that a state may have: Adam needs 2, with error feedback 3
SLACK = 1 << 20  # bytes more, for small models: generators, counters


def max_state(model: int) -> int:
    """The bytes that an encoded state may have, where a model has `model`."""
    return MODELS * model + SLACK


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """One training that is finished: its round, base (digest) and update (root), and the encoded state."""

    round: int
    base: bytes
    root: bytes
    state: bytes


class Snapshots:
    """The newest snapshots of the task `task`, in `files`; its models have at most `max_model` bytes."""

    def __init__(self, files: Files | None, task: bytes, max_model: int) -> None:
        self._files = files
        self._task = task
        self._max_state = max_state(max_model)
        self._held: dict[int, bytes] = {}  # without files, by round

    def save(self, snapshot: Snapshot) -> None:
        """Saves `snapshot` whole or not at all; it is on the disk when this returns."""
        number = snapshot.round
        head = HEADER.pack(MAGIC, number, self._task, snapshot.base, snapshot.root)
        data = b"".join([head, snapshot.state])
        data = b"".join([data, hashlib.sha256(data).digest()])
        with storage_errors(self._place(number)):
            if self._files is None:
                self._held[number] = data
            else:
                self._files.write_durably(_name(number), data)
            rounds = self._rounds()
            kept = [other for other in rounds if other <= number][-KEPT:]
            for other in rounds:
                if other not in kept:  # old, or of a future that a lost checkpoint has undone
                    self._remove(other)

    def before(self, number: int) -> Snapshot | None:
        """The newest one of a round before `number`, or None.

        One that is damaged is refused: with the one before it, another update would come out.
        """
        with storage_errors(self._place(number)):
            rounds = [other for other in self._rounds() if other < number]
        if not rounds:
            return None
        with storage_errors(self._place(rounds[-1])):
            data = self._read(rounds[-1])
        snapshot = self._parse(data)
        if snapshot is None or snapshot.round != rounds[-1]:
            raise self._refusal(rounds[-1], "is damaged")
        return snapshot

    def newest_state(self) -> Parameters:
        """What the newest training has kept, or nothing before the first."""
        return self.state_before(MAX_ROUND)

    def state_before(self, number: int) -> Parameters:
        """What a training of round `number` begins with: arrays of its own, or nothing the first time."""
        snapshot = self.before(number)
        if snapshot is None:
            return {}
        try:
            return codec.decode_any(snapshot.state, self._max_state)
        except CodecError as exc:
            raise self._refusal(snapshot.round, f"holds no state: {exc}") from exc

    def _parse(self, data: bytes) -> Snapshot | None:
        """What a file holds; None when it is no snapshot of this task, or not whole."""
        body, checksum = data[:-CHECKSUM], data[-CHECKSUM:]
        if len(body) < HEADER.size or hashlib.sha256(body).digest() != checksum:
            return None
        magic, number, task, base, root = HEADER.unpack_from(body)
        if (magic, task) != (MAGIC, self._task):
            return None
        return Snapshot(round=number, base=base, root=root, state=body[HEADER.size :])

    def _rounds(self) -> list[int]:
        """The rounds of which there is a snapshot, in their order."""
        if self._files is None:
            return sorted(self._held)
        found = (NAME.fullmatch(name) for name, _ in self._files.entries())
        return sorted(int(match[1]) for match in found if match is not None)

    def _read(self, number: int) -> bytes:
        if self._files is None:
            return self._held[number]
        # a larger one is not whole then
        return self._files.read(_name(number), 0, HEADER.size + self._max_state + CHECKSUM)

    def _remove(self, number: int) -> None:
        if self._files is None:
            del self._held[number]
        else:
            self._files.remove(_name(number))

    def _refusal(self, number: int, problem: str) -> StorageError:
        return StorageError(
            f"the snapshot {self._place(number)} {problem}; remove it, and the trainer goes on without"
        )

    def _place(self, number: int) -> str:
        return f"{self._files}/{_name(number)}"


def _name(number: int) -> str:
    return f"snapshot-{number:08d}"
