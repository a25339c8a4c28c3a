"""Which values a key may have, and which of two is the better one: the namespaces of our records.

    /pk/<multihash>         the public key whose peer id that is; as in every libp2p network
    /v/<SHA-256 in hex>     the bytes with that hash: nobody can put others in their place
    /peer/<peer id>/<name>  what that peer signed last: the largest sequence number wins

A key of any other namespace is refused: a store without a rule is one that anybody fills and poisons.
Source: libp2p/specs kad-dht/README.md, "Entry validation"; go-libp2p-record `NamespacedValidator`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Protocol

from p2p import envelope
from p2p.errors import InvalidInput, InvalidKey, LocalProtocolError, RemoteProtocolError
from p2p.kad.wire import MAX_KEY, SignedValue, decode_signed_value, encode_signed_value
from p2p.keys import KeyPair, PublicKey
from p2p.peer_id import PeerId
from p2p.records.wire import decode_envelope

MAX_RECORD = 10 << 10  # bytes of a value; go's limit for IPNS records, and it leaves a reply room for peers
MAX_SEQ = (1 << 64) - 1  # largest sequence number
DOMAIN = "atcp-peer-value"  # nobody can present a signature for this as one for something else
PAYLOAD_TYPE = b"/atcp/peer-value"


class InvalidRecord(InvalidInput):
    """A key that is in no namespace of ours, or a value that its key does not allow."""


class Validator(Protocol):
    """The rules of one namespace."""

    def validate(self, key: bytes, value: bytes) -> None:
        """Returns when `value` may be stored under `key`. Raises `InvalidRecord`."""

    def select(self, key: bytes, values: Sequence[bytes]) -> int:
        """The index of the best of `values`, all of which are valid; the first of equally good ones."""


class PublicKeys:
    """`/pk/<multihash>`: the public key whose peer id that is."""

    def validate(self, key: bytes, value: bytes) -> None:
        """Whether the id of the serialized `PublicKey` in `value` is in the key."""
        try:
            peer = PeerId.from_public_key(PublicKey.decode(value))
        except InvalidKey as exc:
            raise InvalidRecord(f"the value is no public key: {exc}") from exc
        if public_key_key(peer) != key:
            raise InvalidRecord("the value is the public key of another peer")

    def select(self, key: bytes, values: Sequence[bytes]) -> int:
        """The first: there is only one valid value."""
        return 0


class Contents:
    """`/v/<SHA-256 in hex>`: the bytes with that hash."""

    def validate(self, key: bytes, value: bytes) -> None:
        """Whether the hash of `value` is in the key."""
        if content_key(value) != key:
            raise InvalidRecord("the hash of the value is not the one in the key")

    def select(self, key: bytes, values: Sequence[bytes]) -> int:
        """The first: there is only one valid value."""
        return 0


class PeerValues:
    """`/peer/<peer id>/<name>`: an envelope of that peer around a `SignedValue`."""

    def validate(self, key: bytes, value: bytes) -> None:
        """Whether the peer in the key signed `value` for this very key."""
        open_value(key, value)

    def select(self, key: bytes, values: Sequence[bytes]) -> int:
        """That of the largest sequence number; of several with one, all peers choose the same."""

        def rank(index: int) -> tuple[int, bytes]:
            signed = decode_signed_value(decode_envelope(values[index]).payload)
            return signed.seq, signed.value

        return max(range(len(values)), key=rank)


DEFAULT_VALIDATORS: Mapping[str, Validator] = {"pk": PublicKeys(), "v": Contents(), "peer": PeerValues()}


class Namespaces:
    """What `validators`, by the name of their namespace, say of any key."""

    def __init__(self, validators: Mapping[str, Validator] = DEFAULT_VALIDATORS) -> None:
        self._validators = dict(validators)

    def validator(self, key: bytes) -> Validator:
        """Who rules over `key`. Raises `InvalidRecord` for a key that nobody rules over."""
        slash, _, rest = key.partition(b"/")
        name, _, rest = rest.partition(b"/")
        validator = self._validators.get(name.decode("utf-8", "replace"))
        if slash or not rest or validator is None or len(key) > MAX_KEY:
            raise InvalidRecord(f"no namespace for the key {key[:40]!r}")
        return validator

    def validate(self, key: bytes, value: bytes) -> None:
        """Returns when `value` may be stored under `key`. Raises `InvalidRecord`."""
        validator = self.validator(key)
        if len(value) > MAX_RECORD:
            raise InvalidRecord(f"value of {len(value)} bytes is over the limit of {MAX_RECORD}")
        validator.validate(key, value)

    def is_better(self, key: bytes, value: bytes, than: bytes) -> bool:
        """Whether valid `value` takes the place of `than`; what is equally good stays."""
        return self.validator(key).select(key, (than, value)) == 1


def public_key_key(peer: PeerId) -> bytes:
    """Where the public key of `peer` is stored."""
    return b"/pk/" + peer.raw


def content_key(value: bytes) -> bytes:
    """Where `value` is stored."""
    return b"/v/" + hashlib.sha256(value).hexdigest().encode()


def peer_key(peer: PeerId, name: str) -> bytes:
    """Where `peer` stores what it says under `name`. Raises `LocalProtocolError` for an unusable name."""
    key = f"/peer/{peer}/{name}".encode()
    if not name or len(key) > MAX_KEY:
        raise LocalProtocolError(f"not a name for a record: {name[:40]!r}")
    return key


def sign_value(identity: KeyPair, name: str, seq: int, value: bytes) -> tuple[bytes, bytes]:
    """(key, record) by which `identity` says `value` under `name`; raise `seq` each time.

    Raises `LocalProtocolError` for a sequence number beyond 64 bits and for a value over some 8000 bytes.
    """
    if not 0 <= seq <= MAX_SEQ:
        raise LocalProtocolError(f"not a sequence number: {seq}")
    key = peer_key(PeerId.from_public_key(identity.public), name)
    payload = encode_signed_value(SignedValue(key=key, seq=seq, value=value))
    record = envelope.seal(DOMAIN, PAYLOAD_TYPE, payload, identity)
    if len(record) > envelope.MAX_ENVELOPE:
        raise LocalProtocolError(f"a record of {len(record)} bytes is over {envelope.MAX_ENVELOPE}")
    return key, record


def open_value(key: bytes, record: bytes) -> SignedValue:
    """What the peer in `key` says. Raises `InvalidRecord` when it did not sign `record` for that key."""
    try:
        signer, payload = envelope.unseal(record, DOMAIN, PAYLOAD_TYPE)
        signed = decode_signed_value(payload)
    except RemoteProtocolError as exc:
        raise InvalidRecord(f"not a signed value: {exc}") from exc
    if signed.key != key or not key.startswith(f"/peer/{PeerId.from_public_key(signer)}/".encode()):
        raise InvalidRecord("the value is signed for another key, or by another peer")
    return signed
