from __future__ import annotations

from hashlib import sha256

import base58
import pytest
from hypothesis import given
from hypothesis import strategies as st

from federated.errors import InvitationError
from federated.invitation import PREFIX, Ticket, make_invitation, parse_invitation
from federated.manifest import MAX_ROUNDS
from p2p.errors import InvalidInput
from p2p.keys import KeyPair
from p2p.peer_id import PeerId

TASK = sha256(b"task").digest()
ISSUER = KeyPair.from_seed(bytes(31) + b"\x01")
ENTROPY = bytes(range(32))

# a secp256k1 identity: it can sign, but nobody invites with it
OTHER_KEY = KeyPair.decode(b"\x08\x02\x12\x20" + bytes(31) + b"\x01")


def ticket(last_round: int = 9) -> Ticket:
    return make_invitation(ISSUER, TASK, last_round, ENTROPY)


def payload_of(text: str) -> bytes:
    return base58.b58decode(text.removeprefix(PREFIX))[:-4]


def line(payload: bytes) -> str:
    """A line with a true checksum, whatever is in it."""
    checksum = sha256(b"atcp/invitation/1\n" + payload).digest()[:4]
    return PREFIX + base58.b58encode(payload + checksum).decode()


def test_an_invitation_is_one_line_that_is_read_back() -> None:
    made = ticket()
    assert made.text.startswith(PREFIX)
    assert made.text.split() == [made.text]
    assert len(made.text) < 260
    assert parse_invitation(f"  {made.text}\n") == made
    assert made.invitation.task == TASK
    assert made.invitation.last_round == 9
    assert made.invitation.issuer == PeerId.from_public_key(ISSUER.public)
    assert made.invitation.key == KeyPair.from_seed(ENTROPY).public.data


def test_the_seed_is_in_the_line_and_nowhere_else() -> None:
    made = ticket()
    assert ENTROPY in payload_of(made.text)
    assert repr(ENTROPY) not in repr(made)


@given(st.integers(1, MAX_ROUNDS), st.binary(min_size=32, max_size=32))
def test_every_invitation_is_read_back(last_round: int, entropy: bytes) -> None:
    made = make_invitation(ISSUER, TASK, last_round, entropy)
    assert parse_invitation(made.text) == made


@given(st.integers(min_value=0), st.characters(codec="ascii"))
def test_a_line_with_one_wrong_character_is_refused(at: int, character: str) -> None:
    text = ticket().text
    at %= len(text)
    damaged = text[:at] + character + text[at + 1 :]
    if damaged.strip() != text:
        with pytest.raises(InvitationError):
            parse_invitation(damaged)


@given(st.integers(0, 230))
def test_a_line_that_is_cut_is_refused(length: int) -> None:
    with pytest.raises(InvitationError):
        parse_invitation(ticket().text[:length])


@given(st.one_of(st.text(max_size=600), st.binary(max_size=200).map(line)))
def test_any_other_text_is_refused_with_the_one_error(text: str) -> None:
    with pytest.raises(InvitationError) as caught:
        parse_invitation(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("12D3KooW", "begins with atcp-invite-; paste the whole line"),
        (PREFIX + "1" * 600, "too long; paste one line"),
        (PREFIX + "0OIl", "a character that is none of its own; copy it again"),
        (PREFIX, "not complete; copy the whole line again"),
        (ticket().text[:-5], "not complete; copy the whole line again"),
        (line(b"\x02" + payload_of(ticket().text)[1:]), "of a newer kind; install a newer version"),
        (line(payload_of(ticket().text) + b"\x00"), "damaged; ask whoever invited you"),
    ],
)
def test_what_is_wrong_with_a_line_comes_with_what_to_do(text: str, says: str) -> None:
    with pytest.raises(InvitationError, match=says):
        parse_invitation(text)


@pytest.mark.parametrize("at", [1, 33, 68, 69, 101, 164])
def test_a_forged_field_breaks_the_issuers_signature(at: int) -> None:
    payload = bytearray(payload_of(ticket().text))
    payload[at] ^= 1  # in the task, the seed, the last round, the issuer's key, the signature
    with pytest.raises(InvitationError, match=r"not signed by its issuer; ask whoever"):
        parse_invitation(line(bytes(payload)))


def test_only_what_can_be_checked_and_used_is_issued() -> None:
    with pytest.raises(InvalidInput, match="only a peer with an Ed25519 key can invite"):
        make_invitation(OTHER_KEY, TASK, 1, ENTROPY)
    for last_round in (0, MAX_ROUNDS + 1):
        with pytest.raises(InvalidInput, match="the last round of an invitation is 1 to 10000"):
            ticket(last_round)
