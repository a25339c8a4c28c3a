"""Which records the DHT keeps for tasks.

    /atcp-task/<task id in hex>   the signed task whose manifest has that hash
    /atcp-head/<task id in hex>   its newest certificate, see `federated.directory.head`

Both prove themselves, so that a node without any task can keep them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from federated.directory.head import decode_head, round_of
from federated.directory.signed import decode_task
from p2p.errors import RemoteProtocolError
from p2p.kad.namespaces import InvalidRecord, Validator

TASK = "atcp-task"
HEAD = "atcp-head"


def task_key(task: bytes) -> bytes:
    """Where the signed task is stored."""
    return f"/{TASK}/{task.hex()}".encode()


def head_key(task: bytes) -> bytes:
    """Where the newest certificate of a task is stored."""
    return f"/{HEAD}/{task.hex()}".encode()


class TaskRecords:
    """`/atcp-task/…`."""

    def validate(self, key: bytes, value: bytes) -> None:
        """Whether the manifest's hash is in the key, and somebody signed it."""
        try:
            task = decode_task(value)
        except RemoteProtocolError as exc:
            raise InvalidRecord(f"the value is no signed task: {exc}") from exc
        if task_key(task.task_id) != key:
            raise InvalidRecord("the value is another task")

    def select(self, key: bytes, values: Sequence[bytes]) -> int:
        """The first by its bytes: they differ only in who signed, and all peers are to choose the same."""
        return values.index(min(values))


class HeadRecords:
    """`/atcp-head/…`."""

    def validate(self, key: bytes, value: bytes) -> None:
        """Whether it is a certificate of the task in the key, and enough voters signed."""
        try:
            head = decode_head(value)
        except RemoteProtocolError as exc:
            raise InvalidRecord(f"the value is no certificate: {exc}") from exc
        if head_key(head.manifest.task_id) != key:
            raise InvalidRecord("the value is of another task")

    def select(self, key: bytes, values: Sequence[bytes]) -> int:
        """That of the highest round; of one round's, which say the same, the first by its bytes."""
        return min(range(len(values)), key=lambda index: (-round_of(values[index]), values[index]))


VALIDATORS: Mapping[str, Validator] = {TASK: TaskRecords(), HEAD: HeadRecords()}
