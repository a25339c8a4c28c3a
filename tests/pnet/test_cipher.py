"""XSalsa20 against the vectors of NaCl, and the key stream through all cuts."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2p.pnet.cipher import XSalsa20, hsalsa20

SHARED = bytes.fromhex("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742")
FIRST = bytes.fromhex("1b27556473e985d462cd51197a9a46c76009549eac6474f206c4ee0844f68389")
SECOND = bytes.fromhex("dc908dda0b9344a953629b733820778880f3ceb421bb61b91cbd4c3e66256ce4")
NONCE = bytes.fromhex("69696ee955b62b73cd62bda875fc73d68219e0036b7a0b37")


def test_hsalsa20_makes_the_keys_of_nacl() -> None:
    """NaCl, tests/core1.c and tests/core2.c."""
    assert hsalsa20(SHARED, bytes(16)) == FIRST
    assert hsalsa20(FIRST, NONCE[:16]) == SECOND


def test_the_key_stream_is_that_of_nacl() -> None:
    """NaCl, tests/stream.c (here with SHA-512) and tests/stream3.c."""
    stream = XSalsa20(FIRST, NONCE).apply(bytes(1 << 22))
    assert stream[:32].hex() == "eea6a7251c1e72916d11c2cb214d3c252539121d8e234e652d651fa4c8cff880"
    assert hashlib.sha512(stream).hexdigest() == (
        "2bd8e7db6877539e4f2b295ee415cd378ae214aa3beb3e08e911a5bd4a25e6ac"
        "16ca283c79c34c08c99f7bdb560111e8cac1ae65eea08ac384d7a591461ab6e3"
    )


def test_a_message_is_encrypted_as_nacl_does() -> None:
    """NaCl, tests/stream4.c: 32 bytes of zeros are before the message."""
    cipher = XSalsa20(FIRST, NONCE)
    cipher.apply(bytes(32))
    plain = bytes.fromhex(
        "be075fc53c81f2d5cf141316ebeb0c7b5228c52a4c62cbd44b66849b64244ffc"
        "e5ecbaaf33bd751a1ac728d45e6c61296cdc3c01233561f41db66cce314adb31"
    )
    sealed = cipher.apply(plain)
    assert sealed.hex() == (
        "8e993b9f48681273c29650ba32fc76ce48332ea7164d96a4476fb8c531a1186a"
        "c0dfc17c98dce87b4da7f011ec48c97271d2c20f9b928fe2270d6fb863d51738"
    )


@given(st.lists(st.binary(max_size=200), max_size=12), st.booleans())
def test_the_key_stream_goes_on_however_the_bytes_are_cut(pieces: list[bytes], in_place: bool) -> None:
    whole = b"".join(pieces)
    expected = XSalsa20(FIRST, NONCE).apply(whole)
    cipher = XSalsa20(FIRST, NONCE)
    assert b"".join(cipher.apply(piece) for piece in pieces) == expected
    cipher = XSalsa20(FIRST, NONCE)
    buffer = bytearray(expected)
    view, at = memoryview(buffer), 0
    for piece in pieces:
        if in_place:
            cipher.apply_in_place(view[at : at + len(piece)])
        else:
            view[at : at + len(piece)] = cipher.apply(view[at : at + len(piece)])
        at += len(piece)
    assert buffer == whole


@given(st.lists(st.tuples(st.binary(max_size=300), st.integers(0, 300)), max_size=15))
def test_key_stream_that_is_given_back_is_used_once_and_in_order(steps: list[tuple[bytes, int]]) -> None:
    """Of each piece only the beginning leaves, and what is tried next is something else."""
    cipher = XSalsa20(FIRST, NONCE)
    wire, meant = b"", b""
    for plain, taken in steps:
        sealed = cipher.apply(plain)
        wire += sealed[:taken]
        meant += plain[:taken]
        cipher.give_back(plain[taken:], sealed[taken:])
    assert XSalsa20(FIRST, NONCE).apply(wire) == meant


@pytest.mark.parametrize("used", [0, 7, 100])
def test_given_back_key_stream_is_used_in_place_too(used: int) -> None:
    cipher = XSalsa20(FIRST, NONCE)
    sealed = cipher.apply(bytes(100))
    cipher.give_back(bytes(100 - used), sealed[used:])
    buffer = bytearray(200)
    cipher.apply_in_place(memoryview(buffer))
    assert buffer == XSalsa20(FIRST, NONCE).apply(bytes(used + 200))[used:]
