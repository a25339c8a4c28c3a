from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2p import envelope
from p2p.errors import InvalidInput, LocalProtocolError, RemoteProtocolError
from p2p.kad.namespaces import (
    DEFAULT_VALIDATORS,
    DOMAIN,
    MAX_RECORD,
    MAX_SEQ,
    PAYLOAD_TYPE,
    InvalidRecord,
    Namespaces,
    content_key,
    open_value,
    peer_key,
    public_key_key,
    sign_value,
)
from p2p.kad.wire import MAX_KEY, SignedValue, decode_signed_value, encode_signed_value
from p2p.keys import KeyType, PublicKey
from p2p.peer_id import PeerId
from tests.kad.peers import peer
from tests.support import key_number

ALICE, BOB = key_number(1), key_number(2)
ALICE_ID, BOB_ID = (PeerId.from_public_key(one.public) for one in (ALICE, BOB))
RULES = Namespaces()
seqs = st.integers(0, MAX_SEQ)


def signed(seq, value=b"v", name="x", by=ALICE):
    return sign_value(by, name, seq, value)


@pytest.mark.parametrize(
    "key",
    [
        b"",
        b"/",
        b"v",
        b"v/x",
        b"/v",
        b"/v/",
        b"//x",
        b"/ipns/x",
        b"x/v/y",
        b"\xff/\xff/\xff",
        b"/v/" + bytes(MAX_KEY),
    ],
)
def test_a_key_in_no_namespace_is_refused(key):
    with pytest.raises(InvalidRecord, match="no namespace"):
        RULES.validate(key, b"value")


def test_what_a_record_may_be_is_what_somebody_wrote():
    assert issubclass(InvalidRecord, InvalidInput)


# /v/


@given(st.binary(max_size=MAX_RECORD))
def test_content_is_valid_under_its_hash_and_nothing_else_is(value):
    RULES.validate(content_key(value), value)
    with pytest.raises(InvalidRecord, match="hash"):
        RULES.validate(content_key(value), value[:-1] + b"?!")
    assert not RULES.is_better(content_key(value), value, value)


def test_a_hash_in_other_letters_is_another_key():
    value = b"value"
    with pytest.raises(InvalidRecord):
        RULES.validate(b"/v/" + content_key(value)[3:].upper(), value)


def test_a_value_over_ten_kibibytes_is_refused_although_its_hash_is_right():
    value = bytes(MAX_RECORD + 1)
    with pytest.raises(InvalidRecord, match="over the limit"):
        RULES.validate(content_key(value), value)


# /pk/


def test_a_public_key_is_valid_under_its_peer_id():
    RULES.validate(public_key_key(ALICE_ID), ALICE.public.encode())
    assert not RULES.is_better(public_key_key(ALICE_ID), b"", b"")


def test_a_hashed_public_key_is_valid_under_its_hash():
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    der = (
        ec.generate_private_key(ec.SECP256R1())
        .public_key()
        .public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    )
    key = PublicKey(KeyType.ECDSA, der)
    other = PeerId.from_public_key(key)
    assert not other.contains_key
    RULES.validate(public_key_key(other), key.encode())


@pytest.mark.parametrize("value", [b"", b"junk", BOB.public.encode(), ALICE.public.encode() + b"\0"])
def test_what_is_not_the_public_key_of_the_peer_is_refused(value):
    with pytest.raises(InvalidRecord, match="public key"):
        RULES.validate(public_key_key(ALICE_ID), value)


# /peer/


@given(
    seqs, st.binary(max_size=2000), st.text(min_size=1, max_size=40).filter(lambda name: name.isprintable())
)
def test_a_signed_value_opens_under_its_key(seq, value, name):
    key, record = sign_value(ALICE, name, seq, value)
    RULES.validate(key, record)
    assert key == peer_key(ALICE_ID, name)
    assert open_value(key, record) == SignedValue(key=key, seq=seq, value=value)


def test_a_signed_value_is_refused_under_every_other_key():
    _, record = signed(1, name="x")
    for key in [peer_key(ALICE_ID, "y"), peer_key(BOB_ID, "x"), peer_key(ALICE_ID, "x/y"), b"/peer/x"]:
        with pytest.raises(InvalidRecord, match="another key"):
            RULES.validate(key, record)


def test_nobody_signs_for_another_peer():
    key = peer_key(ALICE_ID, "x")
    payload = encode_signed_value(SignedValue(key=key, seq=9, value=b"v"))
    with pytest.raises(InvalidRecord, match="another peer"):
        RULES.validate(key, envelope.seal(DOMAIN, PAYLOAD_TYPE, payload, BOB))


@pytest.mark.parametrize(
    ("domain", "kind", "payload"),
    [
        ("libp2p-peer-record", PAYLOAD_TYPE, None),
        (DOMAIN, b"/other", None),
        (DOMAIN, PAYLOAD_TYPE, b"\xff\xff"),
    ],
)
def test_a_signature_for_something_else_is_refused(domain, kind, payload):
    key = peer_key(ALICE_ID, "x")
    payload = payload or encode_signed_value(SignedValue(key=key, seq=1, value=b"v"))
    with pytest.raises(InvalidRecord, match="not a signed value"):
        RULES.validate(key, envelope.seal(domain, kind, payload, ALICE))


@given(st.integers(0, 500), st.integers(0, 255))
def test_a_flipped_byte_of_a_signed_value_is_refused_or_changes_nothing(at, value):
    key, record = signed(7)
    changed = bytearray(record)
    changed[at % len(changed)] = value
    with suppress(InvalidRecord):
        assert open_value(key, bytes(changed)) == open_value(key, record)


@given(st.binary(max_size=300))
def test_random_bytes_are_no_signed_value(data):
    with pytest.raises(InvalidRecord):
        RULES.validate(peer_key(ALICE_ID, "x"), data)
    with suppress(RemoteProtocolError):
        decode_signed_value(data)


@given(st.lists(st.tuples(seqs, st.binary(max_size=4)), min_size=1, max_size=8), st.randoms())
def test_everybody_selects_the_same_value_whatever_the_order(values, rng):
    records = [signed(seq, value)[1] for seq, value in values]
    key = peer_key(ALICE_ID, "x")
    rules = DEFAULT_VALIDATORS["peer"]
    best = records[rules.select(key, records)]
    rng.shuffle(records)
    assert records[rules.select(key, records)] == best
    assert open_value(key, best).seq == max(seq for seq, _ in values)


@given(seqs, seqs)
def test_only_a_larger_sequence_number_is_better(one, other):
    key, record = signed(one)
    assert RULES.is_better(key, record, signed(other)[1]) == (one > other)


@pytest.mark.parametrize("seq", [-1, MAX_SEQ + 1])
def test_a_sequence_number_beyond_64_bits_is_our_own_error(seq):
    with pytest.raises(LocalProtocolError, match="sequence"):
        signed(seq)


@pytest.mark.parametrize("name", ["", "x" * MAX_KEY])
def test_an_unusable_name_is_our_own_error(name):
    with pytest.raises(LocalProtocolError, match="name"):
        peer_key(peer(1), name)


def test_a_value_too_large_to_sign_is_our_own_error():
    with pytest.raises(LocalProtocolError, match="over"):
        signed(1, bytes(9000))


def test_a_network_can_have_namespaces_of_its_own():
    class Anything:
        def validate(self, key, value):
            pass

        def select(self, key, values):
            return 0

    rules = Namespaces({"bench": Anything()})
    rules.validate(b"/bench/key", b"value")
    with pytest.raises(InvalidRecord):
        rules.validate(content_key(b"x"), b"x")
