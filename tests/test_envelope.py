from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2p.envelope import MAX_ENVELOPE, seal, signed_bytes, unseal
from p2p.errors import AuthenticationFailed, MessageTooLarge, P2PError, RemoteProtocolError
from tests.support import key_number

KEY = key_number(1)
KIND = b"\x03\x01"


def field(number: int, value: bytes) -> bytes:
    """A length-delimited protobuf field shorter than 128 bytes, by hand."""
    return bytes([number << 3 | 2, len(value)]) + value


def test_the_signature_is_over_each_part_behind_its_length():
    assert signed_bytes("ab", b"\x03\x01", b"xyz") == b"\x02ab\x02\x03\x01\x03xyz"
    long = b"p" * 300
    assert signed_bytes("", b"", long) == b"\x00\x00\xac\x02" + long


def test_the_layout_is_the_one_of_the_specification():
    public = b"\x08\x01\x12\x20" + KEY.public.data
    signature = KEY.sign(b"\x06domain\x02\x03\x01\x07payload")
    by_hand = field(1, public) + field(2, KIND) + field(3, b"payload") + field(5, signature)
    assert seal("domain", KIND, b"payload", KEY) == by_hand
    assert unseal(by_hand, "domain", KIND) == (KEY.public, b"payload")


def test_unknown_fields_are_skipped():
    sealed = seal("domain", KIND, b"payload", KEY) + field(4, b"raw") + field(9, b"later")
    assert unseal(sealed, "domain", KIND) == (KEY.public, b"payload")


def test_an_envelope_for_another_purpose_is_refused():
    sealed = seal("domain", KIND, b"payload", KEY)
    with pytest.raises(AuthenticationFailed):
        unseal(sealed, "another", KIND)
    with pytest.raises(RemoteProtocolError, match="another kind: 0301"):
        unseal(sealed, "domain", b"\x03\x02")


def test_an_envelope_of_no_kind_is_refused():
    with pytest.raises(RemoteProtocolError, match="none"):
        unseal(b"", "domain", KIND)


def test_every_changed_byte_is_noticed():
    sealed = seal("domain", KIND, b"payload", KEY)
    for at in range(len(sealed)):
        changed = bytearray(sealed)
        changed[at] ^= 1
        with pytest.raises(RemoteProtocolError):
            unseal(bytes(changed), "domain", KIND)


def test_the_key_of_another_signer_does_not_fit():
    sealed = seal("domain", KIND, b"payload", KEY)
    swapped = sealed.replace(KEY.public.data, key_number(2).public.data)
    with pytest.raises(AuthenticationFailed):
        unseal(swapped, "domain", KIND)


def test_a_key_that_does_not_decode_is_the_peers_fault():
    sealed = field(1, b"junk") + field(2, KIND) + field(3, b"payload") + field(5, b"s" * 64)
    with pytest.raises(RemoteProtocolError, match="unusable key"):
        unseal(sealed, "domain", KIND)


def test_an_oversized_envelope_is_refused_unread():
    with pytest.raises(MessageTooLarge):
        unseal(b"\xff" * (MAX_ENVELOPE + 1), "domain", KIND)
    payload = b"p" * (MAX_ENVELOPE - 200)
    assert unseal(seal("domain", KIND, payload, KEY), "domain", KIND)[1] == payload


@given(st.text(max_size=20), st.binary(max_size=300), st.binary(max_size=300))
def test_what_is_sealed_is_what_is_unsealed(domain, kind, payload):
    assert unseal(seal(domain, kind, payload, KEY), domain, kind) == (KEY.public, payload)


@given(st.binary(max_size=300), st.binary(max_size=20))
def test_random_bytes_are_never_an_envelope(data, kind):
    with pytest.raises(P2PError):
        unseal(data, "domain", kind)


@given(st.data())
def test_an_envelope_cut_anywhere_is_refused(data):
    sealed = seal("domain", KIND, b"payload", KEY)
    cut = sealed[: data.draw(st.integers(0, len(sealed) - 1))]
    with contextlib.suppress(RemoteProtocolError):
        pytest.fail(f"taken: {unseal(cut, 'domain', KIND)}")
