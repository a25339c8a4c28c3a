"""The Noise XX handshake as libp2p uses it, without I/O.

    initiator                                   responder
    START           -- e -------------------->  AWAIT_HELLO
    AWAIT_IDENTITY  <-- e, ee, s, es, payload-  AWAIT_IDENTITY
    DONE            -- s, se, payload ------->  DONE

Both payloads carry an identity key and its signature over the sender's static key. The initiator
checks whom it reached before it sends message 3, so a wrong peer learns nothing about us.
The payloads may also offer muxers, which saves the round that would agree on one afterwards.
After an error the machine is FAILED and the connection must be dropped; there is no fallback.
Source: libp2p/specs noise/README.md, connections/inlined-muxer-negotiation.md; the Noise Protocol
Framework, revision 34, "7.5. Interactive handshake patterns".
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from p2p.errors import (
    AuthenticationFailed,
    InvalidKey,
    LocalProtocolError,
    MessageTooLarge,
    RemoteProtocolError,
)
from p2p.keys import KeyPair, PublicKey
from p2p.noise.symmetric import SymmetricState
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
SEALED_KEY = KEY + TAG
HELLO = KEY  # message 1: an ephemeral key and no payload
MIN_RESPONSE = KEY + SEALED_KEY + TAG  # message 2 with an empty payload
MIN_CONFIRMATION = SEALED_KEY + TAG  # message 3 with an empty payload


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
    stream_muxers: tuple[str, ...]  # what the peer offers for early negotiation; some offer nothing
    early_muxer: str | None  # what both will use; None: agree on one behind the handshake
    send_key: bytes
    receive_key: bytes
    surplus: bytes  # came behind the handshake: the beginning of the peer's transport frames


class Handshake:
    """One side of one handshake.

    `static` and `ephemeral` must be fresh for each connection, never derived from an identity.
    `muxers` are offered for early negotiation, the preferred one first; at most `MAX_STREAM_MUXERS`.
    """

    def __init__(
        self,
        *,
        initiator: bool,
        key: KeyPair,
        static: X25519PrivateKey,
        ephemeral: X25519PrivateKey,
        expected: PeerId | None = None,
        muxers: tuple[str, ...] = (),
    ) -> None:
        self._initiator = initiator
        self._key = key
        self._expected = expected
        self._muxers = muxers
        self._symmetric = SymmetricState(PROTOCOL_NAME)
        self._static = static
        self._ephemeral = ephemeral
        self._remote_ephemeral = b""
        self._buffer = bytearray()
        self._out = bytearray()
        self._completed: HandshakeCompleted | None = None
        self._state = State.AWAIT_HELLO
        if initiator:
            self._send_hello()
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
            self._out.clear()
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
        if self._state is State.AWAIT_HELLO:
            self._handle_hello(message)
            self._send_response()
            self._state = State.AWAIT_IDENTITY
        elif self._initiator:
            identity, remote_static = self._handle_response(message)
            proven = self._verify(identity, remote_static)
            self._send_confirmation()
            self._complete(*proven, identity.stream_muxers)
        else:
            identity, remote_static = self._handle_confirmation(message)
            self._complete(*self._verify(identity, remote_static), identity.stream_muxers)

    def _send_hello(self) -> None:
        """Message 1: e."""
        self._send(self._own_ephemeral() + self._symmetric.encrypt_and_hash(b""))

    def _handle_hello(self, message: bytes) -> None:
        self._take_ephemeral(message)
        self._symmetric.decrypt_and_hash(message[KEY:])

    def _send_response(self) -> None:
        """Message 2: e, ee, s, es and our identity."""
        ephemeral = self._own_ephemeral()
        self._mix_secret(self._ephemeral, self._remote_ephemeral)
        own_static = _public(self._static)
        static = self._symmetric.encrypt_and_hash(own_static)
        self._mix_secret(self._static, self._remote_ephemeral)
        self._send(ephemeral + static + self._symmetric.encrypt_and_hash(self._identity(own_static)))

    def _handle_response(self, message: bytes) -> tuple[HandshakePayload, bytes]:
        """What message 2 says, and the static key that it must be signed for."""
        self._take_ephemeral(message)
        self._mix_secret(self._ephemeral, self._remote_ephemeral)
        static = self._symmetric.decrypt_and_hash(message[KEY : KEY + SEALED_KEY])
        self._mix_secret(self._ephemeral, static)
        return decode_payload(self._symmetric.decrypt_and_hash(message[KEY + SEALED_KEY :])), static

    def _send_confirmation(self) -> None:
        """Message 3: s, se and our identity."""
        own_static = _public(self._static)
        static = self._symmetric.encrypt_and_hash(own_static)
        self._mix_secret(self._static, self._remote_ephemeral)
        self._send(static + self._symmetric.encrypt_and_hash(self._identity(own_static)))

    def _handle_confirmation(self, message: bytes) -> tuple[HandshakePayload, bytes]:
        """What message 3 says, and the static key that it must be signed for."""
        static = self._symmetric.decrypt_and_hash(message[:SEALED_KEY])
        self._mix_secret(self._ephemeral, static)
        return decode_payload(self._symmetric.decrypt_and_hash(message[SEALED_KEY:])), static

    def _own_ephemeral(self) -> bytes:
        public = _public(self._ephemeral)
        self._symmetric.mix_hash(public)
        return public

    def _take_ephemeral(self, message: bytes) -> None:
        self._remote_ephemeral = message[:KEY]
        self._symmetric.mix_hash(self._remote_ephemeral)

    def _mix_secret(self, private: X25519PrivateKey, public: bytes) -> None:
        """Takes the secret that `private` shares with the peer's `public` into the keys."""
        try:
            secret = private.exchange(X25519PublicKey.from_public_bytes(public))
        except ValueError as exc:  # cryptography's word for an all-zero shared secret
            raise AuthenticationFailed("the peer's noise key is not a usable X25519 key") from exc
        self._symmetric.mix_key(secret)

    def _verify(self, payload: HandshakePayload, remote_static: bytes) -> tuple[PublicKey, PeerId]:
        """The proven identity of the peer. Raises `AuthenticationFailed`."""
        try:
            key = PublicKey.decode(payload.identity_key)
        except InvalidKey as exc:
            raise AuthenticationFailed(f"the peer's identity key cannot be used: {exc}") from exc
        peer = PeerId.from_public_key(key)
        if self._expected is not None and peer != self._expected:
            raise AuthenticationFailed(f"reached {peer} instead of {self._expected}")
        if not key.verify(SIGNATURE_PREFIX + remote_static, payload.identity_signature):
            raise AuthenticationFailed(f"{peer} did not sign its noise static key")
        return key, peer

    def _complete(self, key: PublicKey, peer: PeerId, muxers: tuple[str, ...]) -> None:
        from_initiator, from_responder = self._symmetric.split()
        self._completed = HandshakeCompleted(
            remote_key=key,
            remote_peer=peer,
            stream_muxers=muxers,
            early_muxer=self._early_muxer(muxers),
            send_key=from_initiator if self._initiator else from_responder,
            receive_key=from_responder if self._initiator else from_initiator,
            surplus=bytes(self._buffer),
        )
        self._buffer.clear()
        self._state = State.DONE

    def _early_muxer(self, remote: tuple[str, ...]) -> str | None:
        """The first of the initiator's muxers that the responder has; None: agree on one afterwards.

        The specification ends a connection whose lists have nothing in common; go-libp2p goes on to
        multistream, where the same is found in a round that has its own error. So do we.
        """
        initiator, responder = (self._muxers, remote) if self._initiator else (remote, self._muxers)
        return next((muxer for muxer in initiator if muxer in responder), None)

    def _identity(self, own_static: bytes) -> bytes:
        return encode_payload(
            HandshakePayload(
                identity_key=self._key.public.encode(),
                identity_signature=self._key.sign(SIGNATURE_PREFIX + own_static),
                stream_muxers=self._muxers,
            )
        )

    def _send(self, message: bytes) -> None:
        self._out += LENGTH.pack(len(message)) + message


def _public(private: X25519PrivateKey) -> bytes:
    return private.public_key().public_bytes_raw()
