import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from OpenSSL import SSL

from p2p.errors import AuthenticationFailed, LocalProtocolError, RemoteProtocolError
from p2p.stream import MAX_BLOCK, SecureChannel
from p2p.tls.certificate import make_certificate
from p2p.tls.channel import Channel
from p2p.tls.context import make_context
from p2p.tls.failure import handshake_failure
from p2p.tls.record import MAX_PLAINTEXT, OVERHEAD
from tests.tls.records import ALERT, HANDSHAKE, KeyLog, RecordSealer
from tests.tls.support import AFTER, ALICE, BEFORE, CERTIFICATE_KEY, make_client, make_server, shake_hands

Pair = tuple[Channel, Channel, RecordSealer]


@pytest.fixture
def pair() -> Pair:
    """Alice's channel, Bob's, and what seals records in Alice's name."""
    log = KeyLog()
    made = make_certificate(ALICE, CERTIFICATE_KEY, serial=1, not_before=BEFORE, not_after=AFTER)
    context = make_context(made, CERTIFICATE_KEY)
    context.set_keylog_callback(log)
    client, server = shake_hands(make_client(context), make_server())
    return client.channel, server.channel, RecordSealer(log.secrets["CLIENT_TRAFFIC_SECRET_0"])


CHANNELS = [outcome.channel for outcome in shake_hands(make_client(), make_server())]


def opened(channel: Channel, data: bytes) -> bytes:
    return bytes(channel.open(memoryview(data)))


def test_it_is_a_secure_channel(pair: Pair) -> None:
    as_interface: SecureChannel = pair[0]
    assert not as_interface.ended
    assert not as_interface.mid_frame
    assert bytes(as_interface.data_to_send()) == b""


@settings(max_examples=50)
@given(st.lists(st.binary(max_size=40_000), max_size=5), st.lists(st.integers(1, 70_000), max_size=5))
def test_blocks_come_out_in_order_whatever_the_pieces(blocks: list[bytes], pieces: list[int]) -> None:
    alice, bob = CHANNELS
    sealed = alice.seal(blocks)
    plain, at = b"", 0
    for piece in [*pieces, len(sealed)]:
        plain += opened(bob, sealed[at : at + piece])
        at += piece
    assert plain == b"".join(blocks)
    assert not bob.mid_frame


def test_four_full_blocks_go_through_at_once(pair: Pair) -> None:
    alice, bob, _ = pair
    blocks = [bytes([number]) * MAX_BLOCK for number in range(4)]
    sealed = alice.seal(blocks)
    assert len(sealed) == 4 * (MAX_BLOCK + 4 * OVERHEAD)
    assert opened(bob, sealed[:10_000]) == b""
    assert opened(bob, sealed[10_000:]) == b"".join(blocks)


def test_small_blocks_share_a_record(pair: Pair) -> None:
    alice, _, _ = pair
    assert len(alice.seal([b"x" * 12, b"", memoryview(b"y" * 100), bytearray(b"z")])) == 113 + OVERHEAD
    assert alice.seal([]) == alice.seal([b"", b""]) == b""
    assert len(alice.seal([b"x" * 12, b"y" * MAX_PLAINTEXT])) == 12 + MAX_PLAINTEXT + 2 * OVERHEAD


def test_a_record_one_byte_at_a_time_is_mid_frame_until_its_end(pair: Pair) -> None:
    alice, bob, _ = pair
    sealed = alice.seal([b"one"]) + alice.seal([b"two"])
    plain = b""
    for at, byte in enumerate(sealed, 1):
        plain += opened(bob, bytes([byte]))
        assert bob.mid_frame == (at not in (len(sealed) // 2, len(sealed)))
    assert plain == b"onetwo"


def test_close_notify_is_the_end_and_what_is_behind_it_is_ignored(pair: Pair) -> None:
    alice, bob, _ = pair
    last = alice.seal([b"bye"])
    alice._connection.shutdown()
    close_notify = alice._connection.bio_read(1000)
    assert opened(bob, last + close_notify) == b"bye"
    assert bob.ended
    assert not bob.mid_frame
    assert opened(bob, close_notify) == b""
    assert bob.seal([b"we may still write"])


def test_nothing_can_be_sent_behind_our_own_end(pair: Pair) -> None:
    alice, _, _ = pair
    alice._connection.shutdown()
    with pytest.raises(LocalProtocolError, match="cannot send any more"):
        alice.seal([b"x"])


@pytest.mark.parametrize("at", [0, 1, 2, 3, 4, 5, 20, -1])
def test_a_changed_record_is_not_taken_nor_anything_behind_it(pair: Pair, at: int) -> None:
    alice, bob, _ = pair
    sealed = bytearray(alice.seal([b"pay 1" * 100]))
    sealed[at] ^= 1
    following = alice.seal([b"more" * 300])
    with pytest.raises(RemoteProtocolError):
        assert opened(bob, bytes(sealed) + following + following) == b""
    with pytest.raises(RemoteProtocolError):
        opened(bob, following)
    assert len(bob.data_to_send()) in (0, 24)  # OpenSSL's alert, unless the header already gave it away
    assert bob.data_to_send() == b""


@pytest.mark.parametrize("what", ["twice", "out of order"])
def test_records_come_once_and_in_order(pair: Pair, what: str) -> None:
    alice, bob, _ = pair
    first, second = alice.seal([b"first"]), alice.seal([b"second"])
    with pytest.raises(AuthenticationFailed, match="failed authentication"):
        opened(bob, first + first if what == "twice" else second + first)


def test_alerts_after_data_are_the_peers_offence(pair: Pair) -> None:
    _, bob, sealer = pair
    assert opened(bob, sealer.seal(b"data")) == b"data"
    with pytest.raises(RemoteProtocolError, match=r"gave the connection up: .*internal error") as caught:
        opened(bob, sealer.seal(b"\x02\x50", ALERT))
    assert not isinstance(caught.value, AuthenticationFailed)


def test_key_updates_are_followed_and_answered(pair: Pair) -> None:
    alice, bob, sealer = pair
    data = sealer.seal(b"old") + sealer.key_update(requested=True) + sealer.seal(b"new")
    assert opened(bob, data) == b"oldnew"
    answer = bob.data_to_send() + bob.seal([b"answer"])
    assert len(answer) == len(b"answer") + OVERHEAD + 5 + OVERHEAD  # a KeyUpdate goes first
    assert opened(alice, answer) == b"answer"
    assert opened(bob, sealer.key_update(requested=False) + sealer.seal(b"newest")) == b"newest"
    assert bob.data_to_send() == b""
    assert len(bob.seal([b"answer"])) == len(b"answer") + OVERHEAD


def test_padding_and_empty_records_are_nothing(pair: Pair) -> None:
    _, bob, sealer = pair
    data = (
        sealer.seal(b"a", padding=200) + sealer.seal(b"") + sealer.seal(b"", padding=50) + sealer.seal(b"b")
    )
    assert opened(bob, data) == b"ab"
    assert not bob.mid_frame


def test_a_handshake_message_that_does_not_belong_there_is_refused(pair: Pair) -> None:
    _, bob, sealer = pair
    with pytest.raises(RemoteProtocolError, match="broke the rules of TLS"):
        opened(bob, sealer.seal(b"\x01\x00\x00\x00", HANDSHAKE))  # a ClientHello: renegotiation
    assert len(bob.data_to_send()) == 24


def test_openssl_without_words_still_gives_a_sentence() -> None:
    assert str(handshake_failure(SSL.Error())) == "the TLS handshake failed: Error"
    assert str(handshake_failure(SSL.SysCallError(-1, "Unexpected EOF"))).endswith("Unexpected EOF')")
