"""Routers that break a rule of gossipsub; in everything else they are the shipped one.

They draw nothing at random, and what they send in a heartbeat has a bound, so that a run with them ends.
Sources: gossipsub-v1.1.md "Attack Scenarios"; Vyzovitis et al. 2020, "GossipSub: Attack-Resilient Message
Propagation in the Filecoin and ETH2.0 Networks".
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import replace
from hashlib import sha256
from typing import Any

from p2p.gossipsub.events import Action, SendRpc
from p2p.gossipsub.params import GossipsubParams
from p2p.gossipsub.router import Router
from p2p.gossipsub.signing import SEQNO_SIZE
from p2p.gossipsub.wire import IHave, Message, Rpc, encode_message
from p2p.peer_id import PeerId

SPAM_IDS = 500  # made-up ids in a heartbeat for each peer; the router asks for at most 5000
GRAFTS = 10  # of one peer and topic in a heartbeat; without a bound two peers at no distance never end
REPLAYED = 50  # messages that are kept and sent again
FORGED = 20  # messages in a heartbeat for each peer
EVERYBODY = 100_000  # mesh members: more than there are nodes


class Dropper(Router):
    """Passes on nothing of others: neither eagerly nor when asked."""

    def _forward(self, rpc: Rpc, message_id: bytes, peers: Iterable[PeerId], now: float) -> None:
        if rpc.messages[0].origin == self.peer_id.raw:
            super()._forward(rpc, message_id, peers, now)

    def _advertise(self, topic: str, candidates: Iterable[PeerId], members: Iterable[PeerId]) -> None:
        pass

    def _receive_rpc(self, peer: PeerId, rpc: Rpc, now: float) -> None:
        super()._receive_rpc(peer, replace(rpc, iwant=()) if rpc.iwant else rpc, now)


class Eclipser(Dropper):
    """Is in every mesh that takes it, as early as it may, and passes on nothing."""

    def __init__(self, *, params: GossipsubParams | None = None, **arguments: Any) -> None:
        honest = params or GossipsubParams()
        greedy = replace(honest, mesh_low=EVERYBODY, mesh_size=EVERYBODY, mesh_high=EVERYBODY)
        super().__init__(params=greedy, **arguments)


class _Sometimes(Eclipser, ABC):
    """Passes on what it chooses to, by `_drops`, and is honest beside."""

    @abstractmethod
    def _drops(self, message: Message, now: float) -> bool:
        """Whether this message is not passed on."""

    def _forward(self, rpc: Rpc, message_id: bytes, peers: Iterable[PeerId], now: float) -> None:
        if self._drops(rpc.messages[0], now):
            super()._forward(rpc, message_id, peers, now)
        else:
            Router._forward(self, rpc, message_id, peers, now)


class Degrader(_Sometimes):
    """Is in every mesh that takes it, and passes on every other message, the same to all."""

    def _drops(self, message: Message, now: float) -> bool:
        return bool(sha256(self.peer_id.raw + message.address).digest()[0] & 1)


class Covert(_Sometimes):
    """Is in every mesh that takes it and honest until `turns_at`, when it begins to pass on nothing."""

    turns_at: float = 120.0  # seconds of the run
    _heartbeat_now = 0.0

    def handle_timer(self, now: float) -> list[Action]:
        """The heartbeat; what it advertises depends on when it is."""
        self._heartbeat_now = now
        return super().handle_timer(now)

    def _drops(self, message: Message, now: float) -> bool:
        return now >= self.turns_at

    def _advertise(self, topic: str, candidates: Iterable[PeerId], members: Iterable[PeerId]) -> None:
        if self._heartbeat_now < self.turns_at:
            Router._advertise(self, topic, candidates, members)

    def _receive_rpc(self, peer: PeerId, rpc: Rpc, now: float) -> None:
        if now < self.turns_at:
            Router._receive_rpc(self, peer, rpc, now)
        else:
            super()._receive_rpc(peer, rpc, now)


def covert_until(turns_at: float) -> type[Router]:
    """A `Covert` that is honest for so long."""
    return type("CovertUntil", (Covert,), {"turns_at": turns_at})


class Censor(Router):
    """Drops what one origin publishes; is honest otherwise."""

    victim: bytes = b""  # raw peer id; empty: the first origin of which a message comes

    def _receive_message(self, peer: PeerId, message: Message, rpc: Rpc, now: float) -> None:
        if not self.victim:
            self.victim = message.origin
        if message.origin != self.victim:
            super()._receive_message(peer, message, rpc, now)


def censor_of(victim: PeerId) -> type[Router]:
    """A `Censor` of this peer."""
    return type("CensorOfOne", (Censor,), {"victim": victim.raw})


class _Heartbeat(Router, ABC):
    """Does something with every heartbeat, beside what is right."""

    def handle_timer(self, now: float) -> list[Action]:
        """The heartbeat, once it is due, and then what is wrong."""
        due = self.next_deadline()
        actions = super().handle_timer(now)
        if due is None or now < due:
            return actions
        for topic in self.topics():
            for peer in self.subscribers(topic):
                self._attack(peer, topic)
        return actions + self._take_actions()

    @abstractmethod
    def _attack(self, peer: PeerId, topic: str) -> None:
        """Does to one subscriber of a topic what is wrong."""


class IHaveSpammer(_Heartbeat):
    """Advertises what does not exist: who asks for it waits in vain."""

    _invented = 0  # so far

    def _attack(self, peer: PeerId, topic: str) -> None:
        first, self._invented = self._invented, self._invented + SPAM_IDS
        ids = tuple(
            sha256(self.peer_id.raw + number.to_bytes(8, "big")).digest()
            for number in range(first, self._invented)
        )
        self._to(peer).ihave.append(IHave(topic=topic, ids=ids))


class GraftFlooder(_Heartbeat):
    """Wants to be in every mesh, whatever back-off it is told."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)  # the router's
        self._grafts: dict[tuple[PeerId, str], int] = {}  # sent since the heartbeat

    def handle_timer(self, now: float) -> list[Action]:
        """The heartbeat: a new budget, and a GRAFT to everybody."""
        if (due := self.next_deadline()) is not None and now >= due:
            self._grafts.clear()
        return super().handle_timer(now)

    def _attack(self, peer: PeerId, topic: str) -> None:
        sent = self._grafts.get((peer, topic), 0)
        if sent < GRAFTS:
            self._grafts[peer, topic] = sent + 1
            self._send_graft(peer, topic)

    def _receive_rpc(self, peer: PeerId, rpc: Rpc, now: float) -> None:
        super()._receive_rpc(peer, rpc, now)
        for prune in rpc.prune:
            if self._mesh.joined(prune.topic):
                self._attack(peer, prune.topic)


class Replayer(_Heartbeat):
    """Sends old messages again, also when everybody has long forgotten that they were seen."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._kept: dict[str, dict[bytes, Message]] = {}  # by topic, by what they are

    def _receive_message(self, peer: PeerId, message: Message, rpc: Rpc, now: float) -> None:
        kept = self._kept.setdefault(message.topic, {})
        if len(kept) < REPLAYED:
            kept.setdefault(message.raw, message)
        super()._receive_message(peer, message, rpc, now)

    def _attack(self, peer: PeerId, topic: str) -> None:
        if messages := tuple(self._kept.get(topic, {}).values()):
            self._actions.append(SendRpc(peer=peer, rpc=Rpc(messages=messages)))


class Forger(_Heartbeat):
    """Floods with messages of others that these never signed."""

    _forged = 0  # so far

    def _attack(self, peer: PeerId, topic: str) -> None:
        others = [other.raw for other in self.subscribers(topic) if other != peer]
        messages = tuple(self._forge(others or [self.peer_id.raw], topic) for _ in range(FORGED))
        self._actions.append(SendRpc(peer=peer, rpc=Rpc(messages=messages)))

    def _forge(self, origins: list[bytes], topic: str) -> Message:
        """The next message, in the name of one of `origins` after the other."""
        self._forged += 1
        seqno = self._forged.to_bytes(SEQNO_SIZE, "big")
        origin, signature = origins[self._forged % len(origins)], sha256(seqno).digest() * 2
        raw = encode_message(origin=origin, data=b"forged", seqno=seqno, topic=topic, signature=signature)
        return Message(
            raw=raw, origin=origin, data=b"forged", seqno=seqno, topic=topic, signature=signature, key=b""
        )
