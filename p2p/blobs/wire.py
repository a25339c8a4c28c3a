"""Requests and answers of /atcp/blobs/2.0.0, as bytes and as values.

    want     [root, size, indexes]       asks for chunks of a blob of `size` bytes, 2 bytes for each index;
                                         for none: what is there?
    chunk    [0, index, proof, length]   with `length` raw bytes behind it
    lacking  [1, index]                  instead of a chunk: this one is not here (any more)
    haves    [2, bitmap]                 which chunks are here, bit i of the big-endian number for chunk i
    absent   [3]                         the only answer to a want: nothing of the blob is here

Messages are msgpack arrays behind a uvarint length. A stream carries any number of wants; they are
answered in their order, each by one chunk or lacking for every index. Who has not all chunks says which,
in front of the answer to the first want and whenever that changed since; who is asked for none says it
always. Who asked closes the stream. Decoding takes exactly these shapes and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgpack

from p2p import varint
from p2p.blobs.merkle import CHUNK_SIZE, HASH_SIZE, chunk_count
from p2p.errors import MessageTooLarge, RemoteProtocolError
from p2p.framing import encode_delimited

PROTOCOL = "/atcp/blobs/2.0.0"
MAX_BLOB = 1 << 30  # bytes; a float32 model of 268 million parameters, 4096 chunks
MAX_WANTED = 64  # chunks of one want: 16 MiB, the largest yamux window of go and js
MAX_HOPS = (chunk_count(MAX_BLOB) - 1).bit_length()  # hashes of the longest proof
MAX_REQUEST = 192  # bytes; the longest want has 172
SMALL_PIECE = 16 * 1024  # bytes; objects have a cost of their own, and a peer may send single bytes
MAX_HEADER = 640  # bytes of an answer without the chunk itself; the longest, a bitmap, has 517

Pieces = tuple[bytes | memoryview, ...]  # of one chunk, in order: as they came, so that nothing is copied

_CHUNK, _LACKING, _HAVES, _ABSENT = range(4)


@dataclass(frozen=True, slots=True, kw_only=True)
class Want:
    """Asks for the chunks `indexes` of the blob `root`, which has `size` bytes; for none: what is there?"""

    root: bytes
    size: int
    indexes: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """One chunk with its audit path, not yet verified."""

    index: int
    proof: tuple[bytes, ...]
    pieces: Pieces

    @property
    def size(self) -> int:
        """Its bytes."""
        return sum(map(len, self.pieces))


@dataclass(frozen=True, slots=True, kw_only=True)
class Lacking:
    """The holder does not have this chunk."""

    index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Haves:
    """The holder has these chunks: bit i for chunk i."""

    chunks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Absent:
    """The holder has nothing of the blob."""


Answer = Chunk | Lacking | Haves | Absent


def encode_want(want: Want) -> bytes:
    """The framed want."""
    indexes = b"".join(index.to_bytes(2, "big") for index in want.indexes)
    return encode_delimited(msgpack.packb([want.root, want.size, indexes]))


def decode_want(message: bytes) -> Want:
    """The want in an unframed message; its indexes are within the blob. Raises `RemoteProtocolError`."""
    match _unpack(message):
        case [bytes(root), int(size), bytes(packed)]:
            pass
        case _:
            raise RemoteProtocolError("not a blob request")
    if len(root) != HASH_SIZE or not 0 < size <= MAX_BLOB or len(packed) % 2 or len(packed) > 2 * MAX_WANTED:
        raise RemoteProtocolError("blob request out of bounds")
    indexes = tuple(int.from_bytes(packed[at : at + 2], "big") for at in range(0, len(packed), 2))
    if indexes and max(indexes) >= chunk_count(size):
        raise RemoteProtocolError(f"blob request for chunk {max(indexes)} of {chunk_count(size)}")
    return Want(root=root, size=size, indexes=indexes)


def encode_answer(answer: Answer) -> list[bytes | memoryview]:
    """The framed answer in pieces; those of a chunk are not copied."""
    match answer:
        case Chunk():
            head = [_CHUNK, answer.index, b"".join(answer.proof), answer.size]
            return [encode_delimited(msgpack.packb(head)), *answer.pieces]
        case Lacking():
            body: list[object] = [_LACKING, answer.index]
        case Haves():
            body = [_HAVES, answer.chunks.to_bytes(-(-answer.chunks.bit_length() // 8), "big")]
        case Absent():
            body = [_ABSENT]
    return [encode_delimited(msgpack.packb(body))]


class AnswerDecoder:
    """Bytes in, answers out (sans-I/O). Whether a chunk is true is for `transfer.py` to say."""

    def __init__(self) -> None:
        self._buffer = bytearray()  # what is not yet looked at, and no part of a chunk
        self._head: tuple[int, tuple[bytes, ...]] | None = None  # index and proof of the chunk that comes
        self._left = 0  # bytes of it that did not come yet
        self._pieces: list[bytes] = []  # those that came
        self._crumbs = bytearray()  # those behind them, too small to be kept one by one

    def receive_data(self, data: bytes) -> None:
        """Takes what came, for `next_event`."""
        if self._left:
            rest = data[self._left :]
            self._add_piece(data[: self._left] if rest else data)
            data = rest
        self._buffer += data

    @property
    def mid_message(self) -> bool:
        """Whether an answer is cut off here, once `next_event` returned None."""
        return bool(self._buffer) or self._head is not None

    def next_event(self) -> Answer | None:
        """The next whole answer, or None when it needs more data.

        Raises `RemoteProtocolError`, at the header already: nothing over the bounds is kept.
        """
        if self._head is None:
            message = self._next_message()
            answer = self._decode(message) if message is not None else None
            if answer is not None or self._head is None:
                return answer
        if self._left:
            return None
        (index, proof), self._head = self._head, None
        pieces, self._pieces = tuple(self._pieces), []
        return Chunk(index=index, proof=proof, pieces=pieces)

    def _add_piece(self, data: bytes) -> None:
        """Keeps a part of a chunk: as it is when it is large, since joining all would cost another copy."""
        self._left -= len(data)
        if len(data) >= SMALL_PIECE and not self._crumbs:
            self._pieces.append(data)
            return
        self._crumbs += data
        if len(self._crumbs) >= SMALL_PIECE or not self._left:
            self._pieces.append(bytes(self._crumbs))
            self._crumbs.clear()

    def _next_message(self) -> bytes | None:
        header = varint.decode(self._buffer)
        if header is None:
            return None
        size, start = header
        if size > MAX_HEADER:
            raise MessageTooLarge(size, MAX_HEADER)
        if len(self._buffer) < start + size:
            return None
        message = bytes(self._buffer[start : start + size])
        del self._buffer[: start + size]
        return message

    def _decode(self, message: bytes) -> Answer | None:
        """The answer in an unframed message; None when it is the head of a chunk."""
        match _unpack(message):
            case [0, int(index), bytes(proof), int(length)] if (
                len(proof) <= MAX_HOPS * HASH_SIZE
                and len(proof) % HASH_SIZE == 0
                and 0 < length <= CHUNK_SIZE
            ):
                hashes = tuple(proof[at : at + HASH_SIZE] for at in range(0, len(proof), HASH_SIZE))
                self._head, self._left = (index, hashes), length
                came, self._buffer = bytes(self._buffer), bytearray()
                self.receive_data(came)
                return None
            case [1, int(index)]:
                return Lacking(index=index)
            case [2, bytes(bitmap)]:
                return Haves(chunks=int.from_bytes(bitmap, "big"))
            case [3]:
                return Absent()
        raise RemoteProtocolError("not an answer to a blob request")


def _unpack(message: bytes) -> Any:
    """The flat msgpack array in `message`: integers and binaries only, nothing nested or extended."""
    try:
        body = msgpack.unpackb(
            message, max_array_len=4, max_bin_len=MAX_HEADER, max_str_len=0, max_map_len=0, max_ext_len=0
        )
    except (ValueError, msgpack.UnpackException) as exc:
        raise RemoteProtocolError(f"malformed blob message: {exc}") from exc
    if not isinstance(body, list) or any(type(item) not in (int, bytes) for item in body):
        raise RemoteProtocolError("malformed blob message")
    return body
