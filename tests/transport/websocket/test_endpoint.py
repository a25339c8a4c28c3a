from __future__ import annotations

import pytest

from p2p.address import parse_address
from p2p.errors import InvalidAddress
from p2p.transport import TcpTransport, WebSocketTransport
from p2p.transport.websocket.endpoint import parse_endpoint

PEER = "12D3KooWGzxzKZYveHXtpG6AsrUJBcWxHBFS2HsEoGTxrMLvKXtf"


@pytest.mark.parametrize(
    ("text", "secure", "server_name", "authority"),
    [
        ("/ip4/1.2.3.4/tcp/80/ws", False, "1.2.3.4", "1.2.3.4"),
        ("/ip4/1.2.3.4/tcp/4002/ws", False, "1.2.3.4", "1.2.3.4:4002"),
        ("/ip6/::1/tcp/4002/ws", False, "::1", "[::1]:4002"),
        ("/ip6/::1/tcp/443/wss", True, "::1", "[::1]"),
        ("/dns4/example.org/tcp/443/tls/ws", True, "example.org", "example.org"),
        ("/dns6/example.org/tcp/80/wss", True, "example.org", "example.org:80"),
        ("/dns/example.org/tcp/443/ws", False, "example.org", "example.org:443"),
        ("/ip4/1.2.3.4/tcp/443/tls/sni/example.org/ws", True, "example.org", "example.org"),
        (f"/ip4/1.2.3.4/tcp/443/wss/p2p/{PEER}", True, "1.2.3.4", "1.2.3.4"),
    ],
)
def test_an_address_tells_what_to_dial_and_whom_to_ask_for(text, secure, server_name, authority):
    endpoint = parse_endpoint(parse_address(text))
    assert endpoint.secure is secure
    assert endpoint.server_name == server_name
    assert endpoint.authority == authority
    assert text.startswith(str(endpoint.tcp))
    assert WebSocketTransport().can_dial(parse_address(text))
    assert not TcpTransport().can_dial(parse_address(text))
    assert not WebSocketTransport().can_dial(endpoint.tcp)


@pytest.mark.parametrize(
    "text",
    [
        "/ip4/1.2.3.4/tcp/1",
        "/ip4/1.2.3.4/udp/1",
        "/memory/1",
        "/ip4/1.2.3.4/tcp/1/tls",
        "/ip4/1.2.3.4/tcp/1/tls/sni/x/wss",
        "/ip4/1.2.3.4/tcp/1/ws/ws",
        f"/ip4/1.2.3.4/tcp/1/ws/p2p/{PEER}/p2p-circuit",
        f"/p2p/{PEER}",
    ],
)
def test_other_addresses_are_not_for_websocket(text):
    assert not WebSocketTransport().can_dial(parse_address(text))
    with pytest.raises(InvalidAddress, match=r"cannot use|not the last part"):
        parse_endpoint(parse_address(text))


@pytest.mark.parametrize(
    ("text", "named", "unnamed"),
    [
        ("/ip4/0.0.0.0/tcp/0/ws", "/ws", "/ws"),
        ("/ip4/0.0.0.0/tcp/0/wss", "/tls/ws", "/tls/ws"),
        ("/ip4/0.0.0.0/tcp/0/tls/sni/example.org/ws", "/tls/sni/example.org/ws", "/tls/ws"),
    ],
)
def test_reported_addresses_use_the_form_that_others_use(text, named, unnamed):
    endpoint, tcp = parse_endpoint(parse_address(text)), parse_address("/ip4/9.9.9.9/tcp/5")
    assert str(endpoint.on(tcp)) == f"/ip4/9.9.9.9/tcp/5{named}"
    assert str(endpoint.on(tcp, named=False)) == f"/ip4/9.9.9.9/tcp/5{unnamed}"
