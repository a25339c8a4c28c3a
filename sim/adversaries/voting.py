"""Routers of members that break a rule of the agreement; what they pass on of others is as it was.

They sign with their own keys and draw nothing at random. Liars that are told what to do by one mind, with
all messages before its eyes, are in tests/search.
Source: Yin et al., "HotStuff", 2019, and Bano et al., "Twins: BFT Systems Made Robust", 2021: equivocation.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from hashlib import sha256

from federated.rounds.messages import (
    NO_BLOCK,
    Body,
    Choice,
    Message,
    MessageError,
    Proof,
    Propose,
    Vote,
    vote_bytes,
)
from federated.rounds.wire import decode, encode
from p2p.gossipsub.events import Published
from p2p.gossipsub.router import Router
from p2p.gossipsub.wire import Rpc
from p2p.peer_id import PeerId

APART = 1 << 40  # between the sequence numbers of a message and its counterpart; a task has fewer messages


def _decoded(data: bytes) -> Message | None:
    """The message of a task, if it is one."""
    try:
        return decode(data)
    except MessageError:
        return None


class _TwoTongued(Router):
    """Of some messages every second neighbour gets another one, its counterpart."""

    _half: int | None = None  # which neighbours get what is being published; None: all

    def _counterpart(self, body: Body, task: bytes) -> Body | None:
        """What the other half is told; None when all are told the same."""
        raise NotImplementedError

    def _publish(self, topic: str, data: bytes, now: float) -> None:
        message = _decoded(data)
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


class TwoFaced(_TwoTongued):
    """Votes twice: with each vote it casts a second one that excludes it."""

    def _counterpart(self, body: Body, task: bytes) -> Body | None:
        if not isinstance(body, Vote):
            return None
        match body.choice:
            case Choice.NOTARIZE:
                choice, block = Choice.NOTARIZE, sha256(body.block).digest()
            case Choice.NULLIFY:
                choice, block = Choice.FINALIZE, sha256(body.signature).digest()
            case Choice.FINALIZE:
                choice, block = Choice.NULLIFY, NO_BLOCK
        signature = self._key.sign(vote_bytes(task, body.round, body.view, choice, block))
        return replace(body, choice=choice, block=block, signature=signature)


class FalseLeader(_TwoTongued):
    """Proposes, to one half, a model that nobody made, as if the view before had been notarized."""

    def _counterpart(self, body: Body, task: bytes) -> Body | None:
        if not isinstance(body, Propose):
            return None
        model = replace(body.block.model, digest=sha256(body.block.model.digest).digest())
        return replace(body, block=replace(body.block, model=model), parent=body.view - 1)


class Abstainer(Router):
    """Never votes, never leads, and helps nobody with a proof; trains like everybody."""

    def _publish(self, topic: str, data: bytes, now: float) -> None:
        message = _decoded(data)
        if message is not None and isinstance(message.body, Propose | Vote | Proof):
            self._actions.append(Published(id=sha256(data).digest()))  # as if it had been
        else:
            super()._publish(topic, data, now)
