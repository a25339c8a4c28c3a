"""The Noise XX handshake as libp2p uses it, without I/O.

    initiator                                   responder
    START           -- e -------------------->  AWAIT_HELLO
    AWAIT_IDENTITY  <-- e, ee, s, es, payload-  AWAIT_IDENTITY
    DONE            -- s, se, payload ------->  DONE

Both payloads carry an identity key and its signature over the sender's static key. The initiator
checks whom it reached before it sends message 3, so a wrong peer learns nothing about us.
After an error the machine is FAILED and the connection must be dropped; there is no fallback.
Source: libp2p/specs noise/README.md; the Noise Protocol Framework, revision 34, "7.5. Interactive
handshake patterns".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from noise.backends.default.keypairs import KeyPair25519
from noise.connection import NoiseConnection

from p2p.errors import (
    AuthenticationFailed,
    InvalidKey,
    LocalProtocolError,
    MessageTooLarge,
    RemoteProtocolError,
)
from p2p.keys import KeyPair, PublicKey
from p2p.noise.wire import (
    HEADER,
    LENGTH,
    MAX_HANDSHAKE_MESSAGE,
    SIGNATURE_PREFIX,
    TAG,
    HandshakePayload,
    decode_payload,
    encode_payload,
)
from p2p.peer_id import PeerId
from p2p.stream import Data

PROTOCOL_NAME = b"Noise_XX_25519_ChaChaPoly_SHA256"
KEY = 32  # bytes of an X25519 public key
HELLO = KEY  # message 1: an ephemeral key and no payload
MIN_RESPONSE = KEY + KEY + TAG + TAG  # message 2 with an empty payload
MIN_CONFIRMATION = KEY + TAG + TAG  # message 3 with an empty payload


class State(Enum):
    """Where a handshake stands; what it waits for."""

    AWAIT_HELLO = auto()
    AWAIT_IDENTITY = auto()
    DONE = auto()
    FAILED = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class HandshakeCompleted:
    """Both sides are proven; what the transport phase needs."""

    remote_key: PublicKey
    remote_peer: PeerId
    stream_muxers: tuple[str, ...]  # what the peer offers for early negotiation; most offer nothing
    send_key: bytes
    receive_key: bytes
    surplus: bytes  # came behind the handshake: the beginning of the peer's transport frames


class Handshake:
    """One side of one handshake.

    `static` and `ephemeral` must be fresh for each connection, never derived from an identity.
    """

    def __init__(
        self,
        *,
        initiator: bool,
        key: KeyPair,
        static: X25519PrivateKey,
        ephemeral: X25519PrivateKey,
        expected: PeerId | None = None,
    ) -> None:
        self._initiator = initiator
        self._key = key
        self._expected = expected
        self._noise = NoiseConnection.from_name(PROTOCOL_NAME)
        if initiator:
            self._noise.set_as_initiator()
        else:
            self._noise.set_as_responder()
        static_pair = _noise_pair(static)
        self._static_public: bytes = static_pair.public_bytes
        self._noise.noise_protocol.keypairs["s"] = static_pair
        self._noise.start_handshake()
        # noiseprotocol forgets its handshake state when it is done; the peer's static key is in there.
        self._noise_state = self._noise.noise_protocol.handshake_state
        self._noise_state.e = _noise_pair(ephemeral)  # set here, it neither generates one nor warns
        self._buffer = bytearray()
        self._out = bytearray()
        self._completed: HandshakeCompleted | None = None
        self._state = State.AWAIT_HELLO
        if initiator:
            self._send(b"")
            self._state = State.AWAIT_IDENTITY

    def receive_data(self, data: Data) -> None:
        """Takes what came, as far as the handshake goes; what is behind becomes the `surplus`.

        Raises `AuthenticationFailed` when the peer is not who it must be, `RemoteProtocolError` when
        it breaks the rules, `LocalProtocolError` when the handshake is over.
        """
        if self._state in (State.DONE, State.FAILED):
            raise LocalProtocolError("the noise handshake is over")
        self._buffer += data
        try:
            while self._completed is None and (message := self._next_message()) is not None:
                self._handle_message(message)
        except RemoteProtocolError:
            self._state = State.FAILED
            raise

    def data_to_send(self) -> bytes:
        """What must go to the peer now; empty when it is the peer's turn."""
        data = bytes(self._out)
        self._out.clear()
        return data

    def next_event(self) -> HandshakeCompleted | None:
        """The outcome, once; None before. `data_to_send` may still hold the last message."""
        completed, self._completed = self._completed, None
        return completed

    def _next_message(self) -> bytes | None:
        if len(self._buffer) < HEADER:
            return None
        (size,) = LENGTH.unpack_from(self._buffer)
        if self._state is State.AWAIT_HELLO and size != HELLO:
            raise RemoteProtocolError(f"the first noise message has {size} bytes, not {HELLO}")
        smallest = MIN_RESPONSE if self._initiator else MIN_CONFIRMATION
        if self._state is State.AWAIT_IDENTITY and size < smallest:
            raise RemoteProtocolError(
                f"a noise message of {size} bytes is too short, it has {smallest} or more"
            )
        if size > MAX_HANDSHAKE_MESSAGE:
            raise MessageTooLarge(size, MAX_HANDSHAKE_MESSAGE)
        if len(self._buffer) < HEADER + size:
            return None
        message = bytes(self._buffer[HEADER : HEADER + size])
        del self._buffer[: HEADER + size]
        return message

    def _handle_message(self, message: bytes) -> None:
        payload = self._authenticated(self._noise.read_message, message)
        match self._state:
            case State.AWAIT_HELLO:
                self._send(self._identity())
                self._state = State.AWAIT_IDENTITY
            case _:  # AWAIT_IDENTITY
                identity = decode_payload(payload)
                key, peer = self._verify(identity)
                if self._initiator:
                    self._send(self._identity())
                self._complete(key, peer, identity.stream_muxers)

    def _verify(self, payload: HandshakePayload) -> tuple[PublicKey, PeerId]:
        """The proven identity of the peer. Raises `AuthenticationFailed`."""
        try:
            key = PublicKey.decode(payload.identity_key)
            peer = PeerId.from_public_key(key)
            if self._expected is not None and peer != self._expected:
                raise AuthenticationFailed(f"reached {peer} instead of {self._expected}")
            signed = SIGNATURE_PREFIX + self._noise_state.rs.public_bytes
            if not key.verify(signed, payload.identity_signature):
                raise AuthenticationFailed(f"{peer} did not sign its noise static key")
        except InvalidKey as exc:
            raise AuthenticationFailed(f"the peer's identity key cannot be used: {exc}") from exc
        return key, peer

    def _complete(self, key: PublicKey, peer: PeerId, muxers: tuple[str, ...]) -> None:
        split = self._noise.noise_protocol
        self._completed = HandshakeCompleted(
            remote_key=key,
            remote_peer=peer,
            stream_muxers=muxers,
            send_key=split.cipher_state_encrypt.k,
            receive_key=split.cipher_state_decrypt.k,
            surplus=bytes(self._buffer),
        )
        self._buffer.clear()
        self._state = State.DONE

    def _identity(self) -> bytes:
        return encode_payload(
            HandshakePayload(
                identity_key=self._key.public.encode(),
                identity_signature=self._key.sign(SIGNATURE_PREFIX + self._static_public),
            )
        )

    def _send(self, payload: bytes) -> None:
        message = self._authenticated(self._noise.write_message, payload)
        self._out += LENGTH.pack(len(message)) + message

    @staticmethod
    def _authenticated(step: Callable[[bytes], bytes], data: bytes) -> bytes:
        """Runs a step of noiseprotocol with its errors made ours."""
        try:
            return bytes(step(data))
        except InvalidTag as exc:
            raise AuthenticationFailed("a noise handshake message failed authentication") from exc
        except ValueError as exc:  # cryptography's word for an all-zero shared secret
            raise AuthenticationFailed("the peer's noise key is not a usable X25519 key") from exc


def _noise_pair(private: X25519PrivateKey) -> KeyPair25519:
    public = private.public_key()
    return KeyPair25519(private, public, public.public_bytes_raw())
