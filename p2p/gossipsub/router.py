"""The gossipsub router: a machine that turns what peers and we do into RPCs and deliveries.

    Join, Leave, Publish ───┐               ┌──→ SendRpc
    StreamOpened, RPC, … ───┼─→ handle ─────┼──→ Deliver
    time ─→ handle_timer ───┘               └──→ Published, Introduced, ValidatorFailed

It composes: `peers` (who subscribes to what), `mesh` (whom we send everything), `gossip` (who hears
of it), `intake` (which messages count), `cache` (which we had), `score` (who behaves). All control for
one peer that comes of one call leaves in one RPC, ahead of the messages.
Source: libp2p/specs pubsub/README.md, gossipsub-v1.0.md, gossipsub-v1.1.md, gossipsub-v1.2.md.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from p2p.errors import LocalProtocolError
from p2p.gossipsub.cache import MessageHistory
from p2p.gossipsub.events import (
    Action,
    Deliver,
    Event,
    InboundOpened,
    Introduced,
    Join,
    Leave,
    PeerGone,
    Publish,
    Published,
    RpcReceived,
    SendRpc,
    StreamLost,
    StreamOpened,
    Validator,
    ValidatorFailed,
    Verdict,
)
from p2p.gossipsub.fanout import Fanout
from p2p.gossipsub.gossip import Gossip
from p2p.gossipsub.intake import Counters, Intake, Useless
from p2p.gossipsub.mesh import Mesh
from p2p.gossipsub.outbox import Control
from p2p.gossipsub.params import GossipsubParams
from p2p.gossipsub.peers import PeerTable
from p2p.gossipsub.score import PeerScores
from p2p.gossipsub.signing import (
    MessageIdFunction,
    Verify,
    message_id_from_seqno,
    sign_message,
    verify_message,
)
from p2p.gossipsub.wire import MAX_TOPIC, IHave, Message, Prune, Rpc, Subscription, Version
from p2p.keys import KeyPair
from p2p.peer_id import PeerId

if TYPE_CHECKING:
    from random import Random


class Router:
    """One peer's gossipsub. `seqno` is the first sequence number: unix nanoseconds, never to go back.

    `verify` tells who signed a message; a simulation passes one that remembers what it told another peer.
    """

    def __init__(
        self,
        *,
        key: KeyPair,
        rng: Random,
        seqno: int,
        params: GossipsubParams | None = None,
        message_id: MessageIdFunction = message_id_from_seqno,
        verify: Verify = verify_message,
    ) -> None:
        self.params = params = params or GossipsubParams()
        self.peer_id = PeerId.from_public_key(key.public)
        self._key = key
        self._seqno = seqno
        self._peers = PeerTable()
        self._scores = PeerScores(params.score)
        self._mesh = Mesh(params, rng, self._scores)
        self._fanout = Fanout(params, rng)
        self._gossip = Gossip(params, rng)
        self._intake = Intake(self.peer_id, params.seen_ttl, params.max_message_size, message_id, verify)
        self._history = MessageHistory(params.history_length, params.history_gossip, params.retransmissions)
        self._heartbeat_at: float | None = None
        self._heartbeats = 0
        self._control: dict[PeerId, Control] = {}  # what the call in progress has for each peer
        self._actions: list[Action] = []  # and everything else that comes of it

    # What is known

    @property
    def counters(self) -> Counters:
        """What became of messages, since the start."""
        return self._intake.counters

    def topics(self) -> list[str]:
        """The topics that we joined."""
        return self._mesh.topics

    def subscribers(self, topic: str) -> list[PeerId]:
        """The peers known to subscribe to `topic` that we can reach."""
        return self._peers.subscribers(topic)

    def mesh(self, topic: str) -> list[PeerId]:
        """The peers in our mesh of `topic`."""
        return self._mesh.members(topic)

    @property
    def scores(self) -> PeerScores:
        """What we think of our peers."""
        return self._scores

    def set_validator(self, topic: str, validator: Validator) -> None:
        """Lets `validator` decide on the messages of `topic`, instead of one set before."""
        self._intake.validators[topic] = validator

    # Time

    def next_deadline(self) -> float | None:
        """When `handle_timer` is due; None while there is nobody to talk to and nothing to forget."""
        return self._heartbeat_at

    def handle_timer(self, now: float) -> list[Action]:
        """The heartbeat, once it is due: maintains the meshes, gossips, forgets."""
        if self._heartbeat_at is None or now < self._heartbeat_at:
            return []
        for peer, broken in self._gossip.handle_heartbeat(now).items():
            self._scores.handle_misbehaviour(peer, broken, now)
        self._scores.handle_heartbeat(now)
        self._heartbeats += 1
        opportunistic = self._heartbeats % self.params.opportunistic_every == 0
        for topic in self._mesh.topics:
            candidates = self._peers.candidates(topic)
            change = self._mesh.maintain(topic, candidates, now, opportunistic=opportunistic)
            for peer in change.grafted:
                self._send_graft(peer, topic)
            for peer in change.pruned:
                self._send_prune(peer, topic, self.params.prune_backoff)
            self._advertise(topic, candidates, self._mesh.members(topic))
        self._fanout.expire(now)
        for topic in self._fanout.topics:
            candidates = self._peers.candidates(topic)
            self._advertise(topic, candidates, self._fanout.maintain(topic, candidates))
        self._mesh.backoffs.expire(now)
        self._intake.seen.expire(now)
        self._history.shift()
        due = self._heartbeat_at + self.params.heartbeat_interval
        self._heartbeat_at = due if due > now else now + self.params.heartbeat_interval
        if not self._peers and not self._history:
            self._heartbeat_at = None
        return self._take_actions()

    def _advertise(self, topic: str, candidates: Iterable[PeerId], members: Iterable[PeerId]) -> None:
        """Sends IHAVE with the recent ids of `topic` to some of the `candidates` that are not `members`."""
        ids = self._history.advertised(topic)
        if not ids:
            return
        inside = dict.fromkeys(members)
        outside = [peer for peer in candidates if peer not in inside]
        outside = self._scores.above(outside, self.params.score.gossip_threshold)
        for peer in self._gossip.choose_peers(outside, self._scores.proven(outside)):
            self._to(peer).ihave.append(IHave(topic=topic, ids=self._gossip.choose_ids(ids)))

    # Events

    def handle(self, event: Event, now: float) -> list[Action]:
        """What follows from `event`. Raises `LocalProtocolError` for a publication over a limit."""
        if self._heartbeat_at is None:
            self._heartbeat_at = now + self.params.heartbeat_delay
        match event:
            case RpcReceived(peer=peer, rpc=rpc):
                return self.receive_rpc(peer, rpc, now)
            case Publish(topic=topic, data=data):
                self._publish(topic, data, now)
            case StreamOpened():
                self._open_peer(event, now)
            case StreamLost(peer=peer):
                self._interrupt_peer(peer)
            case InboundOpened(peer=peer):
                state = self._peers.add(peer, now)
                state.met, state.relisting = now, True
            case PeerGone(peer=peer):
                self._mesh.remove(peer)
                self._gossip.remove(peer)
                self._peers.remove(peer)
                self._scores.handle_disconnected(peer, now)
            case Join(topic=topic):
                self._join(topic, now)
            case Leave(topic=topic):
                self._leave(topic, now)
        return self._take_actions()

    def receive_rpc(self, peer: PeerId, rpc: Rpc, now: float) -> list[Action]:
        """As `handle` of `RpcReceived`, which nearly every event is: without the event.

        Of whoever is graylisted nothing is heard but its topics, which a stream says only once: when its
        score has healed it has to be reachable, as in go.
        """
        if self._heartbeat_at is None:
            self._heartbeat_at = now + self.params.heartbeat_delay
        if self._scores.bad and self._scores.is_graylisted(peer):
            if not rpc.subscriptions:
                return []
            rpc = Rpc(subscriptions=rpc.subscriptions)
        self._receive_rpc(peer, rpc, now)
        return self._take_actions() if self._actions or self._control else []

    def _open_peer(self, event: StreamOpened, now: float) -> None:
        """Says on a new stream what we subscribe to; puts meshes right that the old stream's end tore."""
        state = self._peers.add(event.peer, now)
        self._peers.set_version(event.peer, event.version)
        self._scores.handle_connected(event.peer, event.address)
        state.outbound = event.outbound
        left = [topic for topic in state.announced if not self._mesh.joined(topic)]
        self._to(event.peer).subscriptions.update(dict.fromkeys(left, False))
        state.announced = ()
        for topic in self._mesh.topics:
            self._announce(event.peer, topic)
        interrupted, state.interrupted = state.interrupted, ()
        for topic in interrupted:
            if not self._mesh.joined(topic) or not state.speaks_gossipsub:
                continue
            if topic in state.topics and self._mesh.admit(topic, event.peer, now, back=True):
                self._send_graft(event.peer, topic)
            else:
                self._send_prune(event.peer, topic, self.params.prune_backoff)
        for topic in state.topics:
            self._admit(event.peer, topic, now)

    def _interrupt_peer(self, peer: PeerId) -> None:
        state = self._peers.get(peer)
        if state is not None:
            self._peers.set_version(peer, None)
            torn = (*state.interrupted, *self._mesh.remove(peer))
            state.interrupted = tuple(dict.fromkeys(torn))

    def _join(self, topic: str, now: float) -> None:
        if self._mesh.joined(topic):
            return
        if not 0 < len(topic.encode()) <= MAX_TOPIC:
            raise LocalProtocolError(f"a topic has 1 to {MAX_TOPIC} bytes, not {len(topic.encode())}")
        preferred = self._fanout.leave(topic)
        for peer in self._mesh.join(topic, preferred, self._peers.candidates(topic), now):
            self._send_graft(peer, topic)
        for peer in self._peers.writable():
            self._announce(peer, topic)

    def _leave(self, topic: str, now: float) -> None:
        if not self._mesh.joined(topic):
            return
        for peer in self._mesh.leave(topic, now):
            self._send_prune(peer, topic, self.params.unsubscribe_backoff)
        for peer in self._peers.writable():
            state = self._peers[peer]
            state.announced = tuple(known for known in state.announced if known != topic)
            self._to(peer).subscriptions[topic] = False

    def _publish(self, topic: str, data: bytes, now: float) -> None:
        limit = self.params.max_message_size
        message = sign_message(self._key, topic=topic, data=data, seqno=self._seqno)
        if len(message.raw) > limit:
            raise LocalProtocolError(f"a message of {len(message.raw)} bytes is over the limit of {limit}")
        self._seqno += 1
        message_id = self._intake.message_id(message)
        if not self._intake.seen.contains(message_id, now):
            self._intake.seen.add(message_id, now)
            self._history.put(message_id, message)
        self.counters.published += 1
        self._actions.append(Published(id=message_id))
        mesh = self._mesh.members(topic)
        if not self._mesh.joined(topic):
            mesh = self._fanout.publish(topic, self._peers.candidates(topic), now)
        targets = mesh + self._peers.floodsub_peers(topic)
        if self.params.flood_publish:
            targets = self._peers.subscribers(topic)
        targets = self._scores.above(targets, self.params.score.publish_threshold)
        self._forward(Rpc(messages=(message,)), message_id, targets, now)

    # RPCs

    def _receive_rpc(self, peer: PeerId, rpc: Rpc, now: float) -> None:
        self._peers.add(peer, now)
        if rpc.subscriptions:
            self._receive_subscriptions(peer, rpc.subscriptions, now)
        if rpc.idontwant:
            self._gossip.handle_idontwant(peer, rpc.idontwant, now)
        if rpc.graft:
            for topic in dict.fromkeys(rpc.graft):
                self._receive_graft(peer, topic, now)
        for prune in rpc.prune:
            self._mesh.handle_prune(prune.topic, peer, prune.backoff, now)
            if prune.records and self._scores.may_introduce(peer):
                self._actions.append(Introduced(records=prune.records))
        for message in rpc.messages:
            self._receive_message(peer, message, rpc, now)
        if not (rpc.ihave or rpc.iwant) or not self._heeds_gossip(peer):
            return
        if rpc.ihave:
            ids = [i for entry in rpc.ihave if self._mesh.joined(entry.topic) for i in entry.ids]
            wanted = self._gossip.handle_ihave(peer, ids, self._intake.seen, now)
            if wanted:
                self._to(peer).iwant.extend(wanted)
        if rpc.iwant:
            found = self._gossip.handle_iwant(peer, rpc.iwant, self._history, now)
            if found:
                self._actions.append(SendRpc(peer=peer, rpc=Rpc(messages=found)))

    def _heeds_gossip(self, peer: PeerId) -> bool:
        """Whether what `peer` advertises and asks for counts, and it can be answered."""
        return self._peers[peer].speaks_gossipsub and self._scores.may_gossip(peer)

    def _receive_subscriptions(self, peer: PeerId, entries: Iterable[Subscription], now: float) -> None:
        state = self._peers[peer]
        latest = {entry.topic: entry.subscribe for entry in entries}
        if state.relisting:  # the first list on a new stream is the whole list
            state.relisting = False
            latest = dict.fromkeys((topic for topic in state.topics if topic not in latest), False) | latest
        for topic, subscribe in latest.items():
            if not subscribe:
                self._peers.unsubscribe(peer, topic)
                self._mesh.remove(peer, topic)
            elif self._peers.subscribe(peer, topic):
                self._admit(peer, topic, now)

    def _receive_graft(self, peer: PeerId, topic: str, now: float) -> None:
        """Answers a GRAFT; one for a topic that we did not join, or from a peer out of reach, is ignored."""
        state = self._peers[peer]
        if not self._mesh.joined(topic) or not state.speaks_gossipsub:
            return
        wait: float | None = self.params.prune_backoff
        if self._peers.subscribe(peer, topic):
            wait = self._mesh.handle_graft(topic, peer, outbound=state.outbound, met=state.met, now=now)
        if wait is not None:
            self._send_prune(peer, topic, wait)

    def _receive_message(self, peer: PeerId, message: Message, rpc: Rpc, now: float) -> None:
        if not self._mesh.joined(message.topic):
            return
        topic, message_id = message.topic, self._intake.screen(message, now)
        if message_id is None:
            if self._scores.rates:
                self._scores.handle_copy(topic, peer, self._intake.message_id(message), now)
            return
        if not isinstance(message_id, bytes):
            if message_id is Useless.MALFORMED:
                self._scores.handle_invalid(topic, peer)
            return
        verified = self._intake.verify(message, message_id, peer)
        if verified is None:
            self._scores.handle_invalid(topic, peer)
            return
        self._intake.seen.add(message_id, now)
        self._gossip.arrived(message_id)
        members = self._mesh.members(topic)
        if len(message.raw) >= self.params.idontwant_size:
            self._refuse_elsewhere(message_id, members, peer)
        verdict = self._intake.judge(verified)
        if isinstance(verdict, ValidatorFailed):
            self._actions.append(verdict)
        elif verdict is Verdict.REJECT:
            self._scores.handle_invalid(topic, peer)
        elif verdict is Verdict.ACCEPT:
            self._scores.handle_first(topic, peer, message_id, now)
            self._actions.append(Deliver(message=verified))
            self._history.put(message_id, message)
            floodsub = self._peers.floodsub_peers(topic)
            if floodsub:
                floodsub = self._scores.above(floodsub, self.params.score.publish_threshold)
            targets = list(dict.fromkeys(members + floodsub)) if floodsub else members
            had = (peer.raw, message.origin)
            bare = rpc if rpc.is_message else Rpc(messages=(message,))
            others = [target for target in targets if target.raw not in had]
            self._forward(bare, message_id, others, now)

    def _refuse_elsewhere(self, message_id: bytes, members: Iterable[PeerId], sender: PeerId) -> None:
        """Tells the mesh that a large message is here; only after its signature, which proves the id."""
        for peer in members:
            version = self._peers[peer].version
            if peer != sender and version is not None and version >= Version.V1_2:
                self._to(peer).idontwant[message_id] = None

    # Output

    def _admit(self, peer: PeerId, topic: str, now: float) -> None:
        if self._peers[peer].speaks_gossipsub and self._mesh.admit(topic, peer, now):
            self._send_graft(peer, topic)

    def _forward(self, rpc: Rpc, message_id: bytes, peers: Iterable[PeerId], now: float) -> None:
        """Sends `rpc`, which carries one message and nothing else."""
        willing = self._gossip.willing(peers, message_id, now)
        self._actions += [SendRpc(peer=peer, rpc=rpc) for peer in willing]

    def _announce(self, peer: PeerId, topic: str) -> None:
        state = self._peers[peer]
        if topic not in state.announced:
            state.announced += (topic,)
        self._to(peer).subscriptions[topic] = True

    def _send_graft(self, peer: PeerId, topic: str) -> None:
        self._to(peer).mesh[topic] = None

    def _send_prune(self, peer: PeerId, topic: str, backoff: float) -> None:
        version = self._peers[peer].version
        carries_backoff = version is not None and version >= Version.V1_1
        self._to(peer).mesh[topic] = Prune(topic=topic, backoff=int(backoff) if carries_backoff else None)

    def _to(self, peer: PeerId) -> Control:
        """The control that goes to `peer` when the call in progress ends."""
        control = self._control.get(peer)
        if control is None:
            control = self._control[peer] = Control()
        return control

    def _take_actions(self) -> list[Action]:
        """What the call in progress came to, control first."""
        actions, self._actions = self._actions, []
        if not self._control:
            return actions
        control: list[Action] = [
            SendRpc(peer=peer, rpc=pending.to_rpc()) for peer, pending in self._control.items() if pending
        ]
        self._control = {}
        return control + actions
