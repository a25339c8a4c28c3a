"""Where TLS records end: their headers, read beside OpenSSL.

OpenSSL does not tell whether a record is unfinished, nor how many bytes it left behind a handshake;
and it waits for the rest of whatever length it is told. So the headers are looked at here first.
Source: RFC 8446, "5.1. Record Layer" and "5.2. Record Payload Protection".
"""

from __future__ import annotations

from p2p.errors import MessageTooLarge, RemoteProtocolError

HEADER = 5  # bytes: content type, version, length
MAX_PLAINTEXT = 1 << 14  # bytes of plaintext in one record
MAX_RECORD = MAX_PLAINTEXT + 256  # bytes behind the header; RFC 8446, "5.2"
OVERHEAD = HEADER + 16 + 1  # bytes that a record adds: header, tag, content type
_CONTENT_TYPES = frozenset({20, 21, 22, 23})  # change_cipher_spec, alert, handshake, application_data
_MAJOR_VERSION = 3  # in every version from SSL 3.0 to TLS 1.3


class RecordFraming:
    """Follows the records of one direction of one connection."""

    def __init__(self) -> None:
        self._header = b""  # the beginning of a header, fewer than HEADER bytes
        self._missing = 0  # bytes of the current record that have yet to come

    @property
    def mid_record(self) -> bool:
        """Whether what came so far ends within a record."""
        return bool(self._header or self._missing)

    def ends(self, data: memoryview) -> list[int]:
        """Each offset in `data` at which a record ends.

        Raises `RemoteProtocolError` for what is no TLS record, `MessageTooLarge` for an impossible length.
        """
        found: list[int] = []
        at, size = 0, len(data)
        while at < size:
            if not self._missing:
                header = self._header + bytes(data[at : at + HEADER - len(self._header)])
                at += len(header) - len(self._header)
                if len(header) < HEADER:
                    self._header = header
                    break
                self._header = b""
                self._missing = _body_size(header)
            if self._missing > size - at:
                self._missing -= size - at
                break
            at += self._missing
            self._missing = 0
            found.append(at)
        return found


def _body_size(header: bytes) -> int:
    size = int.from_bytes(header[3:], "big")
    if header[0] not in _CONTENT_TYPES or header[1] != _MAJOR_VERSION or not size:
        raise RemoteProtocolError(f"not a TLS record: {header.hex()}")
    if size > MAX_RECORD:
        raise MessageTooLarge(size, MAX_RECORD)
    return size
