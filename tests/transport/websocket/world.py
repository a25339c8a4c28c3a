"""What the tests of the WebSocket drivers share: connected ends, and a throw-away authority."""

from __future__ import annotations

import datetime
import ssl
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from ipaddress import ip_address
from pathlib import Path

import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from p2p.stream import ByteStream
from p2p.transport.websocket.driver import WebSocketStream
from p2p.transport.websocket.session import Session
from p2p.transport.websocket.tls_layer import TlsLayer
from tests.transport.pipes import NarrowStream, narrow_pair

NAME = "example.org"


@cache
def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """(a client's that trusts our authority only, the server's of example.org and 127.0.0.1)."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "throw-away")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.DNSName(NAME), x509.IPAddress(ip_address("127.0.0.1"))]),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(Encoding.PEM)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "server.pem"
        path.write_bytes(pem + key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        server.load_cert_chain(path)
    return ssl.create_default_context(cadata=pem.decode()), server


def layered(raw: NarrowStream, *, client: bool, secure: bool) -> WebSocketStream:
    """One end over `raw`, before its handshakes."""
    stream: ByteStream = raw
    if secure:
        stream = TlsLayer(raw, contexts()[0 if client else 1], NAME if client else None)
    return WebSocketStream(stream, Session(NAME if client else None))


@asynccontextmanager
async def open_ends(
    *, secure: bool, capacity: int = 1 << 16, most: int = 1 << 16
) -> AsyncIterator[tuple[WebSocketStream, WebSocketStream]]:
    """(client, server) over a pipe, the server before its handshake; closed on exit."""
    near, far = narrow_pair(capacity=capacity, most=most)
    client, server = layered(near, client=True, secure=secure), layered(far, client=False, secure=secure)
    try:
        yield client, server
    finally:
        with trio.CancelScope(shield=True):
            await client.aclose()
            await server.aclose()
