"""Certified chains of a task, made by the members themselves: for whoever follows one."""

from __future__ import annotations

from hashlib import sha256, sha512

from federated.manifest import TaskManifest
from federated.rounds.chain import Head, genesis
from federated.rounds.committee import Electorate, Membership
from federated.rounds.messages import (
    Block,
    Certificate,
    Change,
    ChangeKind,
    Choice,
    Model,
    vote_bytes,
)
from p2p.peer_id import PeerId

INITIAL = sha256(b"initial").digest()  # the digest of the first model


def sign(peer: PeerId, data: bytes) -> bytes:
    """A stand-in for Ed25519 that is as easy to forge as to compute: nobody here forges."""
    return sha512(peer.raw + data).digest()


def verify(peer: PeerId, data: bytes, signature: bytes) -> bool:
    return sign(peer, data) == signature


class Chain:
    """The certificates of `manifest` so far; two chains with another `salt` are forks of each other."""

    def __init__(self, manifest: TaskManifest, salt: bytes = b"") -> None:
        self.manifest = manifest
        self.head: Head = genesis(Membership(manifest.task_id, manifest.peer_ids), INITIAL)
        self.certificates: list[Certificate] = []
        self._electorate = Electorate(manifest.committee, verify)
        self._salt = salt

    def extend(self, *changes: Change, rounds: int = 1) -> Certificate:
        """Certifies some more rounds; the last of them has `changes`. Its certificate."""
        for left in reversed(range(rounds)):
            self._add(() if left else changes)
        return self.certificates[-1]

    def make(self, *changes: Change, voters: int | None = None) -> Certificate:
        """The certificate of the next round, which is not added; by all voters or only by so many."""
        head, number = self.head, self.head.round + 1
        digest = sha256(head.model + self._salt).digest()
        block = Block(
            task=self.manifest.task_id,
            parent=head.block,
            round=number,
            base=head.model,
            inputs=digest,
            participants=1,
            examples=1,
            model=Model(digest=digest, root=digest, size=1),
            changes=changes,
        )
        committee = self._electorate.panel(number, head.model, head.membership, head.newest).committee
        data = vote_bytes(block.task, number, 1, Choice.FINALIZE, block.hash)
        votes = [(voter, sign(peer, data)) for voter, peer in enumerate(committee.members)]
        return Certificate(view=1, block=block, votes=tuple(votes[:voters]))

    def after(self, number: int, count: int) -> tuple[Certificate, ...]:
        """What a holder answers to who asks for `count` certificates from round `number` on."""
        return tuple(self.certificates[number - 1 : number - 1 + count])

    def _add(self, changes: tuple[Change, ...]) -> None:
        certificate = self.make(*changes)
        self.certificates.append(certificate)
        self.head = self.head.after(certificate)


def joining(peer: PeerId, proof: bytes = bytes(32)) -> Change:
    return Change(kind=ChangeKind.JOIN, peer=peer, proof=proof)


def leaving(peer: PeerId) -> Change:
    return Change(kind=ChangeKind.LEAVE, peer=peer, proof=bytes(32))
