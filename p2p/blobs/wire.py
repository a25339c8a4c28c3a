"""Requests and answers of /atcp/blobs/1.0.0, as bytes and as values.

    request   [root, size, first, count]    asks for `count` chunks from `first` of a blob of `size` bytes
    chunk     [0, index, proof, data]       one for each asked chunk, in order
    missing   [1]                           instead of the next chunk: the blob is not (or no longer) here

Bodies are msgpack arrays behind a uvarint length. A stream carries any number of requests, one after
the other; who asked closes it. Decoding takes exactly these shapes and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgpack

from p2p.blobs.merkle import CHUNK_SIZE, HASH_SIZE, chunk_count
from p2p.errors import RemoteProtocolError
from p2p.framing import encode_delimited

PROTOCOL = "/atcp/blobs/1.0.0"
MAX_BLOB = 1 << 30  # bytes; a float32 model of 268 million parameters, 4096 chunks
MAX_COUNT = 64  # chunks of one request: 16 MiB, the largest yamux window of go and js
MAX_PROOF = (
    chunk_count(MAX_BLOB).bit_length() * HASH_SIZE
)  # bytes; one hash for each level of the largest tree
MAX_REQUEST = 64  # bytes; the longest is 47
MAX_ANSWER = CHUNK_SIZE + MAX_PROOF + 32  # bytes; a full chunk, the longest proof, the array around them

_CHUNK, _MISSING = 0, 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Asks for the chunks `first` … `first + count - 1` of the blob `root`, which has `size` bytes."""

    root: bytes
    size: int
    first: int
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """One chunk with its audit path, not yet verified."""

    index: int
    proof: tuple[bytes, ...]
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """The holder does not have the blob."""


Answer = Chunk | Missing


def encode_request(request: Request) -> bytes:
    """The framed request."""
    return encode_delimited(msgpack.packb([request.root, request.size, request.first, request.count]))


def decode_request(message: bytes) -> Request:
    """The request in an unframed message. Raises `RemoteProtocolError`."""
    match _unpack(message):
        case [bytes(root), int(size), int(first), int(count)]:
            request = Request(root=root, size=size, first=first, count=count)
        case _:
            raise RemoteProtocolError("not a blob request")
    if len(root) != HASH_SIZE or not 0 < size <= MAX_BLOB or not 0 < count <= MAX_COUNT:
        raise RemoteProtocolError("blob request out of bounds")
    if not 0 <= first <= chunk_count(size) - count:
        raise RemoteProtocolError(
            f"blob request for chunks {first} to {first + count} of {chunk_count(size)}"
        )
    return request


def encode_answer(answer: Answer) -> bytes:
    """The framed answer."""
    match answer:
        case Chunk():
            body = [_CHUNK, answer.index, b"".join(answer.proof), answer.data]
        case Missing():
            body = [_MISSING]
    return encode_delimited(msgpack.packb(body))


def decode_answer(message: bytes) -> Answer:
    """The answer in an unframed message; whether a chunk is true is for `transfer.py` to say.

    Raises `RemoteProtocolError`.
    """
    match _unpack(message):
        case [0, int(index), bytes(proof), bytes(data)] if (
            len(proof) <= MAX_PROOF and len(proof) % HASH_SIZE == 0
        ):
            hashes = tuple(proof[at : at + HASH_SIZE] for at in range(0, len(proof), HASH_SIZE))
            return Chunk(index=index, proof=hashes, data=data)
        case [1]:
            return Missing()
    raise RemoteProtocolError("not an answer to a blob request")


def _unpack(message: bytes) -> Any:
    """The flat msgpack array in `message`: integers and binaries only, nothing nested or extended."""
    try:
        body = msgpack.unpackb(
            message, max_array_len=4, max_bin_len=CHUNK_SIZE, max_str_len=0, max_map_len=0, max_ext_len=0
        )
    except (ValueError, msgpack.UnpackException) as exc:
        raise RemoteProtocolError(f"malformed blob message: {exc}") from exc
    if not isinstance(body, list) or any(type(item) not in (int, bytes) for item in body):
        raise RemoteProtocolError("malformed blob message")
    return body
