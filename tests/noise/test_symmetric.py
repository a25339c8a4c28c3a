import hashlib
import hmac

import pytest

from p2p.errors import AuthenticationFailed
from p2p.noise.symmetric import SymmetricState, hkdf

NAME = b"Noise_XX_25519_ChaChaPoly_SHA256"


def test_two_keys_are_derived_as_rfc_5869_says() -> None:
    pseudorandom = hmac.digest(b"salt", b"material", "sha256")
    first, second = hkdf(b"salt", b"material")
    assert first == hmac.digest(pseudorandom, b"\x01", "sha256")
    assert second == hmac.digest(pseudorandom, first + b"\x02", "sha256")


@pytest.mark.parametrize(
    ("name", "start"),
    [
        (NAME, NAME),
        (b"short", b"short" + bytes(27)),
        (NAME + b"!", hashlib.sha256(NAME + b"!").digest()),
    ],
)
def test_the_hash_begins_with_the_name_padded_or_hashed(name: bytes, start: bytes) -> None:
    state = SymmetricState(name)
    assert state.split() == hkdf(start, b"")


def test_nothing_is_encrypted_before_there_is_a_key() -> None:
    ours, theirs = SymmetricState(NAME), SymmetricState(NAME)
    assert theirs.decrypt_and_hash(ours.encrypt_and_hash(b"clear")) == b"clear"


def test_one_key_encrypts_several_messages_each_with_its_own_nonce() -> None:
    ours, theirs = SymmetricState(NAME), SymmetricState(NAME)
    ours.mix_key(b"secret")
    theirs.mix_key(b"secret")
    sealed = [ours.encrypt_and_hash(b"same") for _ in range(3)]
    assert len(set(sealed)) == 3
    assert [theirs.decrypt_and_hash(message) for message in sealed] == [b"same"] * 3


@pytest.mark.parametrize("prologue", [b"", b"other"])
def test_sides_that_saw_or_know_something_else_cannot_read(prologue: bytes) -> None:
    ours, theirs = SymmetricState(NAME), SymmetricState(NAME, prologue)
    ours.mix_key(b"secret")
    theirs.mix_key(b"secret" if prologue else b"another")
    with pytest.raises(AuthenticationFailed):
        theirs.decrypt_and_hash(ours.encrypt_and_hash(b"text"))
