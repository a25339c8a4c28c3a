"""The blobs of all members of a task in one process: what one of them has, all have."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from p2p.blobs.errors import BlobUnavailable
from p2p.blobs.merkle import blob_root

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from p2p.peer_id import PeerId


class CommonStore:
    """Blobs by their roots, in memory, until nobody needs them and somebody says so.

    It has no bound of its own: members put a model and an update a round, and let go of them after the next.
    """

    def __init__(self) -> None:
        self._blobs: dict[bytes, bytes] = {}
        self._retained: dict[str, frozenset[bytes]] = {}  # by owner
        self._owners: Counter[bytes] = Counter()  # by root, how many
        self._newest: tuple[bytes, bytes] = (b"", b"")  # what all put at about the same time, and its root

    def __contains__(self, root: bytes) -> bool:
        return root in self._blobs

    def __len__(self) -> int:
        return len(self._blobs)

    def get(self, root: bytes) -> bytes | None:
        """The blob, None when it is not here."""
        return self._blobs.get(root)

    def put(self, data: bytes) -> bytes:
        """Keeps `data` and returns its root; what is put by many is hashed once."""
        known, root = self._newest
        if known is not data:
            root = blob_root(data)
            self._newest = data, root
        self._blobs.setdefault(root, data)
        return root

    def discard(self, root: bytes) -> None:
        """Forgets the blob unless somebody retains it."""
        if not self._owners[root]:
            self._blobs.pop(root, None)
            del self._owners[root]

    def retain(self, owner: str, roots: Iterable[bytes]) -> None:
        """Keeps these blobs until `owner` names others."""
        before, needed = self._retained.get(owner, frozenset()), frozenset(roots)
        for root in needed - before:
            self._owners[root] += 1
        for root in before - needed:
            self._owners[root] -= 1
        self._retained[owner] = needed


class LocalBlobs:
    """What there is to fetch: all that is in the store."""

    bytes_sent = 0

    def __init__(self) -> None:
        self.store = CommonStore()

    async def fetch(self, root: bytes, size: int, holders: Sequence[PeerId]) -> bytes:
        """As `federated.link.Exchange.fetch`."""
        data = self.store.get(root)
        if data is None or len(data) != size:
            raise BlobUnavailable(root, ["no member has it any more"])
        return data
