"""Certificate chains that are truly signed, made without running a round."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from federated.manifest import TaskManifest
from federated.rounds.chain import Head, genesis
from federated.rounds.committee import Electorate, Membership
from federated.rounds.messages import (
    Block,
    Certificate,
    Change,
    Choice,
    Model,
    vote_bytes,
)
from p2p.keys import KeyPair
from p2p.peer_id import PeerId
from tests.support import key_number

KEYS = {PeerId.from_public_key(key_number(number).public): key_number(number) for number in range(1, 33)}


def model_of(data: bytes) -> Model:
    return Model(
        digest=hashlib.sha256(data).digest(), root=hashlib.sha256(b"root" + data).digest(), size=len(data)
    )


class Chain:
    """The certificates of a task, one after the other."""

    def __init__(self, manifest: TaskManifest, first: bytes = b"the first model") -> None:
        self.manifest = manifest
        self.electorate = Electorate(manifest.committee)
        self.head: Head = genesis(
            Membership(manifest.task_id, manifest.peer_ids), hashlib.sha256(first).digest()
        )
        self.certificates: list[Certificate] = []

    def voters(self) -> tuple[PeerId, ...]:
        """Who votes in the next round, in the order of their seats."""
        return self._committee().members

    def add(
        self, model: bytes, changes: Sequence[Change] = (), signers: int | None = None, view: int = 1
    ) -> Certificate:
        """The next round ends with `model`, signed by the first `signers` voters (a quorum)."""
        committee = self._committee()
        block = Block(
            task=self.manifest.task_id,
            parent=self.head.block,
            round=self.head.round + 1,
            base=self.head.model,
            inputs=bytes(32),
            participants=self.head.membership.active,
            examples=10,
            model=model_of(model),
            changes=tuple(changes),
        )
        data = vote_bytes(self.manifest.task_id, block.round, view, Choice.FINALIZE, block.hash)
        seats = range(committee.quorum if signers is None else signers)
        votes = tuple((seat, KEYS[committee.members[seat]].sign(data)) for seat in seats)
        certificate = Certificate(view=view, block=block, votes=votes)
        self.certificates.append(certificate)
        self.head = self.head.after(certificate)
        return certificate

    def _committee(self):
        return self.electorate.panel(
            self.head.round + 1, self.head.model, self.head.membership, self.head.newest
        ).committee


def key_of(peer: PeerId) -> KeyPair:
    return KEYS[peer]
