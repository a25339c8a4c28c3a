"""Gossipsub's RPC: bytes ⇄ values, with everything bounded.

    RPC = subscriptions* · messages* · control?       control = ihave* · iwant* · graft* · prune* · idontwant*

On the stream each RPC stands behind its length (`p2p.framing`). Unknown fields are skipped. Too many
entries make an RPC malformed; too many or too long ids and topics are left out, since every one of
them is only an offer.
Source: libp2p/specs pubsub/README.md, gossipsub-v1.0.md, gossipsub-v1.1.md, gossipsub-v1.2.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from enum import IntEnum
from functools import lru_cache
from typing import Any

from google.protobuf.message import DecodeError

from p2p.errors import RemoteProtocolError
from p2p.gossipsub import rpc_pb2 as pb

MAX_RPC = 1 << 20  # bytes of one RPC, as go
MAX_ENTRIES = (
    5000  # subscriptions, messages, control entries of a kind in one RPC; js-libp2p (CVE-2026-46679)
)
MAX_IDS = 5000  # ids taken from all IHAVE, and from all IWANT, of one RPC; go, js
MAX_UNWANTED_IDS = 512  # ids taken from all IDONTWANT of one RPC; js
MAX_SENT_UNWANTED_IDS = 10  # go reads no more of one RPC
MAX_ID = 512  # bytes; the longest known are js ids of RSA peers, about 310
MAX_PX = 16  # peers taken from one PRUNE; go, js
MAX_TOPIC = 1024  # bytes; with 1000 topics a peer this is js-libp2p's 1 MiB of topics a peer
SPLIT_SIZE = 1 << 16  # bytes; rust-libp2p refuses longer RPCs unless told otherwise
SMALL_RPC = 4096  # bytes; longer ones are neither decoded nor encoded once for all
SMALL_RPCS = 128  # of them that are kept, decoded and encoded: about 1 MiB of each, if all are that long
SUBSCRIPTIONS = b"\x0a"  # the tag that an RPC with subscriptions begins with
MESSAGES = b"\x12"  # the tag that an RPC of nothing but messages begins with
_ENTRY = 12  # bytes around an entry: its tags and lengths, those of control, a backoff


class Version(IntEnum):
    """What a peer understands, by the protocol that was agreed on."""

    FLOODSUB = 0
    V1_0 = 10
    V1_1 = 11  # PRUNE carries a backoff
    V1_2 = 12  # IDONTWANT


VERSIONS = {  # in the order in which they are offered
    "/meshsub/1.2.0": Version.V1_2,
    "/meshsub/1.1.0": Version.V1_1,
    "/meshsub/1.0.0": Version.V1_0,
    "/floodsub/1.0.0": Version.FLOODSUB,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription:
    """The sender joins or leaves `topic`."""

    topic: str
    subscribe: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A published message as it came, nothing checked; an absent field is empty.

    `raw` is the serialized message: what is forwarded. `address` is origin ‖ seqno, made once for all
    peers that a message comes from.
    """

    raw: bytes
    origin: bytes
    data: bytes
    seqno: bytes
    topic: str
    signature: bytes
    key: bytes
    address: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "address", self.origin + self.seqno)


@dataclass(frozen=True, slots=True, kw_only=True)
class IHave:
    """The sender has these messages of `topic`."""

    topic: str
    ids: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prune:
    """The sender takes the receiver out of its mesh of `topic`, for `backoff` seconds if it says so.

    `records` are signed peer records, unchecked, of whom it may find instead; they are never sent.
    """

    topic: str
    backoff: int | None = None
    records: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rpc:
    """One RPC. `graft` has topics; `iwant` and `idontwant` have message ids."""

    subscriptions: tuple[Subscription, ...] = ()
    messages: tuple[Message, ...] = ()
    ihave: tuple[IHave, ...] = ()
    iwant: tuple[bytes, ...] = ()
    graft: tuple[str, ...] = ()
    prune: tuple[Prune, ...] = ()
    idontwant: tuple[bytes, ...] = ()

    @property
    def is_message(self) -> bool:
        """Whether there is one message in it and nothing else."""
        beside = self.subscriptions or self.ihave or self.iwant or self.graft or self.prune or self.idontwant
        return len(self.messages) == 1 and not beside


def decode_rpc(data: bytes) -> Rpc:
    """The RPC in an unframed message. Raises `RemoteProtocolError` when it is malformed or over a limit.

    A message comes from most peers of a mesh in the very same bytes: decoding them once saves half of
    what a duplicate costs. Nothing in an RPC can be changed, so all may share it.
    """
    if len(data) <= SMALL_RPC and data.startswith(MESSAGES):
        return _decode_small(data)
    return _decode(data)


def _decode(data: bytes) -> Rpc:
    try:
        rpc = pb.RPC.FromString(data)
        for entries in (rpc.subscriptions, rpc.publish):
            _check_count(entries)
        control = _decode_control(rpc.control) if rpc.HasField("control") else {}
        return Rpc(
            subscriptions=tuple(
                Subscription(topic=entry.topic, subscribe=entry.subscribe)
                for entry in rpc.subscriptions
                if _usable_topic(entry.topic)
            ),
            messages=tuple(decode_message(raw) for raw in rpc.publish),
            **control,
        )
    except DecodeError as exc:
        raise RemoteProtocolError("gossipsub RPC does not decode") from exc


_decode_small = lru_cache(SMALL_RPCS)(_decode)


def _decode_control(control: pb.Control) -> dict[str, Any]:
    """The fields of `Rpc` that travel within control."""
    for entries in (control.ihave, control.iwant, control.graft, control.prune, control.idontwant):
        _check_count(entries)
    return {
        "ihave": tuple(_decode_ihave(control.ihave)),
        "iwant": _take_ids((entry.message_ids for entry in control.iwant), MAX_IDS),
        "graft": tuple(entry.topic for entry in control.graft if _usable_topic(entry.topic)),
        "prune": tuple(
            Prune(
                topic=entry.topic,
                backoff=entry.backoff if entry.HasField("backoff") else None,
                records=tuple(peer.record for peer in entry.peers[:MAX_PX] if peer.record),
            )
            for entry in control.prune
            if _usable_topic(entry.topic)
        ),
        "idontwant": _take_ids((entry.message_ids for entry in control.idontwant), MAX_UNWANTED_IDS),
    }


def _decode_ihave(entries: Iterable[pb.IHave]) -> Iterator[IHave]:
    room = MAX_IDS
    for entry in entries:
        ids = _take_ids([entry.message_ids], room)
        room -= len(ids)
        if ids and _usable_topic(entry.topic):
            yield IHave(topic=entry.topic, ids=ids)


def _check_count(entries: Sequence[object]) -> None:
    if len(entries) > MAX_ENTRIES:
        raise RemoteProtocolError(f"gossipsub RPC with {len(entries)} entries of a kind, over {MAX_ENTRIES}")


def _usable_topic(topic: str) -> bool:
    return 0 < len(topic) <= MAX_TOPIC and len(topic.encode()) <= MAX_TOPIC


def _take_ids(groups: Iterable[Sequence[bytes]], limit: int) -> tuple[bytes, ...]:
    """The first `limit` ids of all `groups`, without those that are empty or too long."""
    found: list[bytes] = []
    for ids in groups:
        found.extend(ids[: limit - len(found)])
    return tuple(found_id for found_id in found if 0 < len(found_id) <= MAX_ID)


def decode_message(raw: bytes) -> Message:
    """The message whose serialized form is `raw`. Raises `DecodeError`: callers are in this module."""
    message = pb.Message.FromString(raw)
    return Message(
        raw=raw,
        origin=message.origin,
        data=message.data,
        seqno=message.seqno,
        topic=message.topic,
        signature=message.signature,
        key=message.key,
    )


def encode_message(
    *, origin: bytes, data: bytes, seqno: bytes, topic: str, signature: bytes = b"", key: bytes = b""
) -> bytes:
    """A serialized message, fields in the order of their tags; without signature, what is to be signed.

    `key` goes with a signature when the origin does not contain the key.
    """
    message = pb.Message(origin=origin, data=data, seqno=seqno, topic=topic)
    if signature:
        message.signature = signature
    if key:
        message.key = key
    return message.SerializeToString()


def signed_part(message: Message) -> bytes:
    """The message without signature and key; fields that we do not know are part of it, as in go."""
    part = pb.Message.FromString(message.raw)
    part.ClearField("signature")
    part.ClearField("key")
    return part.SerializeToString()


def encode_rpc(rpc: Rpc) -> bytes:
    """The serialized RPC; messages go out as the bytes that they came as."""
    encoded = pb.RPC(
        subscriptions=[
            pb.Subscription(subscribe=entry.subscribe, topic=entry.topic) for entry in rpc.subscriptions
        ],
        publish=[message.raw for message in rpc.messages],
    )
    if rpc.ihave or rpc.iwant or rpc.graft or rpc.prune or rpc.idontwant:
        encoded.control.CopyFrom(
            pb.Control(
                ihave=[pb.IHave(topic=entry.topic, message_ids=entry.ids) for entry in rpc.ihave],
                iwant=[pb.IWant(message_ids=rpc.iwant)] if rpc.iwant else [],
                graft=[pb.Graft(topic=topic) for topic in rpc.graft],
                prune=[pb.Prune(topic=entry.topic, backoff=entry.backoff) for entry in rpc.prune],
                idontwant=[pb.IDontWant(message_ids=rpc.idontwant)] if rpc.idontwant else [],
            )
        )
    return encoded.SerializeToString()


def encode_messages(messages: Iterable[bytes]) -> bytes:
    """The RPC of these serialized messages and nothing else."""
    serialized: bytes = pb.RPC(publish=messages).SerializeToString()
    return serialized


def message_size(message: Message) -> int:
    """Bytes, at most, that `message` takes in an RPC."""
    return len(message.raw) + _ENTRY


def split(rpc: Rpc, limit: int = SPLIT_SIZE) -> list[Rpc]:
    """`rpc` as several, each within `limit` bytes unless a single message is larger, in the same order."""
    pieces: list[Rpc] = []
    batch: list[tuple[str, object]] = []
    size = unwanted = 0
    for name, entry, entry_size in _entries(rpc):
        unwanted += name == "idontwant"
        if batch and (size + entry_size > limit or unwanted > MAX_SENT_UNWANTED_IDS):
            pieces.append(_joined(batch))
            batch, size, unwanted = [], 0, int(name == "idontwant")
        batch.append((name, entry))
        size += entry_size
    if batch:
        pieces.append(_joined(batch))
    return pieces


def slices(rpc: Rpc, count: int) -> Iterator[Rpc]:
    """`rpc` with at most `count` messages, then its further messages, as many at a time."""
    yield rpc if len(rpc.messages) <= count else replace(rpc, messages=rpc.messages[:count])
    for at in range(count, len(rpc.messages), count):
        yield Rpc(messages=rpc.messages[at : at + count])


def _entries(rpc: Rpc) -> Iterator[tuple[str, object, int]]:
    """Every entry of `rpc` with its field and size, ids one by one."""
    for subscription in rpc.subscriptions:
        yield "subscriptions", subscription, _text_size(subscription.topic)
    for topic in rpc.graft:
        yield "graft", topic, _text_size(topic)
    for prune in rpc.prune:
        yield "prune", prune, _text_size(prune.topic) + _ENTRY
    for unwanted in rpc.idontwant:
        yield "idontwant", unwanted, len(unwanted) + _ENTRY
    for message in rpc.messages:
        yield "messages", message, message_size(message)
    for have in rpc.ihave:
        for message_id in have.ids:
            yield "ihave", (have.topic, message_id), len(message_id) + _text_size(have.topic)
    for wanted in rpc.iwant:
        yield "iwant", wanted, len(wanted) + _ENTRY


def _text_size(text: str) -> int:
    return len(text.encode()) + _ENTRY


def _joined(batch: Iterable[tuple[str, object]]) -> Rpc:
    """The RPC of these entries; ids of one topic share one IHAVE again."""
    found: dict[str, list[Any]] = {each.name: [] for each in fields(Rpc)}
    for name, entry in batch:
        found[name].append(entry)
    topics: dict[str, list[bytes]] = {}
    for topic, message_id in found.pop("ihave"):
        topics.setdefault(topic, []).append(message_id)
    ihave = tuple(IHave(topic=topic, ids=tuple(ids)) for topic, ids in topics.items())
    return Rpc(ihave=ihave, **{name: tuple(entries) for name, entries in found.items()})
