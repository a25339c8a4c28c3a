"""Our handshake against noiseprotocol, somebody else's implementation of the whole framework."""

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from noise.connection import Keypair, NoiseConnection

from p2p.keys import KeyPair
from p2p.noise.handshake import Handshake, HandshakeCompleted
from p2p.noise.wire import HandshakePayload, encode_payload
from tests.noise.reference import framed, nonce

OURS = KeyPair.from_seed(b"o" * 32)
THEIRS = KeyPair.from_seed(b"t" * 32)
STATIC = X25519PrivateKey.from_private_bytes(b"s" * 32)


def machine(*, initiator: bool) -> Handshake:
    return Handshake(
        initiator=initiator,
        key=OURS,
        static=X25519PrivateKey.from_private_bytes(b"1" * 32),
        ephemeral=X25519PrivateKey.from_private_bytes(b"2" * 32),
    )


def connection(*, initiator: bool) -> NoiseConnection:
    other = NoiseConnection.from_name(b"Noise_XX_25519_ChaChaPoly_SHA256")
    if initiator:
        other.set_as_initiator()
    else:
        other.set_as_responder()
    other.set_keypair_from_private_bytes(Keypair.STATIC, STATIC.private_bytes_raw())
    other.start_handshake()
    return other


def identity() -> bytes:
    signed = b"noise-libp2p-static-key:" + STATIC.public_key().public_bytes_raw()
    return encode_payload(
        HandshakePayload(identity_key=THEIRS.public.encode(), identity_signature=THEIRS.sign(signed))
    )


def assert_talking(completed: HandshakeCompleted | None, other: NoiseConnection) -> None:
    assert completed is not None
    assert completed.remote_key == THEIRS.public
    assert other.handshake_finished
    sending, receiving = ChaCha20Poly1305(completed.send_key), ChaCha20Poly1305(completed.receive_key)
    for number in range(3):
        text = b"message %d" % number
        assert receiving.decrypt(nonce(number), bytes(other.encrypt(text)), None) == text
        assert other.decrypt(sending.encrypt(nonce(number), text, None)) == text


@pytest.mark.parametrize("round_number", range(3))
def test_noiseprotocol_dials_us(round_number: int) -> None:
    ours, other = machine(initiator=False), connection(initiator=True)
    ours.receive_data(framed(bytes(other.write_message())))
    other.read_message(ours.data_to_send()[2:])
    ours.receive_data(framed(bytes(other.write_message(identity()))))
    assert_talking(ours.next_event(), other)


@pytest.mark.parametrize("round_number", range(3))
def test_we_dial_noiseprotocol(round_number: int) -> None:
    ours, other = machine(initiator=True), connection(initiator=False)
    other.read_message(ours.data_to_send()[2:])
    ours.receive_data(framed(bytes(other.write_message(identity()))))
    other.read_message(ours.data_to_send()[2:])
    assert_talking(ours.next_event(), other)
