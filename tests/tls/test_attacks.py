"""Attacks on TLS as libp2p uses it, by name: each is refused with one typed error within a bound."""

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL

from p2p.errors import (
    AuthenticationFailed,
    MessageTooLarge,
    NegotiationFailed,
    RemoteProtocolError,
)
from p2p.tls.certificate import EXTENSION, _encode_identity, verify_certificate
from p2p.tls.channel import MAX_USELESS
from p2p.tls.context import make_context
from p2p.tls.handshake import MAX_HANDSHAKE, Handshake
from p2p.tls.record import OVERHEAD
from tests.tls.records import KeyLog, RecordSealer
from tests.tls.support import (
    ALICE,
    ALICE_ID,
    BEFORE,
    BOB,
    BOB_ID,
    CERTIFICATE_KEY,
    NOW,
    Stranger,
    certificate,
    completed,
    context_of,
    der,
    make_client,
    make_server,
    shake_hands,
    stranger_context,
)


def dialed_by(stranger: Stranger, server: Handshake) -> Handshake:
    """Lets `stranger` dial us; raises our error, after he saw our alert."""
    try:
        for _ in range(2):
            server.receive_data(stranger.step(server.data_to_send()))
    except Exception:
        with pytest.raises(SSL.Error):
            stranger.step(server.data_to_send())
            stranger.connection.recv(1)
        raise
    return server


def dialing(stranger: Stranger, client: Handshake) -> Handshake:
    """Lets us dial `stranger`."""
    client.receive_data(stranger.step(client.data_to_send()))
    return client


def test_a_client_without_a_certificate_is_refused() -> None:
    server = make_server()
    with pytest.raises(AuthenticationFailed, match="did not return a certificate"):
        dialed_by(Stranger(stranger_context(), client=True), server)
    assert server.next_event() is None


def test_a_server_that_does_not_ask_us_for_our_certificate_gains_nothing() -> None:
    """It is proven to us all the same; whom it talks to is its own loss."""
    context = stranger_context(certificate())
    context.set_verify(SSL.VERIFY_NONE)
    client = dialing(Stranger(context, client=False), make_client(expected=BOB_ID))
    assert completed(client).remote_peer == BOB_ID


def test_a_handshake_in_which_nobody_was_verified_fails() -> None:
    """Should OpenSSL ever skip its callback, as it does for a resumed session."""
    context = context_of(BOB)
    client = make_client()
    client._check.verified = None
    client._check.accepts = lambda der: True  # type: ignore[method-assign]
    server = make_server(context)
    server.receive_data(client.data_to_send())
    with pytest.raises(AuthenticationFailed, match="without a certificate"):
        client.receive_data(server.data_to_send())
    assert client.data_to_send() == b""  # our certificate was in there


def test_a_session_cannot_be_resumed_around_the_certificate() -> None:
    context = stranger_context()
    context.set_session_cache_mode(SSL.SESS_CACHE_CLIENT)
    first, server = Stranger(context, client=True), make_server()
    again, anonymous = Stranger(context, client=True), Stranger(context, client=True)
    for stranger in (first, again):
        stranger.connection.use_certificate(certificate(ALICE))
        stranger.connection.use_privatekey(CERTIFICATE_KEY)
    dialed_by(first, server)
    first.connection.bio_write(server.data_to_send())
    with pytest.raises(SSL.WantReadError):
        first.connection.recv(1)  # takes the tickets
    session = first.connection.get_session()
    assert session is not None
    again.connection.set_session(session)
    assert completed(dialed_by(again, make_server())).remote_peer == ALICE_ID
    anonymous.connection.set_session(session)
    with pytest.raises(AuthenticationFailed, match="did not return a certificate"):
        dialed_by(anonymous, make_server())


EXTRA = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.53594.1.99"), b"\x05\x00")
BAD_CERTIFICATES = {
    "expired": (certificate(not_before=BEFORE, not_after=BEFORE), "expired"),
    "not yet valid": (certificate(not_before=NOW.replace(year=2027)), "not valid before"),
    "without the extension": (certificate(with_identity=False), "does not have libp2p's extension"),
    "with an unknown critical extension": (certificate(extensions=[(EXTRA, True)]), "critical extension"),
    "with a known critical extension": (
        certificate(extensions=[(x509.BasicConstraints(ca=False, path_length=None), True)]),
        "critical extension",
    ),
    "not signed by its key": (
        certificate(signer=ec.generate_private_key(ec.SECP256R1())),
        "not signed with its own key",
    ),
    "with somebody's key and no signature of his": (
        certificate(identity_value=_encode_identity(BOB.public.encode(), bytes(64))),
        "did not sign",
    ),
    "with a signature for another certificate": (
        certificate(identity_value=_encode_identity(BOB.public.encode(), BOB.sign(b"libp2p-tls-handshake:"))),
        "did not sign",
    ),
    "with a signature of somebody else": (
        certificate(identity_value=_encode_identity(BOB.public.encode(), ALICE.sign(b"x"))),
        "did not sign",
    ),
    "oversized": (
        certificate(extensions=[(x509.UnrecognizedExtension(EXTRA.oid, bytes(9000)), False)]),
        "over the limit",
    ),
}


@pytest.mark.parametrize("what", BAD_CERTIFICATES)
def test_a_bad_certificate_is_refused_whoever_dials(what: str) -> None:
    made, why = BAD_CERTIFICATES[what]
    with pytest.raises(AuthenticationFailed, match=why):
        dialed_by(Stranger(stranger_context(made), client=True), make_server())
    client = make_client()
    with pytest.raises(AuthenticationFailed, match=why):
        dialing(Stranger(stranger_context(made), client=False), client)
    assert len(client.data_to_send()) < 40  # an alert, and not our certificate


def test_an_identity_copied_from_somebodys_certificate_is_refused() -> None:
    """Bob's certificate is public; his signature in it is good for the key of that certificate only."""
    copied = certificate(BOB).extensions.get_extension_for_oid(EXTENSION).value.public_bytes()
    own_key = ec.generate_private_key(ec.SECP256R1())
    context = stranger_context(certificate(key=own_key, identity_value=copied), own_key)
    with pytest.raises(AuthenticationFailed, match=f"{BOB_ID} did not sign"):
        dialed_by(Stranger(context, client=True), make_server())
    with pytest.raises(AuthenticationFailed, match=f"{BOB_ID} did not sign"):
        dialing(Stranger(context, client=False), make_client(expected=BOB_ID))


def test_a_second_identity_in_one_certificate_is_refused() -> None:
    """Which of two would count? Built by renaming another extension; the parser comes before signatures."""
    value = _encode_identity(ALICE.public.encode(), bytes(64))
    other = x509.ObjectIdentifier("1.3.6.1.4.1.53594.1.2")
    made = der(certificate(extensions=[(x509.UnrecognizedExtension(other, value), False)]))
    name = bytes.fromhex("2b0601040183a25a01")
    assert made.count(name + b"\x02") == made.count(name + b"\x01") == 1
    with pytest.raises(AuthenticationFailed, match=r"malformed: Duplicate"):
        verify_certificate(made.replace(name + b"\x02", name + b"\x01"), NOW)


def test_a_changed_proof_of_the_certificates_key_is_refused() -> None:
    server, stranger = make_server(), Stranger(stranger_context(certificate(ALICE)), client=True)
    server.receive_data(stranger.step())
    flight = bytearray(stranger.step(server.data_to_send()))
    flight[-80] ^= 1  # within CertificateVerify or Finished
    with pytest.raises(AuthenticationFailed, match="bad record mac"):
        server.receive_data(flight)


@pytest.mark.parametrize("other", ["unrelated", "its issuer"])
def test_two_certificates_are_refused_whoever_dials(other: str) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    first = certificate()
    second = certificate(ALICE, key=key) if other == "unrelated" else certificate(not_before=NOW)
    for client in (True, False):
        context = stranger_context(first)
        context.add_extra_chain_cert(second)
        stranger = Stranger(context, client=client)
        with pytest.raises(AuthenticationFailed, match="more than one certificate"):
            if client:
                server = make_server()
                server.receive_data(stranger.step())
                server.receive_data(stranger.step(server.data_to_send()))
            else:
                dialing(stranger, make_client())


def test_an_issued_certificate_is_refused_with_its_issuer() -> None:
    authority = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "authority")])
    issuer = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(authority.public_key())
        .serial_number(2)
        .not_valid_before(BEFORE)
        .not_valid_after(NOW.replace(year=2090))
        .sign(authority, certificate().signature_hash_algorithm)  # type: ignore[arg-type]
    )
    leaf = certificate()
    issued = (
        x509.CertificateBuilder()
        .subject_name(leaf.subject)
        .issuer_name(name)
        .public_key(leaf.public_key())
        .serial_number(3)
        .not_valid_before(BEFORE)
        .not_valid_after(NOW.replace(year=2090))
        .sign(authority, leaf.signature_hash_algorithm)  # type: ignore[arg-type]
    )
    context = stranger_context(issued)
    context.add_extra_chain_cert(issuer)
    with pytest.raises(AuthenticationFailed, match="certificate"):
        dialed_by(Stranger(context, client=True), make_server())


def test_tls_1_2_is_refused_whoever_dials() -> None:
    old = stranger_context(certificate(), maximum=SSL.TLS1_2_VERSION)
    with pytest.raises(NegotiationFailed, match="unsupported protocol"):
        dialed_by(Stranger(old, client=True), make_server())
    client, stranger = make_client(), Stranger(old, client=False)
    with pytest.raises(SSL.Error):
        stranger.step(client.data_to_send())
    with pytest.raises(NegotiationFailed, match="protocol version"):
        client.receive_data(stranger.connection.bio_read(1000))


def test_a_peer_without_alpn_is_refused_whoever_dials() -> None:
    server = make_server()
    stranger = Stranger(stranger_context(certificate(ALICE)), client=True, alpn=())
    server.receive_data(stranger.step())
    with pytest.raises(NegotiationFailed, match="ALPN"):
        server.receive_data(stranger.step(server.data_to_send()))
    client = make_client()
    with pytest.raises(NegotiationFailed, match="ALPN"):
        dialing(Stranger(stranger_context(certificate(), alpn=None), client=False), client)
    assert client.data_to_send() == b""


def test_a_web_browser_is_refused() -> None:
    stranger = Stranger(stranger_context(), client=True, alpn=(b"h2", b"http/1.1"))
    with pytest.raises(NegotiationFailed, match=r"offers only h2, http/1\.1"):
        dialed_by(stranger, make_server())


def test_a_server_that_chooses_what_we_did_not_offer_is_refused() -> None:
    client = make_client()
    with pytest.raises((NegotiationFailed, RemoteProtocolError)):
        dialing(Stranger(stranger_context(certificate(), alpn=b"/other/1.0.0"), client=False), client)


def test_an_endless_handshake_is_cut_off() -> None:
    """A ClientHello that announces 16 MiB and comes in full records."""
    server, sent = make_server(), 0
    record = b"\x16\x03\x01\x40\x00" + b"\x01\xff\xff\xff\x03\x03" + bytes(16384 - 6)
    with pytest.raises(RemoteProtocolError):
        while True:
            server.receive_data(record)
            sent += len(record)
            record = b"\x16\x03\x03\x40\x00" + bytes(16384)
    assert sent <= MAX_HANDSHAKE


def test_a_drip_of_tiny_records_is_cut_off() -> None:
    """Each within the limit of a record, none of which completes a message that is allowed."""
    server, sent = make_server(), 0
    hello = b"\x01\x01\xff\xff\x03\x03"  # a ClientHello of 128 KiB
    with pytest.raises((MessageTooLarge, RemoteProtocolError)):
        for at in range(1 << 20):
            server.receive_data(b"\x16\x03\x03\x00\x01" + (hello[at : at + 1] or b"\x00"))
            sent += 6
    assert sent <= MAX_HANDSHAKE


def test_a_certificate_message_that_is_too_long_is_cut_off() -> None:
    filler = x509.UnrecognizedExtension(EXTRA.oid, bytes(45_000))
    context = stranger_context(certificate(extensions=[(filler, False)]))
    context.add_extra_chain_cert(certificate(extensions=[(filler, False)]))
    with pytest.raises(MessageTooLarge):
        dialing(Stranger(context, client=False), make_client())


@pytest.mark.parametrize(
    "data",
    [b"GET / HTTP/1.1\r\n\r\n", b"\x13/multistream/1.0.0\n", b"\x00\x20" + bytes(32), b"SSH-2.0-x\r\n"],
    ids=["http", "multistream", "noise", "ssh"],
)
def test_another_protocol_is_refused_at_once(data: bytes) -> None:
    for machine in (make_client(), make_server()):
        with pytest.raises(RemoteProtocolError, match="not a TLS record"):
            machine.receive_data(data)


def test_a_server_that_echoes_our_own_hello_is_refused() -> None:
    client = make_client()
    with pytest.raises(RemoteProtocolError):
        client.receive_data(client.data_to_send())


def test_a_flood_of_key_updates_is_cut_off() -> None:
    log = KeyLog()
    context = make_context(certificate(ALICE), CERTIFICATE_KEY)
    context.set_keylog_callback(log)
    _, server = shake_hands(make_client(context), make_server())
    sealer, answers = RecordSealer(log.secrets["CLIENT_TRAFFIC_SECRET_0"]), 0
    server.channel.open(memoryview(sealer.seal(b"data")))
    for _ in range(MAX_USELESS):
        assert not server.channel.open(memoryview(sealer.key_update(requested=True)))
        answers += len(server.channel.data_to_send())
    assert 0 < answers <= MAX_USELESS * (5 + OVERHEAD)  # one each, the last one maybe later
    with pytest.raises(RemoteProtocolError, match="without data"):
        server.channel.open(memoryview(sealer.key_update(requested=True)))


def test_a_flood_of_empty_records_is_cut_off() -> None:
    log = KeyLog()
    context = make_context(certificate(ALICE), CERTIFICATE_KEY)
    context.set_keylog_callback(log)
    _, server = shake_hands(make_client(context), make_server())
    sealer = RecordSealer(log.secrets["CLIENT_TRAFFIC_SECRET_0"])
    flood = b"".join(sealer.seal(b"") for _ in range(MAX_USELESS + 1))
    with pytest.raises(RemoteProtocolError):
        server.channel.open(memoryview(sealer.seal(b"data") + flood))


def test_an_oversized_record_is_refused_at_its_header() -> None:
    client, server = make_client(), make_server()
    server.receive_data(client.data_to_send())
    client.receive_data(server.data_to_send())
    with pytest.raises(MessageTooLarge):
        completed(client).channel.open(memoryview(b"\x17\x03\x03\xff\xff"))


def test_no_server_name_is_sent() -> None:
    hello = make_client().data_to_send()
    stranger = Stranger(stranger_context(certificate()), client=False)
    stranger.step(hello)
    assert stranger.connection.get_servername() is None
