import json
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st

from p2p.errors import AuthenticationFailed
from p2p.tls.certificate import EXTENSION, MAX_CERTIFICATE, make_certificate, verify_certificate
from tests.tls.support import (
    AFTER,
    ALICE,
    ALICE_ID,
    BEFORE,
    BOB,
    BOB_ID,
    CERTIFICATE_KEY,
    NOW,
    CertificateKey,
    certificate,
    der,
)

VECTORS = json.loads((Path(__file__).parent.parent / "vectors" / "tls_certificates.json").read_text())


@pytest.mark.parametrize("vector", VECTORS["certificates"], ids=lambda vector: vector["name"])
def test_vectors_of_the_specification(vector: dict[str, str | None]) -> None:
    encoded = bytes.fromhex(vector["der"] or "")
    if vector["peer_id"] is None:
        with pytest.raises(AuthenticationFailed, match="did not sign"):
            verify_certificate(encoded, NOW)
    else:
        _, peer = verify_certificate(encoded, NOW)
        assert str(peer) == vector["peer_id"]


def test_what_we_make_proves_our_identity_and_has_nothing_else_in_it() -> None:
    made = make_certificate(ALICE, CERTIFICATE_KEY, serial=7, not_before=BEFORE, not_after=AFTER)
    assert verify_certificate(der(made), NOW) == (ALICE.public, ALICE_ID)
    assert [(extension.oid, extension.critical) for extension in made.extensions] == [(EXTENSION, False)]
    assert (made.version, made.serial_number) == (x509.Version.v3, 7)
    assert (made.not_valid_before_utc, made.not_valid_after_utc) == (BEFORE, AFTER)


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP384R1()),
        ec.generate_private_key(ec.SECP521R1()),
        rsa.generate_private_key(65537, 2048),
    ],
    ids=["P-384", "P-521", "RSA"],
)
def test_certificates_of_other_kinds_are_taken(key: CertificateKey) -> None:
    assert verify_certificate(der(certificate(key=key)), NOW) == (BOB.public, BOB_ID)


def test_an_ed25519_certificate_and_a_critical_identity_are_taken() -> None:
    made = certificate(key=ed25519.Ed25519PrivateKey.generate(), algorithm=None, critical=True)
    assert verify_certificate(der(made), NOW) == (BOB.public, BOB_ID)


def test_the_dates_are_included_and_what_is_beyond_them_is_refused() -> None:
    encoded = der(certificate())
    for good in (BEFORE, AFTER):
        assert verify_certificate(encoded, good) == (BOB.public, BOB_ID)
    with pytest.raises(AuthenticationFailed, match="not valid before"):
        verify_certificate(encoded, BEFORE - timedelta(seconds=1))
    with pytest.raises(AuthenticationFailed, match="expired"):
        verify_certificate(encoded, AFTER + timedelta(seconds=1))


def test_a_certificate_signed_by_another_key_is_refused() -> None:
    made = certificate(signer=ec.generate_private_key(ec.SECP256R1()))
    with pytest.raises(AuthenticationFailed, match="its own key"):
        verify_certificate(der(made), NOW)


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [
        (ec.generate_private_key(ec.SECP256K1()), hashes.SHA256()),
        (rsa.generate_private_key(65537, 1024), hashes.SHA256()),
    ],
    ids=["secp256k1", "RSA-1024"],
)
def test_weak_or_unusual_certificate_keys_are_refused(
    key: CertificateKey, algorithm: hashes.SHA256 | None
) -> None:
    with pytest.raises(AuthenticationFailed, match="kind or size"):
        verify_certificate(der(certificate(key=key, algorithm=algorithm)), NOW)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\x30",
        b"\x04\x00",
        b"\x30\x00",
        b"\x30\x80\x00\x00",  # no definite length
        b"\x30\x81\x04\x04\x00\x04\x00",  # a length that is not minimal
        b"\x30\x04\x04\x00\x04\x00\x00",  # a byte behind
        b"\x30\x06\x04\x00\x04\x00\x04\x00",  # a third field
        b"\x30\x06\x04\x00\x04\x09\x00\x00",  # a field longer than the rest
        b"\x30\xff" + b"\xff" * 64,
    ],
    ids=bytes.hex,
)
def test_a_malformed_identity_is_refused(value: bytes) -> None:
    made = certificate(identity_value=value or b"\x05\x00")
    with pytest.raises(AuthenticationFailed, match=r"malformed|too many"):
        verify_certificate(der(made), NOW)


def test_an_identity_key_that_is_none_is_refused() -> None:
    made = certificate(identity_value=b"\x30\x04\x04\x00\x04\x00")
    with pytest.raises(AuthenticationFailed, match="identity key cannot be used"):
        verify_certificate(der(made), NOW)


def test_harmless_extensions_do_not_matter() -> None:
    names = x509.SubjectAlternativeName([x509.DNSName("example.org")])
    assert verify_certificate(der(certificate(extensions=[(names, False)])), NOW) == (BOB.public, BOB_ID)


def test_an_oversized_certificate_is_not_even_parsed() -> None:
    with pytest.raises(AuthenticationFailed, match="over the limit"):
        verify_certificate(b"\x30" * (MAX_CERTIFICATE + 1), NOW)


GOOD = der(certificate())


@given(st.binary(max_size=512))
def test_garbage_is_never_a_certificate(data: bytes) -> None:
    with pytest.raises(AuthenticationFailed):
        verify_certificate(data, NOW)


@given(
    st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), min_size=1, max_size=4),
    st.integers(0, len(GOOD)),
)
def test_a_mutated_certificate_is_refused_or_proves_the_same(
    changes: list[tuple[int, int]], keep: int
) -> None:
    changed = bytearray(GOOD)
    for at, value in changes:
        changed[at] = value
    for candidate in (bytes(changed), bytes(changed[:keep]), bytes(changed) + bytes(changed[:keep])):
        with suppress(AuthenticationFailed):
            assert verify_certificate(candidate, NOW) == (BOB.public, BOB_ID)


def test_a_certificate_with_any_byte_flipped_is_refused_or_proves_the_same() -> None:
    for at in range(len(GOOD)):
        changed = bytearray(GOOD)
        changed[at] ^= 0x01
        with suppress(AuthenticationFailed):
            assert verify_certificate(bytes(changed), NOW) == (BOB.public, BOB_ID)
