"""Routers of members that say two things: one half of their neighbours is told another message than the rest.

They are here to be caught, by the demo and in the simulator: signatures and all else are those of an honest
member. They draw nothing at random.
Source: Yin et al., "HotStuff", 2019, and Bano et al., "Twins: BFT Systems Made Robust", 2021: equivocation.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import replace
from hashlib import sha256

from federated.rounds.messages import NO_BLOCK, Body, Choice, Message, MessageError, Vote, vote_bytes
from federated.rounds.wire import decode, encode
from p2p.gossipsub.events import Published
from p2p.gossipsub.router import Router
from p2p.gossipsub.wire import Rpc
from p2p.keys import KeyPair
from p2p.peer_id import PeerId

APART = 1 << 40  # between the sequence numbers of a message and its counterpart; a task has fewer messages


def message_in(data: bytes) -> Message | None:
    """The message of a task, if `data` is one."""
    try:
        return decode(data)
    except MessageError:
        return None


def other_vote(key: KeyPair, task: bytes, vote: Vote) -> Vote:
    """A vote that no correct member casts beside `vote`, with a true signature."""
    match vote.choice:
        case Choice.NOTARIZE:
            choice, block = Choice.NOTARIZE, sha256(vote.block).digest()
        case Choice.NULLIFY:
            choice, block = Choice.FINALIZE, sha256(vote.signature).digest()
        case Choice.FINALIZE:
            choice, block = Choice.NULLIFY, NO_BLOCK
    signature = key.sign(vote_bytes(task, vote.round, vote.view, choice, block))
    return replace(vote, choice=choice, block=block, signature=signature)


class Equivocator(Router, ABC):
    """Of some messages every second neighbour gets another one, its counterpart."""

    _half: int | None = None  # which neighbours get what is being published; None: all

    @abstractmethod
    def _counterpart(self, body: Body, task: bytes) -> Body | None:
        """What the other half is told; None when all are told the same."""

    def _publish(self, topic: str, data: bytes, now: float) -> None:
        message = message_in(data)
        other = None if message is None else self._counterpart(message.body, message.task)
        if message is not None and other is not None:
            self._half = 1
            super()._publish(topic, encode(replace(message, seq=message.seq + APART, body=other)), now)
            # whoever published knows of one message
            self._actions = [action for action in self._actions if not isinstance(action, Published)]
            self._half = 0
        super()._publish(topic, data, now)
        self._half = None

    def _forward(self, rpc: Rpc, message_id: bytes, peers: Iterable[PeerId], now: float) -> None:
        if self._half is not None:
            peers = sorted(peers)[self._half :: 2]
        super()._forward(rpc, message_id, peers, now)


class TwoFaced(Equivocator):
    """Votes twice: with each vote it casts a second one that excludes it."""

    def _counterpart(self, body: Body, task: bytes) -> Body | None:
        return other_vote(self._key, task, body) if isinstance(body, Vote) else None
