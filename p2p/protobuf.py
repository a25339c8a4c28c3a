"""Protobuf messages of others: what does not decode is their fault."""

from __future__ import annotations

from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from p2p.errors import RemoteProtocolError

AnyMessage = TypeVar("AnyMessage", bound=Message)


def parse(kind: type[AnyMessage], data: bytes, complaint: str) -> AnyMessage:
    """The message of this `kind` in `data`; unknown fields are skipped.

    Raises `RemoteProtocolError` with the `complaint`.
    """
    message = kind()
    try:
        message.ParseFromString(data)
    except DecodeError as exc:
        raise RemoteProtocolError(complaint) from exc
    return message
