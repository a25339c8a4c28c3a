from __future__ import annotations

from dataclasses import dataclass

import pytest

from p2p.errors import AuthenticationFailed, ConnectionLost, MessageTooLarge, RemoteProtocolError
from p2p.framing import encode_delimited
from p2p.identify import PeerInfo, receive_info
from p2p.identify.wire import MAX_MESSAGE, MAX_MESSAGES, encode
from p2p.peer_id import PeerId
from tests.support import key_number

PEER = PeerId.from_public_key(key_number(1).public)


@dataclass
class Answer:
    """A stream on which the peer has sent `data` and closed its side."""

    data: bytes
    peer: PeerId = PEER

    async def receive_some(self, max_bytes=None):
        data, self.data = self.data[:max_bytes], self.data[len(self.data[:max_bytes]) :]
        return data


def delimited(info: PeerInfo) -> bytes:
    return b"".join(map(encode_delimited, encode(info)))


async def test_messages_until_the_end_are_one_answer():
    one = delimited(PeerInfo(public_key=key_number(1).public, protocols=("/a",)))
    two = delimited(PeerInfo(protocols=("/b",)))
    info = await receive_info(Answer(one + two))
    assert info.protocols == ("/a", "/b")


async def test_the_key_of_another_peer_is_refused():
    message = delimited(PeerInfo(public_key=key_number(2).public))
    with pytest.raises(AuthenticationFailed):
        await receive_info(Answer(message))


async def test_more_messages_than_anybody_needs_are_refused():
    with pytest.raises(RemoteProtocolError, match="messages"):
        await receive_info(Answer(encode_delimited(b"") * (MAX_MESSAGES + 1)))


async def test_an_oversized_message_is_refused_before_it_is_read():
    with pytest.raises(MessageTooLarge):
        await receive_info(Answer(encode_delimited(b"x" * (MAX_MESSAGE + 1))[:10]))


async def test_an_answer_cut_in_the_middle_is_lost():
    with pytest.raises(ConnectionLost):
        await receive_info(Answer(delimited(PeerInfo(agent="x"))[:-1]))
