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


def _certificate(
    subject: str, key: ec.EllipticCurvePrivateKey, issuer: str, signer: ec.EllipticCurvePrivateKey
) -> x509.CertificateBuilder:
    """What both certificates have; OpenSSL's strict mode, Python 3.13's default, wants the identifiers."""
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
        )
    )


def _authority(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    usage = [
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
    ]
    usage += ["crl_sign", "encipher_only", "decipher_only"]
    return (
        _certificate("throw-away", key, "throw-away", key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(key_cert_sign=True, **dict.fromkeys(usage, False)), critical=True)
        .sign(key, hashes.SHA256())
    )


@cache
def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """(a client's that trusts our authority only, the server's of example.org and 127.0.0.1)."""
    signer, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    names = [x509.DNSName(NAME), x509.IPAddress(ip_address("127.0.0.1"))]
    certificate = (
        _certificate(NAME, key, "throw-away", signer)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(signer, hashes.SHA256())
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "server.pem"
        secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        path.write_bytes(certificate.public_bytes(Encoding.PEM) + secret)
        server.load_cert_chain(path)
    authority = _authority(signer).public_bytes(Encoding.PEM).decode("ascii")
    return ssl.create_default_context(cadata=authority), server


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
