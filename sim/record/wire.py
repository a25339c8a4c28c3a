"""Events of gossipsub routers as bytes: go-libp2p-pubsub's TraceEvent, each behind its length.

Source: libp2p/go-libp2p-pubsub pb/trace.proto; tracer.go, `PBTracer`, for the stream.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from p2p import varint
from p2p.errors import RemoteProtocolError
from p2p.protobuf import parse
from sim.record.trace_pb2 import TraceEvent

MAX_EVENT = 1 << 20  # bytes; ours have about 150

_HEAD: dict[str, tuple[TraceEvent.Type, Any]] = {
    "publish_message": (TraceEvent.PUBLISH_MESSAGE, TraceEvent.PublishMessage),
    "deliver_message": (TraceEvent.DELIVER_MESSAGE, TraceEvent.DeliverMessage),
    "add_peer": (TraceEvent.ADD_PEER, TraceEvent.AddPeer),
    "remove_peer": (TraceEvent.REMOVE_PEER, TraceEvent.RemovePeer),
    "join": (TraceEvent.JOIN, TraceEvent.Join),
    "leave": (TraceEvent.LEAVE, TraceEvent.Leave),
    "graft": (TraceEvent.GRAFT, TraceEvent.Graft),
    "prune": (TraceEvent.PRUNE, TraceEvent.Prune),
}


def encode_event(kind: str, who: bytes, timestamp: int, /, **fields: bytes | str) -> bytes:
    """One event, with its length before it. `kind` is a field of TraceEvent; `timestamp` in nanoseconds."""
    number, message = _HEAD[kind]
    event = TraceEvent(type=number, peer_id=who, timestamp=timestamp, **{kind: message(**fields)})
    data = event.SerializeToString()
    return varint.encode(len(data)) + data


def decode_events(data: bytes) -> Iterator[tuple[str, bytes, int, dict[str, bytes | str]]]:
    """The events of a stream: (kind, peer id, timestamp, fields). Raises `RemoteProtocolError`."""
    start = 0
    while start < len(data):
        head = varint.decode(data, start)
        if head is None or head[0] > MAX_EVENT or head[0] > len(data) - head[1]:
            raise RemoteProtocolError("the trace ends within an event")
        start = sum(head)
        event = parse(TraceEvent, data[head[1] : start], "an event of the trace cannot be read")
        kind = TraceEvent.Type.Name(event.type).lower()
        fields = {field.name: value for field, value in getattr(event, kind).ListFields()}
        yield kind, event.peer_id, event.timestamp, fields
