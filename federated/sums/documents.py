"""What the updates of the three rounds are as bytes.

    magic 8 │ kind 1 │ round 8 │ author: length 1, id │ body                   big-endian but for elements

    dealing       the root of the sealed share of each holder, 32 bytes each, in the order of the holders
    attestation   a bitmap of the dealings whose shares the author has, then CHECKS elements for each of them
    opening       the elements of one sum after the other

Who has nothing to say in a round says that: a document without a body. The author is in it so that no two
members ever have the same document. Elements are little-endian, 4 bytes each. What is no document is refused
with the rule `document`.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from federated.errors import CodecError
from federated.rounds.messages import HASH_SIZE
from federated.sums.field import PRIME, Elements
from p2p.peer_id import PeerId

CHECKS = 2  # elements by which a share is checked; each lets one of 2³¹ pass that is none
ELEMENT = 4  # bytes

DEAL, ATTEST, OPEN = 1, 2, 3

_MAGIC = b"atcpsum1"
_HEAD = struct.Struct(">8sBQB")
_ELEMENTS = np.dtype("<u4")


@dataclass(frozen=True, slots=True)
class Dealing:
    """The roots of a member's sealed shares, one for each holder; none when it deals nothing."""

    roots: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Attestation:
    """By the number of the dealing: the checks of the share that the author has of it."""

    checks: Mapping[int, tuple[int, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Opening:
    """The author's share of each sum."""

    sums: tuple[Elements, ...] = ()


Document = Dealing | Attestation | Opening


def head(kind: int, round_number: int, author: PeerId) -> bytes:
    """How a document begins; one that says nothing ends there."""
    return _HEAD.pack(_MAGIC, kind, round_number, len(author.raw)) + author.raw


def encode_dealing(round_number: int, author: PeerId, dealing: Dealing) -> bytes:
    """The bytes of a dealing."""
    return head(DEAL, round_number, author) + b"".join(dealing.roots)


def decode_dealing(data: bytes, round_number: int, author: PeerId, holders: int) -> Dealing:
    """The dealing in `data`, to so many holders. Raises `CodecError`."""
    body = _body(data, head(DEAL, round_number, author))
    if len(body) != holders * HASH_SIZE:
        raise _refusal(f"{len(body)} bytes of roots, for {holders} holders")
    return Dealing(tuple(body[at : at + HASH_SIZE] for at in range(0, len(body), HASH_SIZE)))


def encode_attestation(
    round_number: int, author: PeerId, dealings: int, attestation: Attestation | None
) -> bytes:
    """The bytes of an attestation of `dealings`; of one who is no holder when it is None."""
    start = head(ATTEST, round_number, author)
    if attestation is None:
        return start
    held = sum(1 << number for number in attestation.checks)
    checks = [check for _, found in sorted(attestation.checks.items()) for check in found]
    return start + held.to_bytes(_mask_size(dealings), "big") + np.array(checks, _ELEMENTS).tobytes()


def decode_attestation(data: bytes, round_number: int, author: PeerId, dealings: int) -> Attestation:
    """The attestation of a holder in `data`. Raises `CodecError`."""
    body = _body(data, head(ATTEST, round_number, author))
    size = _mask_size(dealings)
    held = int.from_bytes(body[:size], "big")
    if len(body) != size + held.bit_count() * CHECKS * ELEMENT or held >> dealings:
        raise _refusal(f"{len(body)} bytes do not attest {dealings} dealings")
    values = [int(value) for value in _elements(body[size:])]
    numbers = [number for number in range(dealings) if held >> number & 1]
    pairs = zip(numbers, range(0, len(values), CHECKS), strict=True)
    return Attestation({number: tuple(values[at : at + CHECKS]) for number, at in pairs})


def encode_opening(round_number: int, author: PeerId, opening: Opening) -> bytes:
    """The bytes of an opening."""
    return head(OPEN, round_number, author) + b"".join(pack_elements(total) for total in opening.sums)


def decode_opening(data: bytes, round_number: int, author: PeerId, sums: int, size: int) -> Opening:
    """The opening of so many sums, each of `size` elements, in `data`. Raises `CodecError`."""
    start = head(OPEN, round_number, author)
    if len(data) != len(start) + sums * size * ELEMENT:
        raise _refusal(f"{len(data)} bytes do not open {sums} sums of {size}")
    body = _elements(_body(data, start))
    return Opening(tuple(body[number * size : (number + 1) * size] for number in range(sums)))


def check_empty(data: bytes, kind: int, round_number: int, author: PeerId) -> None:
    """Raises `CodecError` unless `data` says nothing."""
    if data != head(kind, round_number, author):
        raise _refusal("who has nothing to say says something")


def pack_elements(elements: Elements) -> bytes:
    """Elements as they travel."""
    return elements.astype(_ELEMENTS, copy=False).tobytes()


def unpack_elements(data: bytes, size: int) -> Elements:
    """`size` elements. Raises `CodecError`."""
    if len(data) != size * ELEMENT:
        raise _refusal(f"{len(data)} bytes are not {size} elements")
    return _elements(data)


def _elements(data: bytes) -> Elements:
    found = np.frombuffer(data, _ELEMENTS).astype(np.uint32, copy=False)
    if found.size and int(found.max()) >= PRIME:
        raise _refusal("a number that is not below the prime")
    return found


def _body(data: bytes, start: bytes) -> bytes:
    if not data.startswith(start):
        raise _refusal("of another kind, round or author")
    return data[len(start) :]


def _mask_size(dealings: int) -> int:
    return (dealings + 7) // 8


def _refusal(detail: str) -> CodecError:
    return CodecError("document", detail)
