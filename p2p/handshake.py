"""Runs a security handshake, which is a machine, over a byte stream."""

from __future__ import annotations

from contextlib import suppress
from typing import Protocol, TypeVar

from p2p.errors import ConnectionLost, P2PError
from p2p.stream import ByteStream, Data

READ_SIZE = 4096  # bytes; most handshakes have fewer in each direction

CompletedT = TypeVar("CompletedT", covariant=True)
Completed = TypeVar("Completed")


class Handshake(Protocol[CompletedT]):
    """One side of one handshake, without I/O."""

    def receive_data(self, data: Data) -> None:
        """Takes what came. Raises `RemoteProtocolError` when the handshake failed."""

    def data_to_send(self) -> bytes:
        """What must go to the peer now, after an error too; empty when it is the peer's turn."""

    def next_event(self) -> CompletedT | None:
        """The outcome, once; None before."""


async def run_handshake(raw: ByteStream, handshake: Handshake[Completed]) -> Completed:
    """What `handshake` comes to. The caller bounds the time, and closes `raw` after an error.

    Raises what the machine raises, after its last words (an alert), and `ConnectionLost`.
    """
    while True:
        if data := handshake.data_to_send():
            await raw.send_all(data)
        if (completed := handshake.next_event()) is not None:
            return completed
        received = await raw.receive_some(READ_SIZE)
        if not received:
            raise ConnectionLost("the peer closed the connection within the security handshake")
        try:
            handshake.receive_data(received)
        except P2PError:
            if alert := handshake.data_to_send():
                with suppress(ConnectionLost):
                    raw.send_nowait(alert)  # as far as that goes without waiting for one that we are leaving
            raise
