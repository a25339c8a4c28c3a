from __future__ import annotations

import socket
import ssl
import subprocess
import sys
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
import trio

from p2p.address import parse_address, with_peer
from p2p.errors import AddressInUse, ConnectionLost, InvalidAddress, P2PError
from p2p.host import open_host
from p2p.transport import TcpTransport, WebSocketTransport
from p2p.transport.websocket.transport import MAX_RESOLVED
from tests.byte_streams import cancel_at_each_await
from tests.transport.websocket.test_driver import echo, receive_exactly
from tests.transport.websocket.world import NAME, contexts

WS = parse_address("/ip4/127.0.0.1/tcp/0/ws")
WSS = parse_address("/ip4/127.0.0.1/tcp/0/tls/ws")


def transport() -> WebSocketTransport:
    client, server = contexts()
    return WebSocketTransport(client_context=client, server_context=server)


@asynccontextmanager
async def open_echo(address=WS):
    """The address of a server that echoes on every connection it accepts."""
    async with AsyncExitStack() as stack:
        listener = await transport().listen(address)
        stack.push_async_callback(listener.aclose)
        nursery = await stack.enter_async_context(trio.open_nursery())

        async def serve(stream):
            try:
                await echo(stream)
            except P2PError:
                pass
            finally:
                await stream.aclose()

        async def accept():
            while True:
                stream, remote = await listener.accept()
                assert transport().can_dial(remote)
                nursery.start_soon(serve, stream)

        nursery.start_soon(accept)
        yield listener.addresses[0]
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("address", [WS, WSS], ids=str)
async def test_a_mebibyte_goes_there_and_back_on_real_sockets(address):
    message = bytes(range(256)) * 4096
    async with open_echo(address) as there:
        assert str(there).startswith("/ip4/127.0.0.1/tcp/")
        assert str(there).partition("/tcp/0")[1] == ""
        assert str(there).endswith(str(address).partition("/tcp/0")[2])
        stream = await transport().dial(there)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.send_all, message)
            assert await receive_exactly(stream, len(message)) == message
        await stream.aclose()


@pytest.mark.parametrize("form", ["wss", "tls/ws", f"tls/sni/{NAME}/ws"])
async def test_all_forms_of_a_secure_address_reach_the_same_server(form):
    async with open_echo(WSS) as there:
        stream = await transport().dial(parse_address(f"{str(there).removesuffix('/tls/ws')}/{form}"))
        await stream.send_all(b"x")
        assert await stream.receive_some() == b"x"
        await stream.aclose()


@pytest.mark.parametrize("kind", ["dns", "dns4"])
async def test_a_name_is_resolved_and_kept_for_host_and_certificate(kind):
    async with open_echo(WSS) as there:
        port = str(there).split("/")[4]
        with pytest.raises(ConnectionLost, match="certificate refused"):
            await transport().dial(parse_address(f"/{kind}/localhost/tcp/{port}/tls/ws"))
        stream = await transport().dial(parse_address(f"/{kind}/localhost/tcp/{port}/tls/sni/{NAME}/ws"))
        await stream.aclose()


async def test_every_address_of_a_name_is_tried(monkeypatch):
    async with open_echo(WS) as there:
        port = int(str(there).split("/")[4])

        async def getaddrinfo(host, asked, **_):
            assert (host, asked) == (NAME, port)
            last = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))
            return [(*last[:4], ("127.9.9.9", port))] * (MAX_RESOLVED - 1) + [last]

        monkeypatch.setattr(trio.socket, "getaddrinfo", getaddrinfo)
        stream = await WebSocketTransport().dial(parse_address(f"/dns4/{NAME}/tcp/{port}/ws"))
        await stream.aclose()
    with pytest.raises(ConnectionLost, match=r"refused.*; .*refused"):
        await WebSocketTransport().dial(parse_address(f"/dns4/{NAME}/tcp/{port}/ws"))


async def test_a_name_that_nobody_has_is_told(monkeypatch):
    async def getaddrinfo(*_, **__):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(trio.socket, "getaddrinfo", getaddrinfo)
    with pytest.raises(ConnectionLost, match=r"cannot resolve nobody\.invalid: .*not known"):
        await WebSocketTransport().dial(parse_address("/dns/nobody.invalid/tcp/1/ws"))


async def test_a_certificate_that_the_systems_authorities_do_not_know_is_refused():
    async with open_echo(WSS) as there:
        with pytest.raises(ConnectionLost, match=r"/tls/ws: certificate refused: unable to get local issuer"):
            await WebSocketTransport().dial(there)


async def test_what_answers_otherwise_is_a_lost_connection():
    listener = await TcpTransport().listen(parse_address("/ip4/127.0.0.1/tcp/0"))
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def serve():
            stream, _ = await listener.accept()
            await stream.receive_some()
            await stream.send_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
            await stream.aclose()
            await listener.aclose()

        with pytest.raises(ConnectionLost, match="status 404"):
            await transport().dial(parse_address(f"{listener.addresses[0]}/ws"))


async def test_listening_on_wss_takes_a_certificate():
    for form in ("wss", "tls/ws"):
        with pytest.raises(InvalidAddress, match="server_context"):
            await WebSocketTransport().listen(parse_address(f"/ip4/127.0.0.1/tcp/0/{form}"))


async def test_a_taken_port_and_a_closed_listener_are_told():
    listener = await transport().listen(WS)
    with pytest.raises(AddressInUse):
        await transport().listen(listener.addresses[0])
    await listener.aclose()
    with pytest.raises(ConnectionLost):
        await listener.accept()
    with pytest.raises(ConnectionLost, match="refused"):
        await transport().dial(listener.addresses[0])


async def test_a_slow_stranger_does_not_keep_others_from_being_accepted():
    async with open_echo(WSS) as there:
        silent = await TcpTransport().dial(parse_address(str(there).removesuffix("/tls/ws")))
        stream = await transport().dial(there)
        await stream.send_all(b"x")
        assert await stream.receive_some() == b"x"
        await stream.aclose()
        await silent.aclose()


@pytest.mark.parametrize("address", [WS, WSS], ids=str)
async def test_a_dial_can_be_cancelled_anywhere(address):
    async with open_echo(address) as there:

        @asynccontextmanager
        async def world():
            async def operation():
                stream = await transport().dial(there)
                await stream.aclose()

            yield operation

        assert await cancel_at_each_await(world) > 3


@pytest.mark.parametrize("address", [WS, WSS], ids=str)
async def test_hosts_ping_each_other(address):
    async with open_host(transports=[transport()], listen=[address]) as server:
        async with open_host(transports=[transport()]) as client:
            await client.connect(server.peer_id, [with_peer(server.addresses()[0], server.peer_id)])
            assert await client.ping(server.peer_id) > 0
            assert await server.ping(client.peer_id) > 0


async def test_the_systems_authorities_are_loaded_once():
    offered = WebSocketTransport()
    assert offered._verifying_context() is offered._verifying_context()
    assert offered._verifying_context().verify_mode is ssl.CERT_REQUIRED
    assert offered._verifying_context().check_hostname


def test_offering_websocket_does_not_import_its_library():
    code = "import sys, p2p.transport; p2p.transport.WebSocketTransport(); sys.exit('wsproto' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
