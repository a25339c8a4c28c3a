"""What waits to be sent to one peer: control first, then messages, then gossip.

Control is kept as what it amounts to (the last word on each topic), so it is bounded without losing
any; it leaves with the next send, ahead of the messages in it. Messages are packed into RPCs of 64 KiB.
When more than 32 RPCs wait the peer is too slow: the oldest gossip is dropped, then the oldest
messages, which it can still learn of by the gossip of others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from p2p.framing import encode_delimited
from p2p.gossipsub.wire import (
    MAX_UNWANTED_IDS,
    SMALL_RPC,
    SMALL_RPCS,
    SPLIT_SIZE,
    IHave,
    Message,
    Prune,
    Rpc,
    Subscription,
    encode_messages,
    encode_rpc,
    message_size,
    split,
)

MAX_QUEUE = 32  # RPCs with messages or gossip; go's outbound queue
SEND_SIZE = 1 << 18  # bytes handed over at a time: what comes meanwhile may overtake the rest


@dataclass(slots=True)
class Control:
    """Control for one peer that accumulates until it is sent."""

    subscriptions: dict[str, bool] = field(default_factory=dict)
    mesh: dict[str, Prune | None] = field(default_factory=dict)  # topic → PRUNE, or None for GRAFT
    idontwant: dict[bytes, None] = field(default_factory=dict)
    ihave: list[IHave] = field(default_factory=list)
    iwant: list[bytes] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.subscriptions or self.mesh or self.idontwant or self.ihave or self.iwant)

    def add(self, rpc: Rpc) -> None:
        """Takes over the subscriptions, GRAFT, PRUNE and IDONTWANT of `rpc`."""
        self.subscriptions.update((entry.topic, entry.subscribe) for entry in rpc.subscriptions)
        self.mesh.update(dict.fromkeys(rpc.graft))
        self.mesh.update((entry.topic, entry) for entry in rpc.prune)
        self.idontwant.update(dict.fromkeys(rpc.idontwant))
        while len(self.idontwant) > MAX_UNWANTED_IDS:
            del self.idontwant[next(iter(self.idontwant))]

    def to_rpc(self) -> Rpc:
        """All of it in one RPC."""
        return Rpc(
            subscriptions=tuple(
                Subscription(topic=topic, subscribe=on) for topic, on in self.subscriptions.items()
            ),
            graft=tuple(topic for topic, prune in self.mesh.items() if prune is None),
            prune=tuple(prune for prune in self.mesh.values() if prune is not None),
            idontwant=tuple(self.idontwant),
            ihave=tuple(self.ihave),
            iwant=tuple(self.iwant),
        )


class _Batch:
    """Messages that share an RPC."""

    __slots__ = ("messages", "size")

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.size = 0  # bytes


class Outbox:
    """The queue of one stream: RPCs in, bytes out."""

    __slots__ = ("_batches", "_control", "_gossip", "_only", "_waits", "gossip_dropped", "messages_dropped")

    def __init__(self) -> None:
        self._only: Rpc | None = None  # the first, until another comes: mostly it leaves by itself
        self._waits = False  # whether anything does in what follows
        self._control: Control | None = None
        self._batches: list[_Batch] = []  # mostly empty, and a deque is 600 bytes
        self._gossip: list[Rpc] = []
        self.messages_dropped = 0
        self.gossip_dropped = 0  # RPCs

    def push(self, rpc: Rpc) -> None:
        """Queues everything in `rpc`; drops the oldest gossip, or else messages, when that is too much."""
        if self._only is not None:
            first, self._only = self._only, None
            self._queue(first)
        elif not self._waits:
            self._only = rpc
            return
        self._queue(rpc)

    def _queue(self, rpc: Rpc) -> None:
        self._waits = True
        if rpc.subscriptions or rpc.graft or rpc.prune or rpc.idontwant:
            self._control = self._control or Control()
            self._control.add(rpc)
        for message in rpc.messages:
            self._push_message(message)
        if rpc.ihave or rpc.iwant:
            self._gossip.extend(split(Rpc(ihave=rpc.ihave, iwant=rpc.iwant)))
        while len(self._batches) + len(self._gossip) > MAX_QUEUE:
            if self._gossip:
                self._gossip.pop(0)
                self.gossip_dropped += 1
            else:
                self.messages_dropped += len(self._batches.pop(0).messages)

    def _push_message(self, message: Message) -> None:
        size = message_size(message)
        if not self._batches or self._batches[-1].size + size > SPLIT_SIZE:
            self._batches.append(_Batch())
        self._batches[-1].messages.append(message)
        self._batches[-1].size += size

    def data_to_send(self) -> bytes:
        """The next bytes for the stream, b"" when nothing waits: at most SEND_SIZE, or a single RPC."""
        if self._only is not None:
            rpc, self._only = self._only, None
            if rpc.is_message:
                return _encode_messages(rpc.messages)
            self._queue(rpc)
        elif not self._waits:
            return b""
        parts: list[bytes] = []
        if self._control is not None:
            parts += [encode_delimited(encode_rpc(rpc)) for rpc in split(self._control.to_rpc())]
            self._control = None
        size = 0
        while self._batches and (not size or size + self._batches[0].size <= SEND_SIZE):
            batch = self._batches.pop(0)
            parts.append(_encode_messages(batch.messages))
            size += batch.size
        while self._gossip and not self._batches and size <= SEND_SIZE:
            parts.append(encode_delimited(encode_rpc(self._gossip.pop(0))))
            size += SPLIT_SIZE
        self._waits = bool(self._batches or self._gossip)
        return parts[0] if len(parts) == 1 else b"".join(parts)


def _encode_messages(messages: Sequence[Message]) -> bytes:
    """The RPC of these messages, behind its length."""
    if len(messages) == 1 and len(messages[0].raw) <= SMALL_RPC:
        return _encode_single(messages[0].raw)
    return encode_delimited(encode_messages([message.raw for message in messages]))


@lru_cache(SMALL_RPCS)
def _encode_single(raw: bytes) -> bytes:
    """The RPC of one message: mostly the same for all peers of a mesh, so it is made once, not D times."""
    return encode_delimited(encode_messages((raw,)))
