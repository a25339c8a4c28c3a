"""What is known in a round of the rounds of its step before it, and what the updates in it may be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from federated.rounds.events import Inputs
from federated.sums.documents import (
    ATTEST,
    DEAL,
    OPEN,
    Attestation,
    Dealing,
    Document,
    Opening,
    check_empty,
    decode_attestation,
    decode_dealing,
    decode_opening,
    head,
)
from federated.sums.sets import Sums
from federated.sums.steps import Opened, Step, Terms, open_sums, step_of
from p2p.peer_id import PeerId


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """What the certified blocks before a round of a step come to.

    Without `terms` there are too few holders, or nothing was dealt. `block` is the hash of what certifies the
    dealings, and `sums` what is to be opened.
    """

    terms: Terms | None = None
    block: bytes = b""
    dealers: tuple[PeerId, ...] = ()
    dealings: tuple[Dealing, ...] = ()
    sums: Sums | None = None

    def read(self, number: int, author: PeerId, data: bytes) -> Document:
        """The document that is the update of `author` in this round. Raises `CodecError`.

        Who has nothing to say may say that, but for a dealer.
        """
        terms, sums = self.terms, self.sums
        place = None if terms is None else terms.holders.place(author)
        match step_of(number):
            case Step.DEAL if terms is not None:
                return decode_dealing(data, number, author, len(terms.holders.peers))
            case Step.DEAL:
                check_empty(data, DEAL, number, author)
                return Dealing()
            case Step.ATTEST if place is not None and data != head(ATTEST, number, author):
                return decode_attestation(data, number, author, len(self.dealers))
            case Step.ATTEST:
                check_empty(data, ATTEST, number, author)
                return Attestation()
            case _ if terms and sums and place in sums.openers and data != head(OPEN, number, author):
                return decode_opening(data, number, author, len(sums.groups), terms.grid.size)
            case _:
                check_empty(data, OPEN, number, author)
                return Opening()

    def open(self, inputs: Inputs, documents: Mapping[bytes, Document]) -> Opened:
        """What the openings among `inputs` come to; their `documents` are by root."""
        openings = {}
        if self.terms is None or self.sums is None:
            return Opened((), ())
        for item in inputs:
            document, place = documents[item.root], self.terms.holders.place(item.peer)
            if isinstance(document, Opening) and document.sums and place is not None:
                openings[place] = document
        return open_sums(self.terms, self.sums, openings)

    def report(self) -> dict[str, Any]:
        """How many there are of everything, ready for JSON."""
        if self.terms is None:
            return {}
        told: dict[str, Any] = {"holders": len(self.terms.holders.peers)}
        if self.dealings:
            told["dealings"] = len(self.dealings)
        if self.sums is not None:
            told |= {"summed": self.sums.count, "groups": len(self.sums.groups)}
            counted = [number for group in self.sums.groups for number in group]
            told["left_out"] = [str(peer) for at, peer in enumerate(self.dealers) if at not in counted]
        return told
