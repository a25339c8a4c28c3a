"""The two sides of multistream-select, without I/O.

    Initiator: header and proposal 1 ->   <- header, answer 1   [proposal 2 ->  <- answer 2 …]
    Responder: header ->                  <- header, proposal 1  [answer 1 ->  <- proposal 2 …]

An answer is the proposal itself, which ends the negotiation, or `na`. Whatever the peer sent behind the
last line belongs to the protocol that was agreed on.
Source: multiformats/multistream-select; libp2p/specs connections/README.md, "multistream-select".
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass

from p2p.errors import LocalProtocolError, NegotiationFailed, RemoteProtocolError
from p2p.multistream.wire import HEADER, NOT_AVAILABLE, LineDecoder, encode_line
from p2p.stream import Data

MAX_PROPOSALS = 64  # of one negotiation; peers offer a handful, rust-libp2p would take 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class ProtocolAgreed:
    """Both sides speak `protocol` from here on; `surplus` are its first bytes that came already."""

    protocol: str
    surplus: bytes


class _Side(ABC):
    """What both sides do: send first, then take line after line until a protocol is agreed on."""

    def __init__(self, first: bytes) -> None:
        self._out = first
        self._lines = LineDecoder()
        self._event: ProtocolAgreed | None = None
        self._agreed = False

    def receive_data(self, data: Data) -> None:
        """Takes what the peer sent.

        Raises `RemoteProtocolError`, `NegotiationFailed` when nothing is left to try, and
        `LocalProtocolError` once the negotiation is over.
        """
        if self._agreed:
            raise LocalProtocolError("the negotiation is over")
        self._lines.receive_data(data)
        while not self._agreed and (line := self._lines.next_line()) is not None:
            self._handle_line(line)

    def next_event(self) -> ProtocolAgreed | None:
        """The outcome, once; None before. `data_to_send` may still hold the last answer."""
        event, self._event = self._event, None
        return event

    def data_to_send(self) -> bytes:
        """What must go to the peer now; empty when it is the peer's turn."""
        data, self._out = self._out, b""
        return data

    @property
    def wanted(self) -> int:
        """How many bytes can be read without reading past the negotiation; 1 or more."""
        return self._lines.wanted

    @abstractmethod
    def _handle_line(self, line: bytes) -> None:
        """Reacts to one line after the header."""

    def _agree(self, protocol: str) -> None:
        self._event = ProtocolAgreed(protocol=protocol, surplus=self._lines.surplus)
        self._agreed = True


class Initiator(_Side):
    """Proposes `protocols` in their order until one is accepted."""

    def __init__(self, protocols: Sequence[str]) -> None:
        if not protocols:
            raise LocalProtocolError("there is no protocol to propose")
        self._protocols = tuple(protocols)
        self._proposals = [encode_line(protocol) for protocol in protocols]
        self._index = 0
        self._untouched = True
        super().__init__(HEADER + self._proposals[0])

    @property
    def whole_answer(self) -> bytes:
        """What a peer sends that accepts the first proposal, empty once a part of it came."""
        return HEADER + self._proposals[0] if self._untouched else b""

    def receive_data(self, data: Data) -> None:
        """Takes what the peer sent. Raises as described above; most peers accept the first proposal."""
        if self._untouched and not self._agreed and data == self.whole_answer:
            self._agree(self._protocols[0])
        else:
            super().receive_data(data)
        self._untouched = False

    def _handle_line(self, line: bytes) -> None:
        protocol = self._protocols[self._index]
        if line == protocol.encode():
            self._agree(protocol)
            return
        if line != NOT_AVAILABLE.encode():
            raise RemoteProtocolError(f"the peer answered {line[:80]!r} to the proposal of {protocol}")
        self._index += 1
        if self._index == len(self._protocols):
            raise NegotiationFailed(f"the peer speaks none of {', '.join(self._protocols)}")
        self._out += self._proposals[self._index]


class Responder(_Side):
    """Accepts the first proposal that is `supported`; refuses at most `MAX_PROPOSALS`.

    Ids are compared byte for byte; a callable gets each id that is valid UTF-8.
    """

    def __init__(self, supported: Container[str] | Callable[[str], bool]) -> None:
        self._supports = supported if callable(supported) else supported.__contains__
        self._refused = 0
        super().__init__(HEADER)

    def _handle_line(self, line: bytes) -> None:
        protocol = _text(line)
        if protocol is not None and self._supports(protocol):
            self._out += encode_line(protocol)
            self._agree(protocol)
            return
        self._refused += 1
        if self._refused == MAX_PROPOSALS:
            raise NegotiationFailed(f"none of the peer's {MAX_PROPOSALS} proposals is supported")
        self._out += encode_line(NOT_AVAILABLE)


def _text(line: bytes) -> str | None:
    """The proposal in `line`, or None for what cannot be one of our ids."""
    try:
        return line.decode()
    except UnicodeDecodeError:
        return None
