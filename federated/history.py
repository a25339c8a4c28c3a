"""The certificates of a task by range, from a member to who is behind or new: `/atcp/history/1`.

    fetch_history ──(task, first, count)──→ serve_history
                  ←─certificate first, first + 1, … as far as they are there─┘, then the end of the stream

One request a stream, each message behind its length. The request is the task id, the first round (8 bytes,
big-endian) and the count (1 byte). A certificate comes as the journal keeps it (`encode_entry`). Nobody has
checked its signatures: whoever fetches follows the chain, see `federated.rounds.electorate`.
"""

from __future__ import annotations

import struct
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from weakref import WeakKeyDictionary

import trio

from federated.rounds.messages import HASH_SIZE, Certificate, MessageError
from federated.rounds.wire import decode_entry
from p2p.errors import ConnectionLost, LocalProtocolError, RemoteProtocolError
from p2p.framing import DelimitedReader, encode_delimited
from p2p.host import Host
from p2p.limits import StreamLimit
from p2p.peer_id import PeerId
from p2p.scope import reset_on_error
from p2p.stream import Stream

PROTOCOL = "/atcp/history/1"
MAX_COUNT = 64  # certificates of one answer: with those of 4 KiB a window of yamux
MAX_CERTIFICATE = 8 << 10  # bytes read; twice what gossip carries
DEADLINE = 20.0  # seconds for one fetch, dialing included; on both sides
MAX_STREAMS_PER_PEER = 4  # served at once: a peer that follows several tasks
MAX_STREAMS = 32  # served at once to all; each holds an answer: 16 MiB in all at most

ReadCertificates = Callable[[bytes, int, int], Awaitable[Sequence[bytes]]]
"""(task, first round, count) → the encoded certificates of those rounds, up to the first that is missing."""

_REQUEST = struct.Struct(f">{HASH_SIZE}sQB")


def encode_request(task: bytes, first: int, count: int) -> bytes:
    """A request for `count` certificates of `task` from round `first` on. Raises `LocalProtocolError`."""
    if len(task) != HASH_SIZE or not 1 <= first < 1 << 64 or not 1 <= count <= MAX_COUNT:
        raise LocalProtocolError(f"no history of {count} rounds from round {first}")
    return _REQUEST.pack(task, first, count)


def decode_request(data: bytes) -> tuple[bytes, int, int]:
    """(task, first round, count). Raises `RemoteProtocolError`."""
    if len(data) != _REQUEST.size:
        raise RemoteProtocolError(f"a request for history has {_REQUEST.size} bytes, not {len(data)}")
    task, first, count = _REQUEST.unpack(data)
    if not first or not 1 <= count <= MAX_COUNT:
        raise RemoteProtocolError(f"no history of {count} rounds from round {first}")
    return task, first, count


async def fetch_history(
    host: Host, peer: PeerId, task: bytes, first: int, count: int
) -> tuple[Certificate, ...]:
    """The certificates of up to `count` rounds of `task` from round `first` on that `peer` has.

    Fewer, or none, when it has no more or does not know the task. They are of the rounds asked for, in
    order; their votes and what they follow on is not checked. The rest of a broken answer is not used.
    Raises `DialFailed`, `NegotiationFailed`, `ConnectionLost`, also when it takes longer than 20 s,
    `RemoteProtocolError` when `peer` sends something else, and `LocalProtocolError` when there is no
    such range.
    """
    request = encode_request(task, first, count)
    with trio.move_on_after(DEADLINE):
        stream = await host.open_stream(peer, [PROTOCOL])
        with reset_on_error(stream):
            await stream.send_all(encode_delimited(request))
            await stream.send_eof()
            certificates = await _receive(stream, task, first, count)
        stream.reset()  # what an endless server sends behind it is not waited for; no more than a close else
        return certificates
    raise ConnectionLost(f"{peer} sent no history within {DEADLINE:g} s")


async def _receive(stream: Stream, task: bytes, first: int, count: int) -> tuple[Certificate, ...]:
    reader = DelimitedReader(stream, MAX_CERTIFICATE)
    certificates: list[Certificate] = []
    while len(certificates) < count and (data := await reader.receive()) is not None:
        certificates.append(_decode(data, task, first + len(certificates)))
    return tuple(certificates)


def _decode(data: bytes, task: bytes, number: int) -> Certificate:
    """The certificate of round `number` in `data`. Raises `RemoteProtocolError`."""
    try:
        certificate = decode_entry(task, data)
    except MessageError as exc:
        raise RemoteProtocolError(f"history: {exc}") from exc
    if not isinstance(certificate, Certificate) or certificate.round != number:
        raise RemoteProtocolError(f"history: that is not the certificate of round {number}")
    return certificate


@contextmanager
def serve_history(host: Host, task: bytes, read: ReadCertificates) -> Iterator[None]:
    """Gives whoever asks the certificates of `task` that `read` returns, while the body runs.

    The tasks of a host share its handler. Raises `LocalProtocolError` when the task is served already.
    """
    server = _SERVERS.get(host)
    if server is None:
        server = _SERVERS[host] = _Server()
        host.handle(PROTOCOL, server.serve)
    if task in server.sources:
        raise LocalProtocolError(f"the history of task {task.hex()} is served already")
    server.sources[task] = read
    try:
        yield
    finally:
        del server.sources[task]
        if not server.sources:
            host.unhandle(PROTOCOL)
            del _SERVERS[host]


class _Server:
    """What one host serves: for each task who reads its certificates."""

    def __init__(self) -> None:
        self.sources: dict[bytes, ReadCertificates] = {}
        self._limit = StreamLimit(MAX_STREAMS_PER_PEER, MAX_STREAMS)

    async def serve(self, stream: Stream) -> None:
        """Answers the one request of a stream."""
        with self._limit.admitted(stream) as admitted:
            if admitted:
                with trio.fail_after(DEADLINE):
                    await self._answer(stream)

    async def _answer(self, stream: Stream) -> None:
        data = await DelimitedReader(stream, _REQUEST.size).receive()
        if data is None:
            return
        task, first, count = decode_request(data)
        read = self.sources.get(task)
        if read is not None:
            for certificate in (await read(task, first, count))[:count]:
                await stream.send_all(encode_delimited(certificate))


_SERVERS: WeakKeyDictionary[Host, _Server] = WeakKeyDictionary()  # of the hosts that serve any task
