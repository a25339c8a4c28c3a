"""Routers of members that break a rule of the agreement; what they pass on of others is as it was.

They sign with their own keys and draw nothing at random. Liars that are told what to do by one mind, with
all messages before its eyes, are in tests/search; who votes twice is in `federated.equivocation`.
"""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256

from federated.equivocation import Equivocator, message_in
from federated.rounds.messages import Body, Proof, Propose, Vote
from p2p.gossipsub.events import Published
from p2p.gossipsub.router import Router


class FalseLeader(Equivocator):
    """Proposes, to one half, a model that nobody made, as if the view before had been notarized."""

    def _counterpart(self, body: Body, task: bytes) -> Body | None:
        if not isinstance(body, Propose):
            return None
        model = replace(body.block.model, digest=sha256(body.block.model.digest).digest())
        return replace(body, block=replace(body.block, model=model), parent=body.view - 1)


class Abstainer(Router):
    """Never votes, never leads, and helps nobody with a proof; trains like everybody."""

    def _publish(self, topic: str, data: bytes, now: float) -> None:
        message = message_in(data)
        if message is not None and isinstance(message.body, Propose | Vote | Proof):
            self._actions.append(Published(id=sha256(data).digest()))  # as if it had been
        else:
            super()._publish(topic, data, now)
