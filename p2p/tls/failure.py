"""What went wrong inside OpenSSL, in our own errors: whose fault it is, and a sentence that helps."""

from __future__ import annotations

from OpenSSL import SSL

from p2p.errors import AuthenticationFailed, NegotiationFailed, RemoteProtocolError

# OpenSSL's reasons, by fragments of their texts: which ones it uses changes with its versions.
_ALERT = " alert "  # the peer sent it; what comes behind names it
_PROOF = ("certificate", "unknown ca", "access denied", "decrypt error", "bad record mac", "bad signature")
_NOTHING_IN_COMMON = (
    *("protocol version", "unsupported protocol", "version too low", "no application protocol"),
    *("handshake failure", "no shared cipher", "no suitable key share", "no suitable groups"),
    *("insufficient security", "no suitable signature algorithm", "missing supported groups"),
)


def reason_of(error: SSL.Error) -> str:
    """OpenSSL's own words: "tlsv13 alert certificate required"."""
    queue = error.args[0] if error.args and isinstance(error.args[0], list) else []
    return "; ".join(entry[-1] for entry in queue) or str(error) or type(error).__name__


def handshake_failure(error: SSL.Error) -> RemoteProtocolError | NegotiationFailed:
    """The error for a handshake that OpenSSL, or the peer by an alert, gave up."""
    reason = reason_of(error)
    who = "the peer refused the TLS handshake" if _ALERT in reason else "the TLS handshake failed"
    if any(part in reason for part in _NOTHING_IN_COMMON):
        return NegotiationFailed(f"{who}: {reason}")
    if any(part in reason for part in _PROOF):
        return AuthenticationFailed(f"{who}: {reason}")
    return RemoteProtocolError(f"{who}: {reason}")


def receive_failure(error: SSL.Error, *, first: bool) -> RemoteProtocolError:
    """The error for a record that could not be taken, or an alert; `first`: nothing was received before.

    A client of TLS 1.3 is done before the server has looked at its certificate, so a refusal arrives
    as the first thing behind the handshake.
    """
    reason = reason_of(error)
    if _ALERT in reason and first:
        return AuthenticationFailed(f"the peer refused us at the end of the TLS handshake: {reason}")
    if _ALERT in reason:
        return RemoteProtocolError(f"the peer gave the connection up: {reason}")
    if any(part in reason for part in _PROOF):
        return AuthenticationFailed(f"a TLS record failed authentication: {reason}")
    return RemoteProtocolError(f"the peer broke the rules of TLS: {reason}")
