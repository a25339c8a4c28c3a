"""What is sealed to an identity: vectors of the curve's map, and that nobody else reads or changes it."""

from __future__ import annotations

import itertools

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from federated.errors import CodecError
from federated.sums.seal import KEY, OVERHEAD, exchange_key, seal, secret_exchange_key, unseal
from p2p.keys import KeyPair, KeyType, PublicKey
from p2p.peer_id import PeerId
from tests.support import key_number

EPHEMERAL = bytes(range(KEY))


def peer_of(pair: KeyPair) -> PeerId:
    return PeerId.from_public_key(pair.public)


def test_the_map_of_the_curve_is_that_of_libsodium() -> None:
    # test/default/ed25519_convert.c and .exp of libsodium
    seed = bytes.fromhex("421151a459faeade3d247115f94aedae42318124095afabe4d1451a559faedee")
    pair = KeyPair.from_seed(seed)
    known = exchange_key(peer_of(pair))
    assert known is not None
    assert known.hex() == "f1814f0e8ff1043d8a44d25babff3cedcae6c22c3edaa48f857ae70de2baae50"
    secret = bytearray(secret_exchange_key(pair))
    secret[0] &= 248
    secret[31] = secret[31] & 127 | 64  # RFC 7748, decodeScalar25519: done by every X25519
    assert secret.hex() == "8052030376d47112be7f73ed7a019293dd12ad910b654455798b4667d73de166"


@settings(max_examples=25)
@given(st.binary(min_size=32, max_size=32))
def test_both_halves_of_an_identity_are_mapped_to_one_pair(seed: bytes) -> None:
    pair = KeyPair.from_seed(seed)
    mapped = X25519PrivateKey.from_private_bytes(secret_exchange_key(pair)).public_key()
    assert mapped.public_bytes_raw() == exchange_key(peer_of(pair))


@settings(max_examples=25)
@given(
    plain=st.binary(max_size=300),
    purpose=st.binary(max_size=20),
    ephemeral=st.binary(min_size=32, max_size=32),
)
def test_what_is_sealed_to_a_peer_is_read_by_it(plain: bytes, purpose: bytes, ephemeral: bytes) -> None:
    pair = key_number(1)
    sealed = seal(plain, peer_of(pair), purpose, ephemeral)
    assert len(sealed) == len(plain) + OVERHEAD
    assert unseal(sealed, pair, purpose) == plain


def test_nobody_else_reads_it_and_nobody_for_another_purpose() -> None:
    sealed = seal(b"share", peer_of(key_number(1)), b"what for", EPHEMERAL)
    for pair, purpose in ((key_number(2), b"what for"), (key_number(1), b"what else")):
        with pytest.raises(CodecError, match="not sealed to this peer"):
            unseal(sealed, pair, purpose)


def test_a_changed_bit_and_a_cut_are_noticed() -> None:
    sealed = seal(b"share", peer_of(key_number(1)), b"", EPHEMERAL)
    for at, bit in itertools.product(range(len(sealed)), (1, 128)):  # X25519 itself overlooks one of them
        changed = bytearray(sealed)
        changed[at] ^= bit
        for data in (bytes(changed), sealed[:at]):
            with pytest.raises(CodecError) as caught:
                unseal(data, key_number(1), b"")
            assert caught.value.rule == "seal"


def test_nothing_is_sealed_to_a_point_whose_secrets_everybody_knows() -> None:
    for point in (1, (1 << 255) - 20, 0):  # y = 1, −1, 0: of order 1, 2 and 4
        peer = PeerId.from_public_key(PublicKey(KeyType.ED25519, point.to_bytes(32, "little")))
        assert exchange_key(peer) is None
        with pytest.raises(ValueError, match="nothing can be sealed"):
            seal(b"", peer, b"", EPHEMERAL)


def test_nothing_is_sealed_to_a_key_of_another_type() -> None:
    secp256k1 = KeyPair.decode(
        bytes.fromhex("0802122053DADF1D5A164D6B4ACDB15E24AA4C5B1D3461BDBD42ABEDB0A4404D56CED8FB")
    )  # libp2p's peer id specification, "Test vectors"
    assert exchange_key(peer_of(secp256k1)) is None
