"""What the updates of a step are as bytes: one form each, and nothing else is taken."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from federated.errors import CodecError
from federated.sums.documents import (
    ATTEST,
    CHECKS,
    DEAL,
    OPEN,
    Attestation,
    Dealing,
    Document,
    Opening,
    check_empty,
    decode_attestation,
    decode_dealing,
    decode_opening,
    encode_attestation,
    encode_dealing,
    encode_opening,
    head,
    pack_elements,
    unpack_elements,
)
from federated.sums.field import PRIME
from p2p.peer_id import PeerId
from tests.federated.samples import peer

ROUND, AUTHOR = 7, peer(1)
element = st.integers(0, PRIME - 1)
checks = st.tuples(*[element] * CHECKS)


def sums(*rows: list[int]) -> Opening:
    return Opening(tuple(np.array(row, np.uint32) for row in rows))


def rule_of(decode: Callable[[], object]) -> str:
    with pytest.raises(CodecError) as caught:
        decode()
    return caught.value.rule


@given(st.lists(st.binary(min_size=32, max_size=32), max_size=21))
def test_a_dealing_comes_back(roots: list[bytes]) -> None:
    data = encode_dealing(ROUND, AUTHOR, Dealing(tuple(roots)))
    assert decode_dealing(data, ROUND, AUTHOR, len(roots)) == Dealing(tuple(roots))
    assert rule_of(lambda: decode_dealing(data, ROUND, AUTHOR, len(roots) + 1)) == "document"


@given(st.dictionaries(st.integers(0, 69), checks), st.integers(0, 5))
def test_an_attestation_comes_back(found: dict[int, tuple[int, ...]], more: int) -> None:
    dealings = max(found, default=0) + 1 + more
    data = encode_attestation(ROUND, AUTHOR, dealings, Attestation(found))
    assert decode_attestation(data, ROUND, AUTHOR, dealings) == Attestation(found)
    assert len(data) == len(head(ATTEST, ROUND, AUTHOR)) + (dealings + 7) // 8 + 4 * CHECKS * len(found)


def test_a_dealing_that_is_not_there_is_not_attested() -> None:
    data = encode_attestation(ROUND, AUTHOR, 8, Attestation({7: (1, 2)}))
    assert rule_of(lambda: decode_attestation(data, ROUND, AUTHOR, 7)) == "document"


@given(st.integers(1, 4), st.integers(0, 9), st.data())
def test_an_opening_comes_back(count: int, size: int, data: st.DataObject) -> None:
    rows = [data.draw(st.lists(element, min_size=size, max_size=size)) for _ in range(count)]
    encoded = encode_opening(ROUND, AUTHOR, sums(*rows))
    found = decode_opening(encoded, ROUND, AUTHOR, count, size)
    assert [total.tolist() for total in found.sums] == rows
    assert rule_of(lambda: decode_opening(encoded + b"1234", ROUND, AUTHOR, count, size)) == "document"


def test_who_is_not_the_author_cannot_use_a_document() -> None:
    for data, decode in _documents():
        for number, author in ((ROUND + 1, AUTHOR), (ROUND, peer(2))):
            assert rule_of(lambda: decode(data, number, author)) == "document"  # noqa: B023


def test_no_number_is_as_large_as_the_prime() -> None:
    too_large = np.array([0, PRIME], "<u4").tobytes()
    opening = head(OPEN, ROUND, AUTHOR) + too_large
    assert rule_of(lambda: decode_opening(opening, ROUND, AUTHOR, 2, 1)) == "document"
    attestation = head(ATTEST, ROUND, AUTHOR) + b"\x01" + too_large
    assert rule_of(lambda: decode_attestation(attestation, ROUND, AUTHOR, 1)) == "document"
    assert rule_of(lambda: unpack_elements(too_large, 2)) == "document"
    assert rule_of(lambda: unpack_elements(too_large, 1)) == "document"


@given(st.binary(max_size=60), st.integers(0, 200), st.booleans())
def test_bytes_of_strangers_are_a_document_of_one_form_or_none(tail: bytes, cut: int, flip: bool) -> None:
    for data, decode in _documents():
        changed = bytearray(data[: len(data) - cut % (len(data) + 1)] + tail)
        if flip and changed:
            changed[cut % len(changed)] ^= 1 << cut % 8
        with suppress(CodecError):
            assert _encoded(decode(bytes(changed), ROUND, AUTHOR)) == bytes(changed)


def test_who_has_nothing_to_say_says_nothing_else() -> None:
    check_empty(head(DEAL, ROUND, AUTHOR), DEAL, ROUND, AUTHOR)
    for data in (head(OPEN, ROUND, AUTHOR), head(DEAL, ROUND, AUTHOR) + b"\0", b""):
        assert rule_of(lambda: check_empty(data, DEAL, ROUND, AUTHOR)) == "document"  # noqa: B023
    assert encode_attestation(ROUND, AUTHOR, 9, None) == head(ATTEST, ROUND, AUTHOR)


def test_elements_are_little_endian() -> None:
    assert pack_elements(np.array([1, 256], np.uint32)) == bytes([1, 0, 0, 0, 0, 1, 0, 0])


Decode = Callable[[bytes, int, PeerId], Document]


def _documents() -> list[tuple[bytes, Decode]]:
    dealing = encode_dealing(ROUND, AUTHOR, Dealing((bytes(32), bytes([1]) * 32)))
    attestation = encode_attestation(ROUND, AUTHOR, 3, Attestation({0: (1, 2), 2: (3, 4)}))
    opening = encode_opening(ROUND, AUTHOR, sums([1, 2], [3, 4]))
    return [
        (dealing, lambda data, number, author: decode_dealing(data, number, author, 2)),
        (attestation, lambda data, number, author: decode_attestation(data, number, author, 3)),
        (opening, lambda data, number, author: decode_opening(data, number, author, 2, 2)),
    ]


def _encoded(document: Document) -> bytes:
    match document:
        case Dealing():
            return encode_dealing(ROUND, AUTHOR, document)
        case Attestation():
            return encode_attestation(ROUND, AUTHOR, 3, document)
        case Opening():
            return encode_opening(ROUND, AUTHOR, document)
