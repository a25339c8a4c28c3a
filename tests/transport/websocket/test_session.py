from __future__ import annotations

import struct

import pytest
import wsproto.events
from hypothesis import given
from hypothesis import strategies as st
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping, TextMessage

from p2p.errors import InvalidAddress, RemoteProtocolError
from p2p.transport.websocket.handshake import MAX_HEAD
from p2p.transport.websocket.session import Session, State

REQUEST = (
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def open_pair() -> tuple[Session, Session]:
    """A client and a server after their handshake."""
    client, server = Session("example.org"), Session()
    server.receive_data(client.data_to_send())
    client.receive_data(server.data_to_send())
    assert client.state is server.state is State.OPEN
    return client, server


def rogue() -> tuple[Connection, Session]:
    """A client that may send anything, and the server it talks to."""
    server = Session()
    server.receive_data(REQUEST)
    server.data_to_send()
    return Connection(ConnectionType.CLIENT), server


def received(session: Session) -> bytes:
    return b"".join(iter(session.next_data, None))


def events(connection: Connection, data: bytes) -> list[wsproto.events.Event]:
    connection.receive_data(data)
    return list(connection.events())


def test_the_handshake_is_the_example_of_the_rfc():
    server = Session()
    server.receive_data(REQUEST)
    answer = server.data_to_send()
    assert answer.startswith(b"HTTP/1.1 101 ")
    assert b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in answer
    assert b"xtensions" not in answer


@pytest.mark.parametrize("path", [b"/", b"/p2p?x=1"])
def test_compression_that_a_client_offers_is_not_accepted(path):
    offer = b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n"
    server = Session()
    server.receive_data(REQUEST[:-2].replace(b" / ", b" " + path + b" ") + offer)
    assert b"xtensions" not in server.data_to_send()
    assert server.state is State.OPEN


def test_a_request_names_its_host_and_offers_no_compression():
    request = Session("[::1]:4002").data_to_send()
    assert request.startswith(b"GET / HTTP/1.1\r\nHost: [::1]:4002\r\n")
    assert b"xtensions" not in request


def test_an_international_name_is_asked_for_in_its_ascii_form():
    assert b"\r\nHost: xn--bcher-kva.example\r\n" in Session("bücher.example").data_to_send()


@pytest.mark.parametrize("authority", ["a..b", "a\r\nX: y", "a b\x00"])
def test_a_host_that_http_cannot_name_is_our_own_mistake(authority):
    with pytest.raises(InvalidAddress):
        Session(authority)


@given(st.lists(st.binary(max_size=70_000), max_size=4), st.data())
def test_bytes_pass_both_ways_however_they_are_cut(messages, data):
    client, server = Session("example.org"), Session()
    for source, sink in ((client, server), (server, client)):
        wire = source.data_to_send() + (server.encode(b"first") if source is server else b"")
        cuts = sorted(data.draw(st.lists(st.integers(0, len(wire)), max_size=5)))
        for start, end in zip([0, *cuts], [*cuts, len(wire)], strict=True):
            sink.receive_data(wire[start:end])
    assert received(client) == b"first"
    for source, sink in ((client, server), (server, client)):
        wire = b"".join(source.encode(message) for message in messages)
        cuts = sorted(data.draw(st.lists(st.integers(0, len(wire)), max_size=5)))
        got = b""
        for start, end in zip([0, *cuts], [*cuts, len(wire)], strict=True):
            sink.receive_data(wire[start:end])
            got += received(sink)
        assert got == b"".join(messages)
        assert not sink.mid_message


def test_everything_passes_byte_by_byte():
    client, server = Session("example.org"), Session()
    for byte in client.data_to_send():
        server.receive_data(bytes([byte]))
    for byte in server.data_to_send() + server.encode(b"hello"):
        client.receive_data(bytes([byte]))
    got = received(client)
    for byte in server.encode(b"again"):
        client.receive_data(bytes([byte]))
        got += received(client)
    assert got == b"helloagain"


def test_fragments_and_pings_between_them_make_one_stream():
    client, server = rogue()
    wire = client.send(BytesMessage(data=b"on", message_finished=False))
    wire += client.send(Ping(payload=b"1"))
    wire += client.send(BytesMessage(data=b"", message_finished=False))
    wire += client.send(BytesMessage(data=b"e", message_finished=True))
    server.receive_data(wire)
    assert server.next_data() == b"on"
    assert server.mid_message
    assert server.next_data() == b"e"
    assert not server.mid_message
    assert [type(event) for event in events(client, server.data_to_send())] == [wsproto.events.Pong]
    server.receive_data(client.send(wsproto.events.Pong(payload=b"unasked")))
    assert server.next_data() is None


def test_a_flood_of_pings_costs_one_pong():
    client, server = rogue()
    server.receive_data(b"".join(client.send(Ping(payload=b"%d" % number)) for number in range(5000)))
    assert server.next_data() is None
    assert events(client, server.data_to_send()) == [wsproto.events.Pong(payload=b"4999")]
    assert server.data_to_send() == b""


def test_a_huge_message_is_handed_on_as_it_comes():
    _, server = rogue()
    server.receive_data(struct.pack("!BBQI", 0x82, 0x80 | 127, 2**62, 0))
    for _ in range(1000):
        server.receive_data(b"x" * 1000)
        assert server.next_data() == b"x" * 1000
        assert server.next_data() is None
    assert server.mid_message


@pytest.mark.parametrize(
    ("wire", "code"),
    [
        (b"\x81\x80\0\0\0\0", 1003),  # text
        (b"\x81\x81\0\0\0\0\xff", 1007),  # text that is not UTF-8
        (b"\x01\xff" + b"\x0f" * 8, 1003),  # a text of half the world
        (b"\x82\x01x", 1002),  # not masked
        (b"\xc2\x80\0\0\0\0", 1002),  # compressed
        (b"\x83\x80\0\0\0\0", 1002),  # an unknown kind
        (b"\x80\x80\0\0\0\0", 1002),  # a continuation of nothing
        (b"\x89\xfe\x00\x7e\0\0\0\0", 1002),  # a ping of 126 bytes
        (b"\x09\x80\0\0\0\0", 1002),  # a ping in fragments
        (b"\x82\xff" + b"\xff" * 12, 1002),  # a length over 2^63
        (b"\x88\x81\0\0\0\0x", 1002),  # a close with half a code
    ],
)
def test_broken_rules_end_the_session_with_a_code(wire, code):
    client, server = rogue()
    server.receive_data(wire + b"\0" * 8)
    for _ in range(2):
        with pytest.raises(RemoteProtocolError):
            server.next_data()
    assert server.state is State.FAILED
    closing = events(client, server.data_to_send())
    assert [event.code for event in closing if isinstance(event, CloseConnection)] == [code]
    server.receive_data(b"more")


def test_a_client_takes_no_masked_frames():
    client, _ = open_pair()
    client.receive_data(b"\x82\x80\0\0\0\0")
    with pytest.raises(RemoteProtocolError, match="masked"):
        client.next_data()


def test_text_after_data_does_not_take_the_data_away():
    client, server = rogue()
    server.receive_data(client.send(BytesMessage(data=b"ok")) + client.send(TextMessage(data="no")))
    assert server.next_data() == b"ok"
    with pytest.raises(RemoteProtocolError, match="text"):
        server.next_data()


@pytest.mark.parametrize("code", [None, 1000, 1001, 3999])
def test_a_close_is_answered_and_ends_the_stream(code):
    client, server = rogue()
    wire = client.send(BytesMessage(data=b"bye")) + client.send(CloseConnection(code=code or 1005))
    server.receive_data(wire + b"\xff\xff\xff")
    assert received(server) == b"bye"
    assert server.state is State.ENDED
    assert [type(event) for event in events(client, server.data_to_send())] == [CloseConnection]
    server.close()
    server.receive_data(b"\xff")
    assert server.data_to_send() == b""


def test_our_close_is_said_once():
    client, server = open_pair()
    client.close()
    client.close()
    server.receive_data(client.data_to_send())
    assert received(server) == b""
    assert server.state is State.ENDED
    assert client.data_to_send() == b""
    server.receive_end()
    Session().close()


def test_pings_after_the_end_are_not_answered():
    client, server = rogue()
    server.receive_data(client.send(Ping(payload=b"x")))
    assert server.next_data() is None
    server.receive_end()
    assert server.data_to_send() == b""


BAD_REQUESTS = {
    "method": (REQUEST.replace(b"GET", b"POST"), 400),
    "no key": (REQUEST.replace(b"Sec-WebSocket-Key", b"X-Key"), 400),
    "no upgrade": (REQUEST.replace(b"Upgrade: websocket", b"Upgrade: h2c"), 400),
    "no connection": (REQUEST.replace(b", Upgrade", b""), 400),
    "a page": (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "no host": (REQUEST.replace(b"Host", b"X-Host"), 400),
    "version": (REQUEST.replace(b"Version: 13", b"Version: 8"), 426),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "garbage": (b"garbage\r\n\r\n", 400),
    "empty": (b"\r\n\r\n", 400),
    "bad host": (REQUEST.replace(b"Host: x", b"Host: \xff\xfe"), 400),
    "bad connection": (REQUEST.replace(b"keep-alive", b"\xff\xfe"), 400),
    "multistream": (b"\x13/multistream/1.0.0\n", 400),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00", 400),
    "huge": (b"GET / HTTP/1.1\r\n" + b"X: " + b"y" * MAX_HEAD, 431),
    "huge and whole": (b"GET / HTTP/1.1\r\nX: " + b"y" * MAX_HEAD + REQUEST[16:], 431),
}


@pytest.mark.parametrize("name", BAD_REQUESTS)
def test_a_bad_request_is_refused_in_http(name):
    wire, status = BAD_REQUESTS[name]
    server = Session()
    with pytest.raises(RemoteProtocolError, match="no WebSocket"):
        server.receive_data(wire)
    assert server.state is State.FAILED
    with pytest.raises(RemoteProtocolError, match="no WebSocket"):
        server.next_data()
    answer = server.data_to_send()
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert answer.endswith(b"\r\n\r\n")
    server.close()
    assert server.data_to_send() == b""


@given(st.binary(max_size=300), st.booleans())
def test_no_bytes_break_a_session_in_another_way(garbage, after_handshake):
    server = Session()
    if after_handshake:
        server.receive_data(REQUEST)
    try:
        server.receive_data(garbage)
        received(server)
    except RemoteProtocolError:
        assert server.state is State.FAILED


@given(st.binary(max_size=60), st.integers(0, len(REQUEST)), st.integers(0, 20))
def test_no_request_breaks_a_session_in_another_way(garbage, position, skipped):
    server = Session()
    try:
        server.receive_data(REQUEST[:position] + garbage + REQUEST[position + skipped :])
    except RemoteProtocolError:
        assert server.data_to_send().startswith(b"HTTP/1.1 4")


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "404"),
        (b"HTTP/1.1 200 OK\r\n\r\n<html>", "200"),
        (b"HTTP/1.1 103 Early Hints\r\n\r\n", "103"),
        (b"HTTP/1.1 101 Fine\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", "accept token"),
        (b"HTTP/1.1 101 Fine\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n", "Upgrade"),
        (b"SSH-2.0-OpenSSH_9.6\r\n\r\n", "Bad HTTP"),
        (b"\x13/multistream/1.0.0\n", "not HTTP"),
        (b"HTTP/1.1 101 Fine\r\nConnection: \xff\r\n\r\n", "unreadable"),
        (b"HTTP/1.1 101 " + b"x" * MAX_HEAD, "over 16384"),
    ],
)
def test_a_server_that_is_none_is_told_by_its_answer(answer, reason):
    client = Session("example.org")
    client.data_to_send()
    with pytest.raises(RemoteProtocolError, match=reason):
        client.receive_data(answer)
    assert client.data_to_send() == b""


def test_an_extension_that_nobody_offered_is_refused():
    client, server = Session("example.org"), Session()
    server.receive_data(client.data_to_send())
    answer = server.data_to_send()[:-2] + b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
    with pytest.raises(RemoteProtocolError, match="extension"):
        client.receive_data(answer)
