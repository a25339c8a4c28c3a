from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2p import varint
from p2p.blobs.merkle import CHUNK_SIZE, MerkleTree
from p2p.blobs.wire import (
    MAX_BLOB,
    MAX_HEADER,
    MAX_HOPS,
    MAX_REQUEST,
    MAX_WANTED,
    SMALL_PIECE,
    Absent,
    Answer,
    AnswerDecoder,
    Chunk,
    Haves,
    Lacking,
    Want,
    decode_want,
    encode_answer,
    encode_want,
)
from p2p.errors import MessageTooLarge, RemoteProtocolError
from p2p.framing import DelimitedDecoder, encode_delimited

ROOT = bytes(range(32))


def unframed(framed: bytes, limit: int) -> bytes:
    decoder = DelimitedDecoder(limit)
    decoder.receive_data(framed)
    message = decoder.next_event()
    assert message is not None
    assert not decoder.mid_message
    return message


def decode(*pieces: bytes) -> list[Answer]:
    """The answers in `pieces`; nothing is left."""
    decoder, answers = AnswerDecoder(), []
    for piece in pieces:
        decoder.receive_data(piece)
        while (answer := decoder.next_event()) is not None:
            if isinstance(answer, Chunk):
                assert len(answer.pieces) <= CHUNK_SIZE // SMALL_PIECE + 1
                answer = replace(answer, pieces=(b"".join(answer.pieces),))
            answers.append(answer)
    assert not decoder.mid_message
    return answers


@given(st.integers(1, MAX_BLOB), st.data())
def test_a_want_survives_the_wire(size: int, data: st.DataObject) -> None:
    last = -(-size // CHUNK_SIZE) - 1
    indexes = tuple(data.draw(st.lists(st.integers(0, last), max_size=MAX_WANTED)))
    want = Want(root=ROOT, size=size, indexes=indexes)
    assert decode_want(unframed(encode_want(want), MAX_REQUEST)) == want


LONGEST_PROOF = tuple(bytes([n]) * 32 for n in range(MAX_HOPS))
ANSWERS: list[Answer] = [
    Lacking(index=4095),
    Absent(),
    Haves(chunks=0),
    Haves(chunks=(1 << 4096) - 1),
    Haves(chunks=0b1010),
    Chunk(index=0, proof=(), pieces=(b"x",)),
    Chunk(index=4095, proof=LONGEST_PROOF, pieces=(b"x" * CHUNK_SIZE,)),
]


@given(st.lists(st.sampled_from(ANSWERS), max_size=6), st.integers(1, 70_000), st.integers(0, 1 << 16))
def test_answers_survive_the_wire_however_they_are_cut(answers: list[Answer], step: int, first: int) -> None:
    sent = b"".join(piece for answer in answers for piece in encode_answer(answer))
    cuts = [0, *range(min(first, len(sent)), len(sent), step), len(sent)]
    assert decode(*(sent[a:b] for a, b in itertools.pairwise(cuts))) == answers


@pytest.mark.parametrize("answer", ANSWERS[:-1])
def test_an_answer_survives_byte_by_byte_and_its_part_is_none(answer: Answer) -> None:
    sent = b"".join(encode_answer(answer))
    assert decode(*(bytes([byte]) for byte in sent)) == [answer]
    decoder = AnswerDecoder()
    decoder.receive_data(sent[:-1])
    assert decoder.next_event() is None
    assert decoder.mid_message


def test_the_bytes_of_a_chunk_are_not_copied_to_be_sent() -> None:
    data = b"x" * CHUNK_SIZE
    assert encode_answer(Chunk(index=0, proof=(), pieces=(data,)))[1] is data


def test_the_proofs_of_the_largest_blob_fit() -> None:
    tree = MerkleTree([bytes(32)] * (MAX_BLOB // CHUNK_SIZE))
    assert len(tree.proof(0)) == MAX_HOPS


@pytest.mark.parametrize(
    "body",
    [
        [ROOT, 0, b"\0\0"],
        [ROOT, MAX_BLOB + 1, b""],
        [ROOT, -1, b""],
        [ROOT, MAX_BLOB, bytes(2 * MAX_WANTED + 2)],
        [ROOT, MAX_BLOB, b"\x10\x00"],
        [ROOT, CHUNK_SIZE, b"\0\1"],
        [ROOT, 1, b"\0"],
        [ROOT[:-1], 1, b""],
        [ROOT, True, b""],
        [ROOT, 1.0, b""],
        [ROOT, None, b""],
        [ROOT, 1, 0],
        [ROOT, 1],
        [ROOT, 1, b"", 1],
        [ROOT, 1, [0]],
        ["root", 1, b""],
        {0: ROOT},
        7,
    ],
)
def test_a_want_of_another_shape_or_out_of_bounds_is_refused(body: Any) -> None:
    with pytest.raises(RemoteProtocolError):
        decode_want(msgpack.packb(body))


@pytest.mark.parametrize(
    "body",
    [
        [0, 0, b"", 1, 1],
        [0, 0, b"short", 1],
        [0, 0, bytes(32 * MAX_HOPS + 32), 1],
        [0, 0, b"", CHUNK_SIZE + 1],
        [0, 0, b"", 0],
        [0, 0, b"", -1],
        [0, 0, b"", b"x"],
        [False, 0, b"", 1],
        [0, b"", 0, 1],
        [1],
        [1, b""],
        [2, 1],
        [3, 1],
        [4],
        [],
        "missing",
    ],
)
def test_an_answer_of_another_shape_or_out_of_bounds_is_refused(body: Any) -> None:
    with pytest.raises(RemoteProtocolError):
        decode(encode_delimited(msgpack.packb(body)))


def test_a_header_over_the_limit_is_refused_before_it_comes() -> None:
    with pytest.raises(MessageTooLarge):
        decode(varint.encode(MAX_HEADER + 1))


@given(st.binary(max_size=100))
def test_garbage_decodes_or_is_the_peers_fault(message: bytes) -> None:
    for read in (decode_want, AnswerDecoder()._decode):
        try:
            read(message)
        except RemoteProtocolError:
            continue


@given(st.integers(0, 45), st.binary(max_size=8))
def test_a_cut_or_lengthened_want_is_refused(cut: int, tail: bytes) -> None:
    body = msgpack.packb([ROOT, 3 * CHUNK_SIZE, b"\0\0\0\1"])
    for message in (body[: min(cut, len(body) - 1)], body + tail if tail else b""):
        with pytest.raises(RemoteProtocolError):
            decode_want(message)


def test_deeply_nested_garbage_is_refused() -> None:
    with pytest.raises(RemoteProtocolError):
        decode_want(b"\x91" * 100_000)
