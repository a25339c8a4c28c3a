"""What a yamux session tells its owner, in the order in which it came off the wire."""

from __future__ import annotations

from dataclasses import dataclass, field

from p2p.yamux.flow import StreamState


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamOpened:
    """The peer opened a stream; it is accepted already, and `stream.gone` if it was reset since."""

    stream_id: int
    stream: StreamState = field(compare=False, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamAcked:
    """The peer accepted a stream of ours: one place fewer is taken in the backlog."""

    stream_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DataReceived:
    """Bytes of a stream, maybe only a part of a frame; `Session.consume` gives their window back."""

    stream_id: int
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowOpened:
    """The peer takes more bytes on this stream."""

    stream_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamClosed:
    """The peer finished its half; what it sent before is all here."""

    stream_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamReset:
    """The peer ended both halves; `code` is its stream error code, 0 when it gave none."""

    stream_id: int
    code: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PongReceived:
    """The answer to our ping `value`, after `rtt` seconds."""

    value: int
    rtt: float


@dataclass(frozen=True, slots=True, kw_only=True)
class GoAwayReceived:
    """The peer ends the session; `code` is a `GoAwayCode` or any other number."""

    code: int


Event = (
    StreamOpened
    | StreamAcked
    | DataReceived
    | WindowOpened
    | StreamClosed
    | StreamReset
    | PongReceived
    | GoAwayReceived
)
