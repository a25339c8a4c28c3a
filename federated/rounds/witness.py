"""Who broke its word: looks at all votes of a round and the one before it for two that exclude each other.

Votes come from their voters and, as signatures by number, in the proofs and certificates of others; so
somebody who tells one half of the members this and the other half that is found as soon as the halves
talk. The first vote of each kind is remembered unchecked, which costs nothing while all is well. When
another one does not go with it, both signatures are verified, and a false one is forgotten.
"""

from __future__ import annotations

from federated.rounds.changes import evidence_of, excludes
from federated.rounds.committee import Panel, Verify
from federated.rounds.messages import (
    Certificate,
    Choice,
    Evidence,
    Proof,
    Vote,
    vote_bytes,
)

WATCHED_VIEWS = 64  # of a round; bounds what is kept to three times as many votes of each voter

_RIVALS = {
    Choice.NOTARIZE: (Choice.NOTARIZE,),
    Choice.NULLIFY: (Choice.FINALIZE,),
    Choice.FINALIZE: (Choice.FINALIZE, Choice.NULLIFY),
}


class Witness:
    """What the voters of the current round and of the one before it said."""

    def __init__(self, task: bytes, verify: Verify) -> None:
        self._task = task
        self._verify = verify
        self._panels: dict[int, Panel] = {}  # by round
        self._votes: dict[int, dict[tuple[int, int, Choice], Vote]] = {}  # by round: voter, view, choice

    def turn(self, round_number: int, panel: Panel) -> None:
        """A round begins, in which `panel` votes."""
        for old in [number for number in self._panels if number < round_number - 1]:
            del self._panels[old], self._votes[old]
        self._panels[round_number] = panel
        self._votes[round_number] = {}

    def see(self, sender: int, body: Vote | Proof | Certificate) -> list[Evidence]:
        """What member number `sender` said; evidence, if that and what was said before come to any."""
        panel = self._panels.get(body.round)
        if panel is None or body.view > WATCHED_VIEWS:
            return []
        if isinstance(body, Vote):
            seat = panel.seat(sender)
            votes = [] if seat is None else [(seat, body)]
        else:
            votes = self._news_in(body)
        found = [self._compare(panel, seat, vote) for seat, vote in votes if seat < panel.committee.size]
        return [evidence for evidence in found if evidence is not None]

    def votes_of(self, member: int, round_number: int) -> list[Vote]:
        """The votes of member number `member` in a round that are remembered, in the order they came."""
        panel = self._panels.get(round_number)
        seat = None if panel is None else panel.seat(member)
        return [vote for (voter, _, _), vote in self._votes.get(round_number, {}).items() if voter == seat]

    def _compare(self, panel: Panel, seat: int, vote: Vote) -> Evidence | None:
        """Remembers the vote; evidence, when it and one that is remembered exclude each other."""
        known = self._votes[vote.round]
        same = known.get((seat, vote.view, vote.choice))
        if same is not None and same.block == vote.block:
            return None  # and so nothing that is remembered excludes it
        for choice in _RIVALS[vote.choice]:
            other = known.get((seat, vote.view, choice))
            if other is None or not excludes(vote, other):
                continue
            if not self._is_signed(panel, seat, vote):
                return None
            if self._is_signed(panel, seat, other):
                return evidence_of(panel.committee.members[seat], other, vote)
            del known[seat, vote.view, choice]
        known.setdefault((seat, vote.view, vote.choice), vote)
        return None

    def _news_in(self, body: Proof | Certificate) -> list[tuple[int, Vote]]:
        """The votes that make up a quorum, each with its voter, less those that are remembered."""
        if isinstance(body, Certificate):
            choice, block = Choice.FINALIZE, body.block.hash
        else:
            choice, block = body.choice, body.block
        number, view, known = body.round, body.view, self._votes[body.round]
        return [
            (voter, Vote(round=number, view=view, choice=choice, block=block, signature=signature))
            for voter, signature in body.votes
            if (same := known.get((voter, view, choice))) is None or same.block != block
        ]

    def _is_signed(self, panel: Panel, seat: int, vote: Vote) -> bool:
        data = vote_bytes(self._task, vote.round, vote.view, vote.choice, vote.block)
        return self._verify(panel.committee.members[seat], data, vote.signature)
