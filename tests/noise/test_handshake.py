import itertools
import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from p2p.errors import AuthenticationFailed, LocalProtocolError, MessageTooLarge, RemoteProtocolError
from p2p.keys import KeyPair
from p2p.noise.handshake import Handshake, HandshakeCompleted
from p2p.noise.wire import MAX_HANDSHAKE_MESSAGE, HandshakePayload, decode_payload, encode_payload
from p2p.peer_id import PeerId
from tests.noise.reference import ReferenceXX, framed

ALICE = KeyPair.from_seed(b"a" * 32)  # dials
BOB = KeyPair.from_seed(b"b" * 32)  # listens
ALICE_ID = PeerId.from_public_key(ALICE.public)
BOB_ID = PeerId.from_public_key(BOB.public)
PREFIX = b"noise-libp2p-static-key:"
VECTORS: dict[str, dict[str, str]] = json.loads(
    (Path(__file__).parents[1] / "vectors" / "peer_ids.json").read_text()
)["keys"]
LOW_ORDER_KEYS = [  # RFC 7748, "6.1": a shared secret of zeros; the points are those of Curve25519's paper
    bytes(32),
    b"\x01" + bytes(31),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
    bytes.fromhex("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
]


def static_key(number: int) -> X25519PrivateKey:
    return X25519PrivateKey.from_private_bytes(bytes([number]) * 32)


def alice(expected: PeerId | None = BOB_ID, muxers: tuple[str, ...] = ()) -> Handshake:
    return Handshake(
        initiator=True,
        key=ALICE,
        static=static_key(1),
        ephemeral=static_key(2),
        expected=expected,
        muxers=muxers,
    )


def bob(muxers: tuple[str, ...] = ()) -> Handshake:
    return Handshake(initiator=False, key=BOB, static=static_key(3), ephemeral=static_key(4), muxers=muxers)


def mallory(*, initiator: bool) -> ReferenceXX:
    """The other end, able to lie."""
    return ReferenceXX(bytes([5]) * 32, bytes([6]) * 32, initiator=initiator)


def payload(key: KeyPair, signed: bytes) -> bytes:
    return encode_payload(
        HandshakePayload(identity_key=key.public.encode(), identity_signature=key.sign(signed))
    )


def transcript() -> tuple[bytes, bytes, bytes]:
    """The three messages of an honest handshake, with their lengths."""
    initiator, responder = alice(), bob()
    first = initiator.data_to_send()
    responder.receive_data(first)
    second = responder.data_to_send()
    initiator.receive_data(second)
    return first, second, initiator.data_to_send()


def answer_to_alice(machine: Handshake, payload_for: Callable[[ReferenceXX], bytes]) -> None:
    """Mallory accepts Alice's connection, with the payload it likes."""
    liar = mallory(initiator=False)
    liar.read_1(machine.data_to_send()[2:])
    machine.receive_data(framed(liar.write_2(payload_for(liar))))


def call_bob(machine: Handshake, payload_for: Callable[[ReferenceXX], bytes]) -> None:
    """Mallory dials Bob."""
    liar = mallory(initiator=True)
    machine.receive_data(framed(liar.write_1()))
    liar.read_2(machine.data_to_send()[2:])
    machine.receive_data(framed(liar.write_3(payload_for(liar))))


def assert_complete(initiator: Handshake, responder: Handshake) -> None:
    ours, theirs = initiator.next_event(), responder.next_event()
    assert ours is not None
    assert theirs is not None
    assert (ours.remote_peer, ours.remote_key) == (BOB_ID, BOB.public)
    assert (theirs.remote_peer, theirs.remote_key) == (ALICE_ID, ALICE.public)
    assert (ours.send_key, ours.receive_key) == (theirs.receive_key, theirs.send_key)
    assert ours.send_key != ours.receive_key
    assert initiator.next_event() is None


@pytest.mark.parametrize("expected", [BOB_ID, None])
def test_two_sides_prove_who_they_are(expected: PeerId | None) -> None:
    initiator, responder = alice(expected), bob()
    meet(initiator, responder)
    assert_complete(initiator, responder)


def test_two_sides_agree_byte_by_byte() -> None:
    initiator, responder = alice(), bob()
    for source, sink in ((initiator, responder), (responder, initiator), (initiator, responder)):
        for byte in source.data_to_send():
            sink.receive_data(bytes([byte]))
    assert_complete(initiator, responder)


@given(st.lists(st.integers(min_value=1, max_value=120), min_size=1, max_size=12))
def test_two_sides_agree_however_the_bytes_are_cut(cuts: list[int]) -> None:
    initiator, responder = alice(), bob()
    for source, sink in ((initiator, responder), (responder, initiator), (initiator, responder)):
        data = memoryview(source.data_to_send())
        for cut in itertools.cycle(cuts):
            sink.receive_data(data[:cut])
            data = data[cut:]
            if not data:
                break
    assert_complete(initiator, responder)


def test_the_messages_have_the_sizes_of_the_specification() -> None:
    first, second, third = transcript()
    size = len(payload(BOB, b""))
    assert [len(message) - 2 for message in (first, second, third)] == [
        32,
        32 + 48 + size + 16,
        48 + size + 16,
    ]


def test_without_muxers_to_offer_we_send_no_extensions() -> None:
    machine, peer = bob(), mallory(initiator=True)
    machine.receive_data(framed(peer.write_1()))
    sent = decode_payload(peer.read_2(machine.data_to_send()[2:]))
    assert sent.stream_muxers == ()
    assert encode_payload(sent) == payload(BOB, PREFIX + peer.remote_static)


def test_muxers_that_the_peer_offers_are_reported() -> None:
    machine = alice(expected=None)
    answer_to_alice(
        machine,
        lambda liar: encode_payload(
            HandshakePayload(
                identity_key=BOB.public.encode(),
                identity_signature=BOB.sign(PREFIX + liar.static_public),
                stream_muxers=("/yamux/1.0.0",),
            )
        ),
    )
    completed = machine.next_event()
    assert completed is not None
    assert completed.stream_muxers == ("/yamux/1.0.0",)
    assert completed.early_muxer is None
    assert completed.remote_peer == BOB_ID


def meet(initiator: Handshake, responder: Handshake) -> None:
    for _ in range(2):
        responder.receive_data(initiator.data_to_send())
        if data := responder.data_to_send():
            initiator.receive_data(data)


@pytest.mark.parametrize(
    ("ours", "theirs", "agreed"),
    [
        ((), (), None),
        (("/yamux/1.0.0",), (), None),
        ((), ("/yamux/1.0.0",), None),
        (("/yamux/1.0.0",), ("/yamux/1.0.0",), "/yamux/1.0.0"),
        (("/yamux/1.0.0", "/mplex/6.7.0"), ("/mplex/6.7.0", "/yamux/1.0.0"), "/yamux/1.0.0"),
        (("/quiche", "/mplex/6.7.0"), ("/yamux/1.0.0", "/mplex/6.7.0"), "/mplex/6.7.0"),
        (("/quiche",), ("/yamux/1.0.0", "/mplex/6.7.0"), None),
        (("/m",) * 99 + ("/yamux/1.0.0",), ("/yamux/1.0.0",), "/yamux/1.0.0"),
    ],
)
def test_the_initiators_first_muxer_that_both_have_is_agreed_on(
    ours: tuple[str, ...], theirs: tuple[str, ...], agreed: str | None
) -> None:
    initiator, responder = alice(muxers=ours), bob(muxers=theirs)
    meet(initiator, responder)
    dialed, accepted = initiator.next_event(), responder.next_event()
    assert dialed is not None
    assert accepted is not None
    assert dialed.early_muxer == accepted.early_muxer == agreed
    assert (dialed.stream_muxers, accepted.stream_muxers) == (theirs, ours)


def test_a_list_of_too_many_muxers_is_as_good_as_none() -> None:
    machine = alice(expected=None, muxers=("/yamux/1.0.0",))
    answer_to_alice(
        machine,
        lambda liar: encode_payload(
            HandshakePayload(
                identity_key=BOB.public.encode(),
                identity_signature=BOB.sign(PREFIX + liar.static_public),
                stream_muxers=("/yamux/1.0.0",) * 101,
            )
        ),
    )
    completed = machine.next_event()
    assert completed is not None
    assert completed.early_muxer is None


@pytest.mark.parametrize("name", VECTORS)
def test_identities_of_every_type_meet(name: str) -> None:
    key = KeyPair.decode(bytes.fromhex(VECTORS[name]["private"]))
    peer = PeerId.parse(VECTORS[name]["peer_id"])
    dialing = Handshake(initiator=True, key=key, static=static_key(1), ephemeral=static_key(2))
    listening = Handshake(initiator=False, key=key, static=static_key(3), ephemeral=static_key(4))
    for initiator, responder in ((dialing, bob()), (alice(expected=peer), listening)):
        meet(initiator, responder)
        dialed, accepted = initiator.next_event(), responder.next_event()
        assert dialed is not None
        assert accepted is not None
        assert peer in (dialed.remote_peer, accepted.remote_peer)


@pytest.mark.parametrize("name", VECTORS)
def test_an_identity_of_any_type_that_signed_something_else_is_refused(name: str) -> None:
    key = KeyPair.decode(bytes.fromhex(VECTORS[name]["private"]))
    with pytest.raises(AuthenticationFailed, match="did not sign"):
        call_bob(bob(), lambda liar: payload(key, liar.static_public))


def test_bytes_behind_the_handshake_are_handed_on() -> None:
    first, _, third = transcript()
    responder = bob()
    responder.receive_data(first)
    responder.receive_data(third + b"transport frames")
    completed = responder.next_event()
    assert completed is not None
    assert completed.surplus == b"transport frames"


def test_everything_at_once_is_taken_too() -> None:
    first, _, third = transcript()
    responder = bob()
    responder.receive_data(first + third + b"x")
    completed = responder.next_event()
    assert completed is not None
    assert completed.surplus == b"x"


def test_an_unexpected_peer_never_gets_message_three() -> None:
    machine = alice(expected=ALICE_ID)
    with pytest.raises(AuthenticationFailed, match=f"reached {BOB_ID} instead of {ALICE_ID}"):
        answer_to_alice(machine, lambda liar: payload(BOB, PREFIX + liar.static_public))
    assert machine.data_to_send() == b""
    assert machine.next_event() is None


def test_an_unexpected_peer_is_named_before_its_signature_is_checked() -> None:
    with pytest.raises(AuthenticationFailed, match="instead of"):
        answer_to_alice(alice(expected=ALICE_ID), lambda _: payload(BOB, b"anything"))


WRONG_PAYLOADS: dict[str, Callable[[ReferenceXX], bytes]] = {
    "signature over another static key": lambda _: payload(BOB, PREFIX + bytes(32)),
    "signature without the prefix": lambda liar: payload(BOB, liar.static_public),
    "signature by another identity": lambda liar: encode_payload(
        HandshakePayload(
            identity_key=BOB.public.encode(), identity_signature=ALICE.sign(PREFIX + liar.static_public)
        )
    ),
    "no signature": lambda _: encode_payload(
        HandshakePayload(identity_key=BOB.public.encode(), identity_signature=b"")
    ),
    "no identity": lambda _: b"",
    "truncated payload": lambda liar: payload(BOB, PREFIX + liar.static_public)[:-1],
    "not protobuf": lambda _: b"\xff" * 40,
    "truncated key": lambda _: encode_payload(
        HandshakePayload(identity_key=BOB.public.encode()[:-1], identity_signature=bytes(64))
    ),
    "unusable RSA key": lambda _: encode_payload(
        HandshakePayload(identity_key=b"\x08\x00\x12\x03abc", identity_signature=bytes(64))
    ),
    "unusable secp256k1 key": lambda _: encode_payload(
        HandshakePayload(identity_key=b"\x08\x02\x12\x21" + bytes(33), identity_signature=bytes(64))
    ),
    "oversized key": lambda _: encode_payload(
        HandshakePayload(identity_key=bytes(7000), identity_signature=bytes(64))
    ),
}


@pytest.mark.parametrize("payload_for", WRONG_PAYLOADS.values(), ids=WRONG_PAYLOADS)
@pytest.mark.parametrize("dialing", [True, False])
def test_an_identity_that_is_not_proven_is_refused(
    payload_for: Callable[[ReferenceXX], bytes], dialing: bool
) -> None:
    machine = alice(expected=None) if dialing else bob()
    with pytest.raises(RemoteProtocolError):
        (answer_to_alice if dialing else call_bob)(machine, payload_for)
    assert machine.data_to_send() == b""
    assert machine.next_event() is None
    with pytest.raises(LocalProtocolError):
        machine.receive_data(b"more")


def test_every_flipped_bit_in_the_signature_is_noticed() -> None:
    for at in range(64):

        def flipped(liar: ReferenceXX, at: int = at) -> bytes:
            honest = decode_payload(payload(BOB, PREFIX + liar.static_public))
            signature = bytearray(honest.identity_signature)
            signature[at] ^= 1 << at % 8
            return encode_payload(
                HandshakePayload(identity_key=honest.identity_key, identity_signature=bytes(signature))
            )

        with pytest.raises(AuthenticationFailed, match="did not sign"):
            call_bob(bob(), flipped)


def victim(number: int) -> Handshake:
    """A machine that waits for message `number`."""
    machine = alice() if number == 2 else bob()
    if number == 3:
        machine.receive_data(transcript()[0])
    machine.data_to_send()
    return machine


@pytest.mark.parametrize("number", [2, 3])
def test_a_flipped_bit_in_an_encrypted_message_never_completes(number: int) -> None:
    honest = transcript()[number - 1]
    for at in range(len(honest)):
        machine = victim(number)
        changed = bytearray(honest)
        changed[at] ^= 1 << at % 8
        try:
            machine.receive_data(changed)
        except RemoteProtocolError:
            assert machine.data_to_send() == b""
        assert machine.next_event() is None


def test_a_flipped_bit_in_the_first_message_is_noticed_by_who_sent_it() -> None:
    """Also the highest bit, which X25519 ignores: the transcript's hash has it."""
    first = transcript()[0]
    for at in range(2, len(first)):
        changed = bytearray(first)
        changed[at] ^= 1 << (at + 6) % 8
        initiator, responder = alice(), bob()
        initiator.data_to_send()
        responder.receive_data(changed)
        with pytest.raises(AuthenticationFailed):
            initiator.receive_data(responder.data_to_send())
    assert (len(first) - 1 + 6) % 8 == 7


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_message_that_is_cut_anywhere_never_completes(number: int) -> None:
    honest = transcript()[number - 1]
    machine = victim(number)
    for byte in honest[:-1]:
        machine.receive_data(bytes([byte]))
        assert machine.data_to_send() == b""
        assert machine.next_event() is None


@pytest.mark.parametrize("key", LOW_ORDER_KEYS, ids=bytes.hex)
def test_an_ephemeral_key_of_low_order_is_refused(key: bytes) -> None:
    responder = bob()
    with pytest.raises(AuthenticationFailed, match="not a usable X25519 key"):
        responder.receive_data(framed(key))
    assert responder.data_to_send() == b""
    initiator = alice()
    initiator.data_to_send()
    with pytest.raises(AuthenticationFailed, match="not a usable X25519 key"):
        initiator.receive_data(framed(key + bytes(48 + 16)))
    assert initiator.data_to_send() == b""


@pytest.mark.parametrize("key", LOW_ORDER_KEYS, ids=bytes.hex)
@pytest.mark.parametrize("dialing", [True, False])
def test_a_static_key_of_low_order_is_refused(key: bytes, dialing: bool) -> None:
    machine = alice(expected=None) if dialing else bob()
    liar = mallory(initiator=not dialing)
    liar.static_public = key
    if dialing:
        liar.read_1(machine.data_to_send()[2:])
        message = liar.write_2()
    else:
        machine.receive_data(framed(liar.write_1()))
        liar.read_2(machine.data_to_send()[2:])
        message = liar.write_3()
    with pytest.raises(AuthenticationFailed, match="not a usable X25519 key"):
        machine.receive_data(framed(message))
    assert machine.next_event() is None


@pytest.mark.parametrize(
    ("number", "size"),
    [(1, 0), (1, 31), (1, 33), (1, 65535), (2, 0), (2, 32 + 48 + 15), (3, 0), (3, 48 + 15)],
)
def test_a_message_of_an_impossible_size_is_refused_at_its_length(number: int, size: int) -> None:
    with pytest.raises(RemoteProtocolError, match=f"{size} bytes"):
        victim(number).receive_data(size.to_bytes(2, "big"))


@pytest.mark.parametrize("number", [2, 3])
@pytest.mark.parametrize("size", [MAX_HANDSHAKE_MESSAGE + 1, 65535])
def test_an_oversized_message_is_refused_at_its_length(number: int, size: int) -> None:
    with pytest.raises(MessageTooLarge):
        victim(number).receive_data(size.to_bytes(2, "big"))


def test_the_largest_message_is_taken() -> None:
    machine, liar = bob(), mallory(initiator=True)
    machine.receive_data(framed(liar.write_1()))
    liar.read_2(machine.data_to_send()[2:])
    honest = payload(ALICE, PREFIX + liar.static_public)
    room = MAX_HANDSHAKE_MESSAGE - 48 - 16 - len(honest) - 3  # an unknown field of that many bytes
    message = liar.write_3(honest + b"\x7a" + bytes([room & 0x7F | 0x80, room >> 7]) + bytes(room))
    assert len(message) == MAX_HANDSHAKE_MESSAGE
    machine.receive_data(framed(message))
    assert isinstance(machine.next_event(), HandshakeCompleted)


@given(st.integers(min_value=1, max_value=3), st.binary(max_size=400), st.booleans())
def test_random_bytes_never_complete(number: int, data: bytes, with_length: bool) -> None:
    machine = victim(number)
    with suppress(RemoteProtocolError):
        machine.receive_data(framed(data) if with_length else data)
    assert machine.next_event() is None


def test_a_finished_handshake_takes_no_more() -> None:
    first, _, third = transcript()
    responder = bob()
    responder.receive_data(first)
    responder.receive_data(third)
    with pytest.raises(LocalProtocolError):
        responder.receive_data(b"transport")
