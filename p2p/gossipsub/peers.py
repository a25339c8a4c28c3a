"""The peers we know: what they subscribe to, and whether and how we can write to them.

InboundOpened / RPC → known        StreamOpened → writable        StreamLost → known        PeerGone → ∅
"""

from __future__ import annotations

from dataclasses import dataclass, field

from p2p.gossipsub.wire import Version
from p2p.peer_id import PeerId

FLOODSUB = Version.FLOODSUB
MAX_TOPICS = 1000  # topics kept of one peer; nim-libp2p has 1024 (CVE-2026-46679)


@dataclass(slots=True)
class Peer:
    """What we know of one peer. `version` is None while we have no stream to it."""

    met: float  # when it connected, or opened a new stream: it may have restarted then
    version: Version | None = None
    outbound: bool = False  # we dialed it
    topics: dict[str, None] = field(default_factory=dict)
    announced: tuple[str, ...] = ()  # our topics that it knows of
    interrupted: tuple[str, ...] = ()  # meshes it was in when our stream broke
    relisting: bool = False  # it opened a new stream, and will say all its topics anew

    @property
    def writable(self) -> bool:
        """Whether we have a stream to it."""
        return self.version is not None

    @property
    def speaks_gossipsub(self) -> bool:
        """Whether we can send it control messages."""
        return self.version is not None and self.version is not FLOODSUB


class PeerTable:
    """All peers, and who of them subscribes to which topic; an empty topic leaves no trace."""

    def __init__(self) -> None:
        self._peers: dict[PeerId, Peer] = {}
        self._subscribers: dict[str, dict[PeerId, Peer]] = {}
        self._floodsub: dict[PeerId, None] = {}  # those that know nothing else

    def __len__(self) -> int:
        return len(self._peers)

    def __getitem__(self, peer: PeerId) -> Peer:
        return self._peers[peer]

    def get(self, peer: PeerId) -> Peer | None:
        """The peer, or None when we do not know it."""
        return self._peers.get(peer)

    def add(self, peer: PeerId, now: float) -> Peer:
        """The peer, made known if it is new."""
        state = self._peers.get(peer)
        if state is None:
            state = self._peers[peer] = Peer(met=now)
        return state

    def remove(self, peer: PeerId) -> None:
        """Forgets `peer` and its subscriptions."""
        if peer in self._peers:
            for topic in list(self._peers[peer].topics):
                self.unsubscribe(peer, topic)
            self.set_version(peer, None)
            del self._peers[peer]

    def set_version(self, peer: PeerId, version: Version | None) -> None:
        """Notes what `peer` understands; None when our stream to it is gone."""
        self._peers[peer].version = version
        if version is FLOODSUB:
            self._floodsub[peer] = None
        else:
            self._floodsub.pop(peer, None)

    def subscribe(self, peer: PeerId, topic: str) -> bool:
        """Notes that `peer` subscribes to `topic`; False when it has too many topics."""
        state = self._peers[peer]
        if topic not in state.topics and len(state.topics) >= MAX_TOPICS:
            return False
        state.topics[topic] = None
        self._subscribers.setdefault(topic, {})[peer] = state
        return True

    def unsubscribe(self, peer: PeerId, topic: str) -> None:
        """Notes that `peer` does not subscribe to `topic`."""
        if topic in self._peers[peer].topics:
            del self._peers[peer].topics[topic]
            del self._subscribers[topic][peer]
            if not self._subscribers[topic]:
                del self._subscribers[topic]

    def writable(self) -> list[PeerId]:
        """The peers that we have a stream to."""
        return [peer for peer, state in self._peers.items() if state.writable]

    def subscribers(self, topic: str) -> list[PeerId]:
        """The subscribers of `topic` that we have a stream to."""
        return [peer for peer, state in self._subscribers.get(topic, {}).items() if state.version is not None]

    def floodsub_peers(self, topic: str) -> list[PeerId]:
        """The subscribers of `topic` that know nothing but floodsub: they get every message."""
        if not self._floodsub:
            return []
        subscribers = self._subscribers.get(topic, {})
        return [peer for peer, state in subscribers.items() if state.version is FLOODSUB]

    def candidates(self, topic: str) -> dict[PeerId, bool]:
        """The subscribers of `topic` that can be in its mesh, and whether we dialed them."""
        subscribers = self._subscribers.get(topic, {})
        return {
            peer: state.outbound
            for peer, state in subscribers.items()
            if state.version is not None and state.version is not FLOODSUB
        }
