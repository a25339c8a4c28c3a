"""The rules of each key type: what is refused, and that signatures are those of the other libraries."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from p2p import varint
from p2p.errors import InvalidKey
from p2p.key_types import RSA_DER, SECP256K1_ORDER
from p2p.keys import MAX_PUBLIC_KEY, KeyPair, KeyType, PublicKey

FOLDER = Path(__file__).parent / "vectors"
VECTORS: dict[str, dict[str, str]] = json.loads((FOLDER / "peer_ids.json").read_text())["keys"]
PRIVATE = {name: bytes.fromhex(vector["private"]) for name, vector in VECTORS.items()}
PUBLIC = {name: bytes.fromhex(vector["public"]) for name, vector in VECTORS.items()}
E = 65537


def wrap(key_type: KeyType, data: bytes) -> bytes:
    return b"\x08" + bytes([key_type]) + b"\x12" + varint.encode(len(data)) + data


def public_der(key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey | dsa.DSAPublicKey) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def rsa_der(modulus: int, exponent: int = E) -> bytes:
    return public_der(rsa.RSAPublicNumbers(exponent, modulus).public_key())


def modulus(bits: int) -> int:
    """An odd number of that many bits; a public key does not tell whether it has two factors."""
    return (1 << (bits - 1)) | 0x10001


# --- secp256k1


def high_s(signature: bytes) -> bytes:
    r, s = decode_dss_signature(signature)
    return encode_dss_signature(r, SECP256K1_ORDER - s)


def test_secp256k1_signs_with_a_low_s_and_takes_no_other() -> None:
    pair = KeyPair.decode(PRIVATE["secp256k1"])
    for number in range(20):  # half of all signatures would have a high one
        data = b"%d" % number
        signature = pair.sign(data)
        assert decode_dss_signature(signature)[1] <= SECP256K1_ORDER // 2
        assert pair.public.verify(data, signature)
        assert not pair.public.verify(data, high_s(signature))


def test_the_generator_of_secp256k1_is_the_public_key_of_one() -> None:
    """SEC 2, "2.4.1": G in its compressed form."""
    pair = KeyPair.decode(wrap(KeyType.SECP256K1, (1).to_bytes(32, "big")))
    assert pair.public.data.hex() == "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"


def test_a_secp256k1_signature_is_over_the_sha256_of_the_data() -> None:
    """A deterministic signature that bitcoinjs, go and others test with: key 1, RFC 6979."""
    public = KeyPair.decode(wrap(KeyType.SECP256K1, (1).to_bytes(32, "big"))).public
    r = 0x934B1EA10A4B3C1757E2B0C017D0B6143CE3C9A7E6A4A49860D7A6AB210EE3D8
    s = 0x2442CE9D2B916064108014783E923EC36B49743E2FFA1C4496F01A512AAFD9E5
    assert public.verify(b"Satoshi Nakamoto", encode_dss_signature(r, s))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ("02" + "00" * 31, "33 bytes, not 32"),
        ("04" + "11" * 64, "33 bytes, not 65"),
        ("04" + "11" * 32, "no point"),
        ("00" + "00" * 32, "no point"),
        ("02" + "ff" * 32, "no point"),
        ("02" + "00" * 31 + "05", "no point"),  # 5³ + 7 is no square
        ("02" + f"{2**256 - 2**32 - 977 + 1:064x}", "no point"),  # the x of 1 with p added
    ],
)
def test_a_secp256k1_key_that_is_no_compressed_point_is_refused(data: str, reason: str) -> None:
    with pytest.raises(InvalidKey, match=reason):
        PublicKey.decode(wrap(KeyType.SECP256K1, bytes.fromhex(data)))


@pytest.mark.parametrize("scalar", [0, SECP256K1_ORDER, SECP256K1_ORDER + 1, 2**256 - 1])
def test_a_secp256k1_scalar_out_of_range_is_refused(scalar: int) -> None:
    with pytest.raises(InvalidKey, match="out of range"):
        KeyPair.decode(wrap(KeyType.SECP256K1, scalar.to_bytes(32, "big")))
    with pytest.raises(InvalidKey, match="32 bytes, not 33"):
        KeyPair.decode(wrap(KeyType.SECP256K1, scalar.to_bytes(33, "big")))


# --- ECDSA


@pytest.mark.parametrize("curve", [ec.SECP224R1(), ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()])
def test_ecdsa_works_on_the_curves_of_go(curve: ec.EllipticCurve) -> None:
    made = ec.generate_private_key(curve)
    pair = KeyPair.decode(
        wrap(
            KeyType.ECDSA, made.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption())
        )
    )
    public = PublicKey.decode(wrap(KeyType.ECDSA, public_der(made.public_key())))
    assert pair.public == public
    assert public.verify(b"data", pair.sign(b"data"))


@pytest.mark.parametrize("curve", [ec.SECP256K1(), ec.BrainpoolP256R1()])
def test_ecdsa_on_other_curves_is_refused(curve: ec.EllipticCurve) -> None:
    made = ec.generate_private_key(curve)
    private = made.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    with pytest.raises(InvalidKey, match=f"curve {curve.name} are not supported"):
        PublicKey.decode(wrap(KeyType.ECDSA, public_der(made.public_key())))
    with pytest.raises(InvalidKey, match=f"curve {curve.name} are not supported"):
        KeyPair.decode(wrap(KeyType.ECDSA, private))


def test_an_ecdsa_signature_is_that_of_rfc_6979() -> None:
    """RFC 6979, "A.2.5": P-256 with SHA-256, the message "sample"."""
    numbers = ec.EllipticCurvePublicNumbers(
        0x60FED4BA255A9D31C961EB74C6356D68C049B8923B61FA6CE669622E60F29FB6,
        0x7903FE1008B8BC99A41AE9E95628BC64F2F1B20C2D7E9F5177A3C294D4462299,
        ec.SECP256R1(),
    )
    public = PublicKey.decode(wrap(KeyType.ECDSA, public_der(numbers.public_key())))
    signature = encode_dss_signature(
        0xEFD48B2AACB6A8FD1140DD9CD45E81D69D2C877B56AAF991C34D0EA84EAF3716,
        0xF7CB1C942D657C41D436C7A1B6E29F65F3E900DBB9AFF4064DC4AB2F843ACDA8,
    )
    assert public.verify(b"sample", signature)
    assert not public.verify(b"Sample", signature)


def test_an_ecdsa_key_that_is_no_point_is_refused() -> None:
    with pytest.raises(InvalidKey, match="does not decode"):
        PublicKey.decode(PUBLIC["ecdsa"][:-1] + b"\0")


def test_an_ecdsa_key_in_another_encoding_of_the_same_point_is_refused() -> None:
    data = PUBLIC["ecdsa"][4:]
    point = bytes([2 + data[-1] % 2]) + data[27:59]
    compressed = b"\x30\x39" + data[2:23] + b"\x03\x22\x00" + point
    with pytest.raises(InvalidKey, match="canonical"):
        PublicKey.decode(wrap(KeyType.ECDSA, compressed))


# --- RSA


@pytest.mark.parametrize("bits", [2048, 2056, 3072, 4096, 8192])
def test_rsa_keys_of_a_reasonable_size_are_taken(bits: int) -> None:
    assert PublicKey.decode(wrap(KeyType.RSA, rsa_der(modulus(bits)))).type is KeyType.RSA


@pytest.mark.parametrize("bits", [1024, 2040, 2047, 8193, 8200, 16384])
def test_rsa_keys_of_another_size_are_refused(bits: int) -> None:
    with pytest.raises(InvalidKey, match=r"bits|over the limit"):
        PublicKey.decode(wrap(KeyType.RSA, rsa_der(modulus(bits))))


def test_an_oversized_rsa_key_is_refused_before_it_is_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    """CVE-2023-39533: the verification of an endless key is an attack."""
    oversized = wrap(KeyType.RSA, rsa_der(modulus(15000)))
    assert len(oversized) < MAX_PUBLIC_KEY
    monkeypatch.setattr("p2p.key_types.load_der_public_key", lambda data: pytest.fail("it was parsed"))
    with pytest.raises(InvalidKey, match="8192 bits"):
        PublicKey.decode(oversized)


def test_the_sizes_of_the_encodings_are_those_of_the_smallest_and_the_largest_key() -> None:
    assert len(rsa_der(modulus(2048), 3)) == RSA_DER[0]
    assert len(rsa_der(modulus(8192), 2**31 - 1)) == RSA_DER[-1]


@pytest.mark.parametrize("exponent", [2**31 + 1, 2**64 + 1, 2**2000 + 1])
def test_an_rsa_exponent_that_would_burn_time_is_refused(exponent: int) -> None:
    with pytest.raises(InvalidKey, match="exponent"):
        PublicKey.decode(wrap(KeyType.RSA, rsa_der(modulus(2048), exponent)))


def test_an_even_rsa_modulus_is_refused() -> None:
    der = rsa_der(modulus(2048))
    even = der[:-6] + bytes([der[-6] ^ 1]) + der[-5:]
    with pytest.raises(InvalidKey, match=r"modulus|does not decode"):
        PublicKey.decode(wrap(KeyType.RSA, even))


def test_an_rsa_key_in_another_encoding_is_refused() -> None:
    der = rsa_der(modulus(2048))
    without_null = b"\x30\x82" + (len(der) - 6).to_bytes(2, "big") + b"\x30\x0b" + der[6:17] + der[19:]
    for other in (without_null, der + b"\0", b"\x30\x83\x00" + der[2:]):
        with pytest.raises(InvalidKey, match=r"canonical|does not decode"):
            PublicKey.decode(wrap(KeyType.RSA, other))


def test_private_rsa_keys_of_another_size_are_refused() -> None:
    small = rsa.generate_private_key(E, 1024)
    data = small.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    with pytest.raises(InvalidKey, match="not 1024"):
        KeyPair.decode(wrap(KeyType.RSA, data))


def test_an_rsa_signature_is_pkcs1_over_sha256() -> None:
    """RFC 8017, "9.2": the signature to the power of e is the padded digest."""
    pair = KeyPair.decode(PRIVATE["rsa"])
    signature = pair.sign(b"data")
    assert len(signature) == 512
    assert signature == pair.sign(b"data")
    number = int.from_bytes(PUBLIC["rsa"][-517:-5], "big")
    padded = pow(int.from_bytes(signature, "big"), E, number).to_bytes(512, "big")
    digest_info = "3031300d060960864801650304020105000420"
    digest = "3a6eb0790f39ac87c94f3856b2dd2c5d110e6811602261a9a923d3bb23adc8b7"
    assert padded == b"\0\1" + b"\xff" * (512 - 54) + b"\0" + bytes.fromhex(digest_info + digest)


# --- all of them


def test_a_key_inside_the_encoding_of_another_type_is_refused() -> None:
    made = dsa.generate_private_key(1024)
    foreign = public_der(made.public_key())
    assert len(foreign) in RSA_DER
    with pytest.raises(InvalidKey, match="another type"):
        PublicKey.decode(wrap(KeyType.RSA, foreign))
    with pytest.raises(InvalidKey, match="another type"):
        PublicKey.decode(wrap(KeyType.ECDSA, PUBLIC["rsa"][5:]))
    with pytest.raises(InvalidKey, match="another type"):
        KeyPair.decode(wrap(KeyType.RSA, PRIVATE["ecdsa"][4:]))
    with pytest.raises(InvalidKey, match="another type"):
        KeyPair.decode(wrap(KeyType.ECDSA, PRIVATE["rsa"][5:]))


@pytest.mark.parametrize("key_type", [KeyType.RSA, KeyType.ECDSA])
def test_an_encrypted_private_key_is_refused(key_type: KeyType) -> None:
    made = ec.generate_private_key(ec.SECP256R1())
    data = made.private_bytes(Encoding.DER, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    with pytest.raises(InvalidKey, match="does not decode"):
        KeyPair.decode(wrap(key_type, data))


def test_a_private_ecdsa_key_beside_another_public_key_is_refused() -> None:
    private = PRIVATE["ecdsa"]
    with pytest.raises(InvalidKey, match="does not decode"):
        KeyPair.decode(private[:-1] + bytes([private[-1] ^ 1]))


@given(st.sampled_from(list(VECTORS)), st.data())
def test_a_damaged_public_key_is_refused_or_is_another_key(name: str, data: st.DataObject) -> None:
    encoded = bytearray(PUBLIC[name])
    at = data.draw(st.integers(0, len(encoded) - 1))
    encoded[at] ^= data.draw(st.integers(1, 255))
    try:
        key = PublicKey.decode(bytes(encoded))
    except InvalidKey:
        return
    assert key.encode() == encoded
    assert not key.verify(b"data", bytes(64))


@settings(max_examples=25, deadline=None)  # an RSA key takes 0.2 s
@given(st.sampled_from(list(VECTORS)), st.data())
def test_a_damaged_private_key_is_refused_or_makes_a_pair(name: str, data: st.DataObject) -> None:
    encoded = bytearray(PRIVATE[name])
    at = data.draw(st.integers(0, len(encoded) - 1))
    encoded[at] ^= data.draw(st.integers(1, 255))
    try:
        pair = KeyPair.decode(bytes(encoded))
    except InvalidKey:
        return
    assert pair.public.verify(b"data", pair.sign(b"data"))


@given(st.sampled_from(KeyType), st.binary(max_size=400))
def test_random_keys_of_every_type_are_canonical_or_refused(key_type: KeyType, data: bytes) -> None:
    encoded = wrap(key_type, data)
    with suppress(InvalidKey):
        assert PublicKey.decode(encoded).encode() == encoded
    with suppress(InvalidKey):
        KeyPair.decode(encoded)


@given(st.sampled_from(list(VECTORS)), st.binary(max_size=200))
def test_random_signatures_are_never_good(name: str, signature: bytes) -> None:
    assert not PublicKey.decode(PUBLIC[name]).verify(b"data", signature)


@given(st.sampled_from(["secp256k1", "ecdsa"]), st.integers(0, 2**260), st.integers(0, 2**260))
def test_random_numbers_as_signatures_are_never_good(name: str, r: int, s: int) -> None:
    assert not PublicKey.decode(PUBLIC[name]).verify(b"data", encode_dss_signature(r, s))
