"""What all members of a task compute alike, computed once: the same inputs have the same result.

A thousand members decode and check the same update, average the same set, read the same message. Each is
charged the time of it; the result is taken from here after the first.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

from federated.errors import FederatedError
from federated.rounds.committee import verify_signature
from federated.rounds.gate import Gate
from federated.rounds.messages import Message, MessageError
from federated.rounds.wire import decode
from federated.workbench import digest

if TYPE_CHECKING:
    from federated.manifest import TaskManifest
    from p2p.gossipsub.events import PubsubMessage

MAX_RESULTS = 4096  # of one kind of work; a few rounds of a thousand members
MAX_MESSAGES = 1 << 16

T = TypeVar("T")


class Shared:
    """Results of one task by what they were computed from."""

    def __init__(self, manifest: TaskManifest) -> None:
        self.manifest = manifest
        self.verify = lru_cache(MAX_MESSAGES)(verify_signature)
        self.digest_of = lru_cache(MAX_RESULTS)(digest)
        self.decode = lru_cache(MAX_MESSAGES)(decode)
        self._results: dict[Hashable, tuple[Any, FederatedError | None]] = {}

    def once(self, key: Hashable, work: Callable[[], T]) -> T:
        """What `work` returns or raises; for the same key it is done once."""
        if key not in self._results:
            try:
                self._results[key] = (work(), None)
            except FederatedError as error:
                self._results[key] = (None, error)
            if len(self._results) > MAX_RESULTS:
                del self._results[next(iter(self._results))]
        result, raised = self._results[key]
        if raised is not None:
            raise raised
        found: T = result
        return found


class SharedGate(Gate):
    """The shipped gate, that reads each message once for all members."""

    def __init__(self, shared: Shared, wall_clock: Callable[[], float]) -> None:
        manifest = shared.manifest
        super().__init__(task=manifest.task_id, members=manifest.peer_ids, wall_clock=wall_clock)
        self._shared = shared

    def _read(self, message: PubsubMessage) -> Message:
        content = self._shared.decode(message.data)
        if content.task != self._shared.manifest.task_id:
            raise MessageError("of another task")
        return content
