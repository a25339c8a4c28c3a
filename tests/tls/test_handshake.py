from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2p.errors import AuthenticationFailed, LocalProtocolError, NegotiationFailed, P2PError
from p2p.tls.handshake import Handshake
from tests.tls.support import (
    AFTER,
    ALICE,
    ALICE_ID,
    BOB,
    BOB_ID,
    MPLEX,
    YAMUX,
    completed,
    make_client,
    make_server,
    shake_hands,
)


def test_both_sides_prove_their_identities() -> None:
    client, server = shake_hands(make_client(expected=BOB_ID), make_server())
    assert (client.remote_key, client.remote_peer) == (BOB.public, BOB_ID)
    assert (server.remote_key, server.remote_peer) == (ALICE.public, ALICE_ID)
    assert bytes(server.channel.open(memoryview(client.channel.seal([b"hello"])))) == b"hello"
    assert bytes(client.channel.open(memoryview(server.channel.seal([b"hello"])))) == b"hello"


@pytest.mark.parametrize(
    ("clients", "servers", "chosen"),
    [
        ((YAMUX,), (YAMUX,), YAMUX),
        ((YAMUX, MPLEX), (MPLEX, YAMUX), YAMUX),
        ((MPLEX, YAMUX), (YAMUX, MPLEX), MPLEX),
        ((MPLEX, YAMUX), (YAMUX,), YAMUX),
        ((MPLEX,), (YAMUX,), None),
        ((), (YAMUX,), None),
        ((YAMUX,), (), None),
    ],
)
def test_the_clients_order_decides_on_the_muxer(
    clients: tuple[str, ...], servers: tuple[str, ...], chosen: str | None
) -> None:
    client, server = shake_hands(make_client(muxers=clients), make_server(muxers=servers))
    assert (client.early_muxer, server.early_muxer) == (chosen, chosen)


def feed(machine: Handshake, data: bytes, pieces: list[int]) -> bytes:
    """Feeds `data` in `pieces` until the machine is done; what it had no use for."""
    at = 0
    for piece in [*pieces, len(data)]:
        machine.receive_data(data[at : at + piece])
        at += piece
        if (event := machine._completed) is not None:
            return event.surplus + data[at:]
    assert at >= len(data)
    return b""


@given(*[st.lists(st.integers(1, 700), max_size=8)] * 3)
def test_any_split_of_the_bytes_gives_the_same(one: list[int], two: list[int], three: list[int]) -> None:
    client, server = make_client(), make_server()
    assert feed(server, client.data_to_send(), one) == b""
    assert feed(client, server.data_to_send(), two) == b""
    flight = client.data_to_send()
    data = completed(client).channel.seal([b"early"])
    surplus = feed(server, flight + data, three)
    assert surplus == data
    assert bytes(completed(server).channel.open(memoryview(surplus))) == b"early"


def test_one_byte_at_a_time_will_do() -> None:
    client, server = make_client(), make_server()
    for receiver, sender in ((server, client), (client, server), (server, client)):
        for byte in sender.data_to_send():
            receiver.receive_data(bytes([byte]))
    assert completed(client).surplus == completed(server).surplus == b""


def test_a_machine_that_is_done_takes_nothing_more() -> None:
    client, server = make_client(), make_server()
    shake_hands(client, server)
    for machine in (client, server):
        assert machine.next_event() is None
        with pytest.raises(LocalProtocolError, match="is over"):
            machine.receive_data(b"x")


def test_a_wrong_peer_gets_an_alert_and_nothing_of_ours() -> None:
    client, server = make_client(expected=ALICE_ID), make_server()
    server.receive_data(client.data_to_send())
    with pytest.raises(AuthenticationFailed, match=f"reached {BOB_ID} instead of {ALICE_ID}"):
        client.receive_data(server.data_to_send())
    alert = client.data_to_send()
    assert len(alert) < 40
    with pytest.raises(AuthenticationFailed, match=r"the peer refused the TLS handshake: .*unknown ca"):
        server.receive_data(alert)
    with pytest.raises(LocalProtocolError, match="is over"):
        client.receive_data(b"")


def test_a_refused_client_hears_of_it_with_its_first_read() -> None:
    client, server = make_client(), make_server(now=AFTER + timedelta(days=1))
    server.receive_data(client.data_to_send())
    client.receive_data(server.data_to_send())
    channel = completed(client).channel
    with pytest.raises(AuthenticationFailed, match="expired"):
        server.receive_data(client.data_to_send())
    for _ in range(2):
        with pytest.raises(AuthenticationFailed, match="the peer refused us at the end of the TLS handshake"):
            channel.open(memoryview(server.data_to_send()))


def test_nothing_in_common_is_said_to_both_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("p2p.tls.context.LIBP2P", b"something else")
    client = make_client(muxers=())
    monkeypatch.undo()
    server = make_server()
    with pytest.raises(NegotiationFailed, match="offers only something else"):
        server.receive_data(client.data_to_send())
    with pytest.raises(NegotiationFailed, match="no application protocol"):
        client.receive_data(server.data_to_send())


@given(st.integers(0, 2), st.integers(min_value=0), st.integers(1, 255))
def test_a_changed_byte_never_gets_through(message: int, at: int, change: int) -> None:
    """Each side either fails, or waits for more; a change in the legacy fields of a header may pass."""
    client, server = make_client(expected=BOB_ID), make_server()
    turns = [(client, server), (server, client), (client, server)]
    try:
        for number, (sender, receiver) in enumerate(turns):
            data = bytearray(sender.data_to_send())
            if number == message:
                data[at % len(data)] ^= change
            receiver.receive_data(data)
    except P2PError:
        return
    for machine, peer in ((client, BOB_ID), (server, ALICE_ID)):
        assert (event := machine.next_event()) is None or event.remote_peer == peer


@given(st.binary(min_size=1, max_size=200))
def test_garbage_is_a_typed_error_or_waits_for_more(data: bytes) -> None:
    for machine in (make_client(), make_server()):
        try:
            machine.receive_data(data)
        except P2PError:
            continue
        assert machine.next_event() is None
