from __future__ import annotations

from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2p.blobs.merkle import CHUNK_SIZE, MerkleTree
from p2p.blobs.wire import (
    MAX_ANSWER,
    MAX_BLOB,
    MAX_COUNT,
    MAX_PROOF,
    MAX_REQUEST,
    Answer,
    Chunk,
    Missing,
    Request,
    decode_answer,
    decode_request,
    encode_answer,
    encode_request,
)
from p2p.errors import RemoteProtocolError
from p2p.framing import DelimitedDecoder

ROOT = bytes(range(32))


def unframed(framed: bytes, limit: int) -> bytes:
    decoder = DelimitedDecoder(limit)
    decoder.receive_data(framed)
    message = decoder.next_event()
    assert message is not None
    assert not decoder.mid_message
    return message


@given(st.integers(1, MAX_BLOB), st.data())
def test_a_request_survives_the_wire(size: int, data: st.DataObject) -> None:
    chunks = -(-size // CHUNK_SIZE)
    count = data.draw(st.integers(1, min(MAX_COUNT, chunks)))
    request = Request(root=ROOT, size=size, first=data.draw(st.integers(0, chunks - count)), count=count)
    assert decode_request(unframed(encode_request(request), MAX_REQUEST)) == request


LONGEST_PROOF = tuple(bytes([n]) * 32 for n in range(MAX_PROOF // 32))


@pytest.mark.parametrize(
    "answer",
    [
        Missing(),
        Chunk(index=0, proof=(), data=b""),
        Chunk(index=4095, proof=LONGEST_PROOF, data=b"x" * CHUNK_SIZE),
    ],
)
def test_an_answer_survives_the_wire(answer: Answer) -> None:
    assert decode_answer(unframed(encode_answer(answer), MAX_ANSWER)) == answer


def test_the_proofs_of_the_largest_blob_fit() -> None:
    tree = MerkleTree([bytes(32)] * (MAX_BLOB // CHUNK_SIZE))
    assert len(tree.proof(0)) * 32 <= MAX_PROOF


@pytest.mark.parametrize(
    "body",
    [
        [ROOT, 0, 0, 1],
        [ROOT, MAX_BLOB + 1, 0, 1],
        [ROOT, -1, 0, 1],
        [ROOT, MAX_BLOB, 0, MAX_COUNT + 1],
        [ROOT, MAX_BLOB, 0, 0],
        [ROOT, 1, 0, 2],
        [ROOT, 1, 1, 1],
        [ROOT, 1, -1, 1],
        [ROOT[:-1], 1, 0, 1],
        [ROOT, 1, 0, True],
        [ROOT, 1, 0, 1.0],
        [ROOT, 1, 0, None],
        [ROOT, 1, 0],
        [ROOT, 1, 0, 1, 1],
        [ROOT, 1, 0, [1]],
        ["root", 1, 0, 1],
        {0: ROOT},
        7,
    ],
)
def test_a_request_of_another_shape_or_out_of_bounds_is_refused(body: Any) -> None:
    with pytest.raises(RemoteProtocolError):
        decode_request(msgpack.packb(body))


@pytest.mark.parametrize(
    "body",
    [
        [0, 0, b"", b"", 1],
        [0, 0, b"short", b""],
        [0, 0, bytes(MAX_PROOF + 32), b""],
        [0, 0, b"", b"x" * (CHUNK_SIZE + 1)],
        [False, 0, b"", b""],
        [0, b"", 0, b""],
        [1, 1],
        [2],
        [],
        "missing",
    ],
)
def test_an_answer_of_another_shape_or_out_of_bounds_is_refused(body: Any) -> None:
    with pytest.raises(RemoteProtocolError):
        decode_answer(msgpack.packb(body))


@given(st.binary(max_size=100))
def test_garbage_decodes_or_is_the_peers_fault(message: bytes) -> None:
    for decode in (decode_request, decode_answer):
        try:
            decode(message)
        except RemoteProtocolError:
            continue


@given(st.integers(0, 45), st.binary(max_size=8))
def test_a_cut_or_lengthened_request_is_refused(cut: int, tail: bytes) -> None:
    body = msgpack.packb([ROOT, 3 * CHUNK_SIZE, 0, 3])
    for message in (body[: min(cut, len(body) - 1)], body + tail if tail else b""):
        with pytest.raises(RemoteProtocolError):
            decode_request(message)


def test_deeply_nested_garbage_is_refused() -> None:
    with pytest.raises(RemoteProtocolError):
        decode_answer(b"\x91" * 100_000)
