import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2p.errors import InvalidKey
from p2p.keys import MAX_PRIVATE_KEY, MAX_PUBLIC_KEY, KeyPair, KeyType, PublicKey

VECTORS: dict[str, dict[str, str]] = json.loads(
    (Path(__file__).parent / "vectors" / "peer_ids.json").read_text()
)["keys"]
ED25519 = VECTORS["ed25519"]


def test_the_ed25519_vector_survives_a_round_trip() -> None:
    private, public = bytes.fromhex(ED25519["private"]), bytes.fromhex(ED25519["public"])
    pair = KeyPair.decode(private)
    assert pair.encode() == private
    assert pair.public.encode() == public
    assert PublicKey.decode(public) == pair.public


def test_the_legacy_form_with_the_public_key_twice_is_the_same_pair() -> None:
    private = bytes.fromhex(ED25519["private"])
    legacy = b"\x08\x01\x12\x60" + private[4:] + private[36:]
    assert KeyPair.decode(legacy).encode() == private


@pytest.mark.parametrize("name", VECTORS)
def test_public_keys_of_every_type_survive_a_round_trip(name: str) -> None:
    public = bytes.fromhex(VECTORS[name]["public"])
    key = PublicKey.decode(public)
    assert key.type is KeyType[name.upper()]
    assert key.encode() == public


@pytest.mark.parametrize("name", VECTORS)
def test_private_keys_of_every_type_survive_a_round_trip(name: str) -> None:
    private, public = (bytes.fromhex(VECTORS[name][half]) for half in ("private", "public"))
    pair = KeyPair.decode(private)
    assert pair.encode() == private
    assert pair.public.encode() == public
    assert pair.public == PublicKey.decode(public)


@pytest.mark.parametrize("name", VECTORS)
def test_what_a_key_of_any_type_signs_verifies_with_its_public_half(name: str) -> None:
    pair = KeyPair.decode(bytes.fromhex(VECTORS[name]["private"]))
    public = PublicKey.decode(bytes.fromhex(VECTORS[name]["public"]))
    signature = pair.sign(b"data")
    assert public.verify(b"data", signature)
    assert not public.verify(b"date", signature)
    assert not KeyPair.generate().public.verify(b"data", signature)
    for broken in (b"", signature[:-1], signature + b"\0", b"\0" * len(signature), b"\xff" * len(signature)):
        assert not public.verify(b"data", broken)


def test_a_signature_is_good_for_its_data_and_key_only() -> None:
    pair, other = KeyPair.generate(), KeyPair.generate()
    signature = pair.sign(b"data")
    assert pair.public.verify(b"data", signature)
    assert not pair.public.verify(b"date", signature)
    assert not other.public.verify(b"data", signature)
    assert not pair.public.verify(b"data", signature[:-1])
    assert not pair.public.verify(b"data", b"")
    assert not PublicKey(KeyType.ED25519, b"short").verify(b"data", signature)


def test_a_public_key_that_is_no_point_verifies_nothing() -> None:
    assert not PublicKey(KeyType.ED25519, b"\x02" + bytes(31)).verify(b"", bytes(64))


def test_a_signature_is_that_of_rfc_8032() -> None:
    """RFC 8032, "7.1", test 2."""
    pair = KeyPair.from_seed(
        bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")
    )
    assert pair.public.data.hex() == "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"
    assert pair.sign(b"\x72").hex().startswith("92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8f")


def test_a_seed_gives_the_same_identity_each_time() -> None:
    assert KeyPair.from_seed(b"s" * 32).public == KeyPair.from_seed(b"s" * 32).public
    assert KeyPair.from_seed(b"s" * 32).public != KeyPair.from_seed(b"t" * 32).public


@pytest.mark.parametrize(
    ("encoded", "reason"),
    [
        ("", "not a libp2p key"),
        ("08", "not a libp2p key"),
        ("0801", "not a libp2p key"),
        ("080112", "wrong length"),
        ("08011220" + "00" * 31, "wrong length"),
        ("08011220" + "00" * 33, "wrong length"),
        ("1220" + "00" * 32 + "0801", "not a libp2p key"),
        ("08811220" + "00" * 32, "not a libp2p key"),
        ("0881001220" + "00" * 32, "not minimal"),
        ("080112a000" + "00" * 32, "not minimal"),
        ("0804120100", "unknown key type 4"),
        ("0801121f" + "00" * 31, "32 bytes, not 31"),
        ("0801120100", "32 bytes, not 1"),
        ("08001200" + "1a00", "wrong length"),
        ("00" * (MAX_PUBLIC_KEY + 1), "over the limit"),
    ],
)
def test_anything_but_the_canonical_public_key_is_refused(encoded: str, reason: str) -> None:
    with pytest.raises(InvalidKey, match=reason):
        PublicKey.decode(bytes.fromhex(encoded))


def test_a_private_key_whose_halves_do_not_match_is_refused() -> None:
    private = bytes.fromhex(ED25519["private"])
    with pytest.raises(InvalidKey, match="does not belong"):
        KeyPair.decode(private[:-1] + bytes([private[-1] ^ 1]))
    legacy = b"\x08\x01\x12\x60" + private[4:] + bytes(32)
    with pytest.raises(InvalidKey, match="does not belong"):
        KeyPair.decode(legacy)
    with pytest.raises(InvalidKey, match="64 bytes, not 32"):
        KeyPair.decode(b"\x08\x01\x12\x20" + private[4:36])
    with pytest.raises(InvalidKey, match="over the limit"):
        KeyPair.decode(bytes(MAX_PRIVATE_KEY + 1))


def test_a_pair_does_not_show_its_secret() -> None:
    pair = KeyPair.from_seed(b"s" * 32)
    assert (b"s" * 32).hex() not in repr(pair)
    assert "ssss" not in repr(pair)


HEADS = st.sampled_from([b"", b"\x08", b"\x08\x01\x12", b"\x08\x01\x12\x20", b"\x08\x00\x12\x04"])


@given(HEADS, st.binary(max_size=40))
def test_random_public_keys_are_canonical_or_refused(head: bytes, rest: bytes) -> None:
    try:
        key = PublicKey.decode(head + rest)
    except InvalidKey:
        return
    assert key.encode() == head + rest


@given(HEADS, st.binary(max_size=80))
def test_random_private_keys_are_refused(head: bytes, rest: bytes) -> None:
    with pytest.raises(InvalidKey):
        KeyPair.decode(head + rest)
