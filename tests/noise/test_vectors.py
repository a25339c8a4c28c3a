"""The published vectors of Noise_XX_25519_ChaChaPoly_SHA256 with an empty prologue.

Source: flynn/noise, vectors.txt; the reference machine must meet them before it judges ours.
"""

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from p2p.keys import KeyPair
from p2p.noise.cipher import Cipher
from p2p.noise.handshake import Handshake
from tests.noise.reference import ReferenceXX, framed

INITIATOR_STATIC = bytes(range(32))
RESPONDER_STATIC = bytes(range(1, 33))
INITIATOR_EPHEMERAL = bytes(range(32, 64))
RESPONDER_EPHEMERAL = bytes(range(65, 97))

EMPTY_PAYLOADS = [
    "358072d6365880d1aeea329adf9121383851ed21a28e3b75e965d0d2cd166254",
    "64b101b1d0be5a8704bd078f9895001fc03e8e9f9522f188dd128d9846d48466"
    "3414af878d3e46a2f58911a816d6e8346d4ea17a6f2a0bb4ef4ed56c133cff45"
    "60a34e36ea82109f26cf2e5a5caf992b608d55c747f615e5a3425a7a19eefb8f",
    "87f864c11ba449f46a0a4f4e2eacbb7b0457784f4fca1937f572c93603e9c4d9"
    "7e5ea11b16f3968710b23a3be3202dc1b5e1ce3c963347491e74f5c0768a9b42",
]
SOME_PAYLOADS = [
    "358072d6365880d1aeea329adf9121383851ed21a28e3b75e965d0d2cd166254746573745f6d73675f30",
    "64b101b1d0be5a8704bd078f9895001fc03e8e9f9522f188dd128d9846d48466"
    "3414af878d3e46a2f58911a816d6e8346d4ea17a6f2a0bb4ef4ed56c133cff45"
    "72e7a2ba5123ac30618b3d205f5c2d17f50cbca216483ac56bcc78e33bf520303278db641e5e731b2e3a",
    "87f864c11ba449f46a0a4f4e2eacbb7b0457784f4fca1937f572c93603e9c4d9"
    "f27e318e43ba630594c4d08eeb3b36d97c7377a2f4f9144b2f0c8095ad92140505b2ab53eff244b14138",
]
TRANSPORT = [
    (b"yellowsubmarine", "a52ef02ba60e12696d1d6b9ef4245c88fca757b6134ad6e76b56e310a6adf6"),
    (b"submarineyellow", "2445aa438ebd649281c636cc7269ca82f1d9023d72520943aeabf909cdf521"),
]


def references() -> tuple[ReferenceXX, ReferenceXX]:
    return (
        ReferenceXX(INITIATOR_STATIC, INITIATOR_EPHEMERAL, initiator=True),
        ReferenceXX(RESPONDER_STATIC, RESPONDER_EPHEMERAL, initiator=False),
    )


def exchange(initiator: ReferenceXX, responder: ReferenceXX, payloads: list[bytes]) -> list[str]:
    first = initiator.write_1(payloads[0])
    assert responder.read_1(first) == payloads[0]
    second = responder.write_2(payloads[1])
    assert initiator.read_2(second) == payloads[1]
    third = initiator.write_3(payloads[2])
    assert responder.read_3(third) == payloads[2]
    return [first.hex(), second.hex(), third.hex()]


def machine(*, initiator: bool) -> Handshake:
    static, ephemeral = (
        (INITIATOR_STATIC, INITIATOR_EPHEMERAL) if initiator else (RESPONDER_STATIC, RESPONDER_EPHEMERAL)
    )
    return Handshake(
        initiator=initiator,
        key=KeyPair.from_seed(bytes([initiator]) * 32),
        static=X25519PrivateKey.from_private_bytes(static),
        ephemeral=X25519PrivateKey.from_private_bytes(ephemeral),
    )


def test_the_reference_meets_the_vector_with_empty_payloads() -> None:
    assert exchange(*references(), [b"", b"", b""]) == EMPTY_PAYLOADS


def test_the_reference_meets_the_vector_with_payloads() -> None:
    assert exchange(*references(), [b"test_msg_0", b"test_msg_1", b"test_msg_2"]) == SOME_PAYLOADS


def test_the_cipher_meets_the_transport_messages_of_the_vector() -> None:
    initiator, responder = references()
    exchange(initiator, responder, [b"", b"", b""])
    for side, other, (plain, sealed) in (
        (initiator, responder, TRANSPORT[0]),
        (responder, initiator, TRANSPORT[1]),
    ):
        send_key, receive_key = side.split()
        assert other.split() == (receive_key, send_key)
        sender = Cipher(send_key=send_key, receive_key=receive_key)
        receiver = Cipher(send_key=receive_key, receive_key=send_key)
        frame = sender.seal([plain])
        assert frame == framed(bytes.fromhex(sealed))
        assert receiver.open(frame) == plain


def test_our_messages_begin_as_the_vector_until_the_payload() -> None:
    initiator, responder = machine(initiator=True), machine(initiator=False)
    first = initiator.data_to_send()
    assert first == framed(bytes.fromhex(EMPTY_PAYLOADS[0]))
    responder.receive_data(first)
    assert responder.data_to_send()[2:82].hex() == EMPTY_PAYLOADS[1][:160]


def test_our_initiator_and_the_reference_say_the_same_bytes() -> None:
    """Both sides of the reference, with the payloads that ours sent, write what ours wrote."""
    ours, (twin, other) = machine(initiator=True), references()
    first = ours.data_to_send()
    assert first == framed(twin.write_1())
    other.read_1(first[2:])
    answer = framed(other.write_2(payload_of(initiator=False)))
    twin.read_2(answer[2:])
    ours.receive_data(answer)
    third = ours.data_to_send()
    assert third == framed(twin.write_3(other.read_3(third[2:])))
    completed = ours.next_event()
    assert completed is not None
    assert (completed.send_key, completed.receive_key) == twin.split()


def test_our_responder_and_the_reference_say_the_same_bytes() -> None:
    ours, (other, twin) = machine(initiator=False), references()
    first = framed(other.write_1())
    twin.read_1(first[2:])
    ours.receive_data(first)
    second = ours.data_to_send()
    assert second == framed(twin.write_2(other.read_2(second[2:])))
    third = framed(other.write_3(payload_of(initiator=True)))
    twin.read_3(third[2:])
    ours.receive_data(third)
    completed = ours.next_event()
    assert completed is not None
    assert (completed.send_key, completed.receive_key) == twin.split()


def payload_of(*, initiator: bool) -> bytes:
    """A libp2p payload written by hand: identity_key = 1, identity_sig = 2."""
    key = KeyPair.from_seed(bytes([initiator]) * 32)
    static = INITIATOR_STATIC if initiator else RESPONDER_STATIC
    public = X25519PrivateKey.from_private_bytes(static).public_key().public_bytes_raw()
    encoded, signature = key.public.encode(), key.sign(b"noise-libp2p-static-key:" + public)
    return bytes([0x0A, len(encoded)]) + encoded + bytes([0x12, len(signature)]) + signature
