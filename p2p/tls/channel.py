"""The records behind a TLS handshake, without I/O: plaintext into them and back, through OpenSSL.

OpenSSL takes and gives its bytes by two memory buffers that never shrink, to 4/3 of the most that was in
them. So both are used in batches: a connection that moved much keeps 44 KiB of what it received and 87
KiB of what it sent. What is read is put together in a `Scratch` that all connections of a thread share.
Source: RFC 8446, "5. Record Protocol", "4.6.3. Key and Initialization Vector Update", "6. Alert Protocol".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from OpenSSL import SSL

from p2p.errors import LocalProtocolError, RemoteProtocolError
from p2p.scratch import Scratch
from p2p.stream import MAX_BLOCK, Data
from p2p.tls.failure import reason_of, receive_failure
from p2p.tls.record import HEADER, MAX_PLAINTEXT, MAX_RECORD, OVERHEAD, RecordFraming

OPEN_BATCH = 2 * (HEADER + MAX_RECORD)  # bytes given to OpenSSL at a time; larger ones gain 3 %
MAX_USELESS = 16  # records in a row without data: each key update costs us two derivations; as in crypto/tls
DRAIN_SIZE = MAX_BLOCK + 8 * OVERHEAD  # bytes; a block sealed, and an answer before it


class Channel:
    """Both directions of one connection after its handshake: a `SecureChannel`."""

    def __init__(self, connection: SSL.Connection, scratch: Scratch) -> None:
        self._connection = connection
        self._scratch = scratch
        self._framing = RecordFraming()
        self._heard = False  # whether anything was received yet
        self._ended = False
        self._useless = 0  # records in a row without data
        self._replies = False  # whether OpenSSL may have something to say
        self._failure: RemoteProtocolError | None = None

    @property
    def ended(self) -> bool:
        """Whether the peer said that nothing more comes (close_notify)."""
        return self._ended

    @property
    def mid_frame(self) -> bool:
        """Whether an unfinished record is buffered."""
        return self._framing.mid_record

    def seal(self, blocks: Sequence[Data]) -> bytes:
        """`blocks` in as few records as they fit, ready to send; what OpenSSL has to say goes first.

        Raises `LocalProtocolError` when the connection cannot encrypt any more.
        """
        sealed: list[bytes] = []
        for run in _runs(blocks):
            try:
                self._connection.send(run)
            except SSL.Error as exc:
                raise LocalProtocolError(f"TLS cannot send any more: {reason_of(exc)}") from exc
            sealed.append(drain(self._connection))
        return sealed[0] if len(sealed) == 1 else b"".join(sealed)

    def open(self, data: memoryview) -> memoryview:
        """The plaintext that `data` completes, maybe none; good until the caller's next await.

        Behind the peer's close_notify everything is ignored. Raises `AuthenticationFailed` when somebody
        changed a record or the peer refuses us, `RemoteProtocolError` for other alerts and offences,
        and the same again ever after.
        """
        if self._failure is not None:
            raise self._failure
        plain = self._scratch.opened(len(data) + MAX_PLAINTEXT)  # a record may have begun before
        size = 0
        try:
            for at in range(0, len(data), OPEN_BATCH):
                size += self._open(data[at : at + OPEN_BATCH], plain[size:])
        except RemoteProtocolError as exc:
            self._failure = exc
            self._replies = True
            raise
        return plain[:size]

    def data_to_send(self) -> bytes:
        """What OpenSSL has to say after `open`: alerts, answers to key updates."""
        if not self._replies:
            return b""
        self._replies = False
        return drain(self._connection)

    def _open(self, data: memoryview, plain: memoryview) -> int:
        """Opens at most OPEN_BATCH bytes into `plain`; how many bytes of plaintext it gave."""
        records = len(self._framing.ends(data))
        if self._ended:
            return 0
        self._connection.bio_write(data)
        size = reads = 0
        try:
            while reads < records:  # each call gives one record; so the last one need not fail
                size += self._connection.recv_into(plain[size : size + MAX_PLAINTEXT])
                reads += 1
        except SSL.WantReadError:  # not everything was data
            self._replies = True
        except SSL.ZeroReturnError:
            self._ended = True
            return size
        except SSL.Error as exc:
            raise receive_failure(exc, first=not (self._heard or reads)) from exc
        self._count(records, reads)
        return size

    def _count(self, records: int, reads: int) -> None:
        """Notes that `reads` of `records` were data. Raises `RemoteProtocolError` for too many others."""
        self._heard = self._heard or reads > 0
        self._useless = records - reads + (0 if reads else self._useless)
        if self._useless > MAX_USELESS:
            raise RemoteProtocolError("the peer sends one TLS record after the other without data")


def drain(connection: SSL.Connection) -> bytes:
    """What OpenSSL wants to be sent."""
    parts: list[bytes] = []
    try:
        while not parts or len(parts[-1]) == DRAIN_SIZE:
            parts.append(connection.bio_read(DRAIN_SIZE))
    except SSL.WantReadError:
        pass
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _runs(blocks: Sequence[Data]) -> Iterator[Data]:
    """`blocks` in order, small neighbours joined to a record; nothing that is empty."""
    run: list[Data] = []
    size = 0
    for block in blocks:
        if run and size + len(block) > MAX_PLAINTEXT:
            yield run[0] if len(run) == 1 else b"".join(run)
            run, size = [], 0
        if block:
            run.append(block)
            size += len(block)
    if run:
        yield run[0] if len(run) == 1 else b"".join(run)
