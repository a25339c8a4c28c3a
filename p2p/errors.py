"""Every error the overlay raises, by whose fault it is and so what to do about it.

`LocalProtocolError`: we misused an API, fix the caller. `RemoteProtocolError`: the peer broke the
rules, drop it. `ConnectionLost`: nobody's fault, retry. `NegotiationFailed`: the two sides have
nothing in common, give up. What a person typed is `InvalidInput`: say what to change.
"""


class P2PError(Exception):
    """Root of every error that the overlay raises."""


class InvalidInput(P2PError, ValueError):
    """Something a person or a caller wrote is not usable; the message says what to change."""


class InvalidAddress(InvalidInput):
    """A multiaddr that is malformed, or of a kind that we cannot use here."""


class InvalidKey(InvalidInput):
    """A key or peer id that cannot be decoded, or of a type that is not supported."""


class AddressInUse(P2PError):
    """The listening address is taken or may not be bound."""


class LocalProtocolError(P2PError):
    """Our own misuse of a protocol: writing after close, a message over the limit."""


class RemoteProtocolError(P2PError):
    """The peer broke the rules; whoever owns the connection closes it."""


class MessageTooLarge(RemoteProtocolError):
    """The peer announced a message over the protocol's cap; nothing was allocated for it."""

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(f"message of {size} bytes is over the limit of {limit}")
        self.size = size
        self.limit = limit


class AuthenticationFailed(RemoteProtocolError):
    """The peer is not who it must be: wrong id, wrong signature, failed decryption."""


class NegotiationFailed(P2PError):
    """No protocol in common."""


class ConnectionLost(P2PError):
    """The connection or stream ended before the operation did."""


class StreamReset(ConnectionLost):
    """The stream was reset; `code` is the peer's stream error code, 0 when it gave none."""

    def __init__(self, message: str = "stream reset", code: int = 0) -> None:
        super().__init__(message)
        self.code = code


class DialFailed(P2PError):
    """No address of the peer led to a connection; `reasons` has one line for each address tried."""

    def __init__(self, peer: object, reasons: list[str]) -> None:
        super().__init__(f"cannot reach {peer}: {'; '.join(reasons) or 'no known address'}")
        self.reasons = reasons
