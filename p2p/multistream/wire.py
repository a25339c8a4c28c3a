"""Lines of multistream-select: uvarint length, text, newline; the length counts the newline.

Source: multiformats/multistream-select, "Protocol"; libp2p/specs connections/README.md,
"multistream-select".
"""

from __future__ import annotations

from functools import lru_cache

from p2p import varint
from p2p.errors import LocalProtocolError, MessageTooLarge, RemoteProtocolError

MULTISTREAM = "/multistream/1.0.0"
NOT_AVAILABLE = "na"
MAX_LINE = 1024  # bytes with the newline; go-multistream and js-libp2p


@lru_cache(maxsize=256)  # lines; a node speaks a few dozen protocols
def encode_line(text: str) -> bytes:
    """`text` as a line. Raises `LocalProtocolError` when it cannot be one."""
    line = text.encode() + b"\n"
    if len(line) > MAX_LINE or line.count(b"\n") != 1:
        raise LocalProtocolError(
            f"{text[:80]!r} is not a protocol id: one line of less than {MAX_LINE} bytes"
        )
    return varint.encode(len(line)) + line


HEADER = encode_line(MULTISTREAM)  # what both sides say first


def first_proposal(data: bytes | bytearray) -> tuple[str, int] | None:
    """The proposal behind the header and where it ends, if `data` begins with both of them whole.

    None also for everything unusual: a `LineDecoder` judges that.
    """
    start = len(HEADER) + 1
    if len(data) <= start or not data.startswith(HEADER):
        return None
    size = data[start - 1]
    end = start + size
    if not 1 < size < 128 or len(data) < end or data[end - 1] != ord("\n"):
        return None
    try:
        return data[start : end - 1].decode(), end
    except UnicodeDecodeError:
        return None


class LineDecoder:
    """Bytes in; the peer's header checked, then its lines out.

    `wanted` lets a reader stop exactly behind a line: what follows the last one is not ours to read.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._header_seen = False

    def receive_data(self, data: bytes | bytearray | memoryview) -> None:
        """Takes what came."""
        self._buffer += data

    def next_line(self) -> bytes | None:
        """The next whole line without its newline, or None.

        Raises `RemoteProtocolError` as soon as the peer's bytes cannot become a header or line.
        """
        if not self._take_header():
            return None
        header = varint.decode(self._buffer)
        if header is None:
            return None
        size, start = header
        if size > MAX_LINE:
            raise MessageTooLarge(size, MAX_LINE)
        if size == 0:
            raise RemoteProtocolError("a multistream line is empty, without even its newline")
        if len(self._buffer) < start + size:
            return None
        line = bytes(self._buffer[start : start + size])
        if line[-1:] != b"\n":
            raise RemoteProtocolError("a multistream line does not end in a newline")
        del self._buffer[: start + size]
        return line[:-1]

    @property
    def wanted(self) -> int:
        """How many bytes certainly belong to the header or line that is being received; 1 or more."""
        if not self._header_seen:
            return len(HEADER) - len(self._buffer)
        header = varint.decode(self._buffer)
        return 1 if header is None else header[1] + header[0] - len(self._buffer)

    @property
    def surplus(self) -> bytes:
        """What came behind the lines that were taken."""
        return bytes(self._buffer)

    def _take_header(self) -> bool:
        if self._header_seen:
            return True
        beginning = bytes(self._buffer[: len(HEADER)])
        if not HEADER.startswith(beginning):
            raise RemoteProtocolError("the peer does not speak multistream-select")
        if len(beginning) < len(HEADER):
            return False
        del self._buffer[: len(HEADER)]
        self._header_seen = True
        return True
