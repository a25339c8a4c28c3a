"""Simplex' rules as others have published them, held against what our members wrote and said.

    paper   Chan and Pass, "Simplex Consensus: A Simple and Fast Consensus Protocol", 2023, section 2.1
            (iteration = view, dummy block = nullification; https://eprint.iacr.org/2023/463)
    spec    the Quint model beside Commonware's implementation, github.com/commonwarexyz/monorepo,
            consensus/quint/replica.qnt; the names in quotes are those of its invariants

One decision for each run is ours: where the published protocol extends a chain, a leader of ours proposes the
notarized block again. Each rule gives a line for each breach.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from federated.rounds.messages import Certificate, Choice, Proof, Propose, Vote


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A correct member published `body` (`said`), or wrote it into its journal, or decided on it."""

    at: float  # seconds
    member: int
    said: bool
    body: object


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """One run as its correct members went through it, in the order of time."""

    entries: tuple[Entry, ...]
    correct: frozenset[int]
    leader: Callable[[int], int]  # of a view
    quorum: int

    def members(self) -> Iterator[tuple[int, list[Entry]]]:
        """The entries of each correct member."""
        for member in sorted(self.correct):
            yield member, [entry for entry in self.entries if entry.member == member]


Rule = Callable[[Trace], list[str]]


def votes_once_and_in_order(trace: Trace) -> list[str]:
    """In a view: at most one vote to notarize, and behind it either one to nullify or one to finalize.

    Paper: "vote", "timeout" and "finalize"; spec: "no_vote_equivocation_inv".
    """
    breaches, cast = [], dict[tuple[int, int], list[Vote]]()
    for entry in trace.entries:
        if entry.said and isinstance(entry.body, Vote):
            votes = cast.setdefault((entry.member, entry.body.view), [])
            if entry.body not in votes:  # the same again is the same vote
                votes.append(entry.body)
    for (member, view), votes in cast.items():
        choices = [vote.choice for vote in votes]
        if choices[:1] == [Choice.NOTARIZE]:
            choices = choices[1:]
        if choices not in ([], [Choice.NULLIFY], [Choice.FINALIZE]):
            breaches.append(f"member {member} voted {[vote.choice.name for vote in votes]} in view {view}")
    return breaches


def finalizes_what_is_notarized(trace: Trace) -> list[str]:
    """Nobody votes to finalize a block before it has seen a quorum notarize it in that view.

    Paper: "finalize"; spec: "finalize_vote_requires_notarization_cert".
    """
    breaches = []
    for member, entries in trace.members():
        known = set()
        for entry in entries:
            match entry.body:
                case Proof(view=view, choice=Choice.NOTARIZE, block=block):
                    known.add((view, block))
                case Vote(view=view, choice=Choice.FINALIZE, block=block) if (view, block) not in known:
                    breaches.append(f"member {member} finalized what it did not see notarized in view {view}")
    return breaches


def enters_a_view_behind_the_last(trace: Trace) -> list[str]:
    """Who votes in a view knows a notarized one before it, and that all in between were nullified.

    Paper: an iteration begins with a notarized chain of all before; spec: "valid_parent".
    """
    breaches = []
    for member, entries in trace.members():
        nullified, parent = set[int](), 0
        for entry in entries:
            match entry.body:
                case Proof(view=view, choice=Choice.NOTARIZE):
                    parent = max(parent, view)
                case Proof(view=view, choice=Choice.NULLIFY):
                    nullified.add(view)
                case Vote(view=view) if not entry.said:
                    gaps = [before for before in range(parent + 1, view) if before not in nullified]
                    if gaps:
                        breaches.append(f"member {member} voted in view {view} with no way through {gaps}")
    return breaches


def never_goes_back(trace: Trace) -> list[str]:
    """New votes are for the same view as the vote before, or for a later one. Paper: iterations go up."""
    breaches = []
    for member, entries in trace.members():
        views = [entry.body.view for entry in entries if isinstance(entry.body, Vote) and not entry.said]
        if views != sorted(views):
            breaches.append(f"member {member} voted in the views {views}")
    return breaches


def proposes_once(trace: Trace) -> list[str]:
    """A correct leader proposes one block in its view. Spec: "no_proposal_equivocation"."""
    breaches, proposed = [], dict[int, bytes]()
    for entry in trace.entries:
        body = entry.body
        if not (entry.said and isinstance(body, Propose) and trace.leader(body.view) == entry.member):
            continue  # others hand proposals on
        if proposed.setdefault(body.view, body.block.hash) != body.block.hash:
            breaches.append(f"member {entry.member} proposed two blocks in view {body.view}")
    return breaches


def votes_for_the_parents_block(trace: Trace) -> list[str]:
    """A vote to notarize is for the block of the highest notarized view that the member knows, if any.

    Paper: the proposal extends a notarized chain that the voter has seen; spec: "valid_parent".
    """
    breaches = []
    for member, entries in trace.members():
        parent: Proof | None = None
        for entry in entries:
            body = entry.body
            if isinstance(body, Proof) and body.choice is Choice.NOTARIZE and not entry.said:
                parent = body if parent is None or body.view > parent.view else parent
            elif isinstance(body, Vote) and body.choice is Choice.NOTARIZE and not entry.said:
                known = parent is not None and parent.view < body.view
                if known and parent is not None and parent.block != body.block:
                    breaches.append(f"member {member} voted for another block in view {body.view}")
    return breaches


def notarizes_one_block_a_view(trace: Trace) -> list[str]:
    """No view has two notarized blocks. Spec: "unique_notarized_or_finalized_block_per_view"."""
    breaches, known = [], dict[int, bytes]()
    for entry in trace.entries:
        found: tuple[int, bytes] | None = None
        match entry.body:
            case Proof(view=view, choice=Choice.NOTARIZE, block=block):
                found = (view, block)
            case Certificate(view=view, block=decided):
                found = (view, decided.hash)
        if found is not None and known.setdefault(*found) != found[1]:
            breaches.append(f"two blocks in view {found[0]}")
    return breaches


def nullifies_or_finalizes_a_view(trace: Trace) -> list[str]:
    """No view is both. Paper: lemma on finalized iterations;

    spec: "no_nullification_and_finalization_in_the_same_view".
    """
    nullified = {
        entry.body.view
        for entry in trace.entries
        if isinstance(entry.body, Proof) and entry.body.choice is Choice.NULLIFY
    }
    finalized = {entry.body.view for entry in trace.entries if isinstance(entry.body, Certificate)}
    return [f"view {view} is nullified and finalized" for view in sorted(nullified & finalized)]


def agrees(trace: Trace) -> list[str]:
    """All that is finalized is one block. Paper: consistency; spec: "agreement" and "validity"."""
    blocks = {entry.body.block.hash for entry in trace.entries if isinstance(entry.body, Certificate)}
    return [f"{len(blocks)} blocks are finalized"] if len(blocks) > 1 else []


def proves_with_votes_that_were_cast(trace: Trace) -> list[str]:
    """The correct members in a proof or certificate did vote so, and there are enough voters.

    Spec: "certificates_require_sent_votes", "certificates_are_valid".
    """
    breaches, cast = [], set[tuple[int, int, Choice, bytes]]()
    for entry in trace.entries:
        match entry.body:
            case Vote(view=view, choice=choice, block=block) if entry.said:
                cast.add((entry.member, view, choice, block))
                continue
            case Proof(view=view, choice=choice, block=block, votes=votes):
                pass
            case Certificate(view=view, block=decided, votes=votes):
                choice, block = Choice.FINALIZE, decided.hash
            case _:
                continue
        voters = {number for number, _ in votes}
        silent = [n for n in sorted(voters & trace.correct) if (n, view, choice, block) not in cast]
        if len(voters) < trace.quorum or silent:
            breaches.append(f"a proof to {choice.name} view {view} by {sorted(voters)}, silent: {silent}")
    return breaches


def writes_before_it_speaks(trace: Trace) -> list[str]:
    """A vote is in the journal before anybody else hears of it.

    Neither paper nor spec has crashes; Commonware's `simplex` documentation, "Persistence", has the rule.
    """
    breaches = []
    for member, entries in trace.members():
        written = set()
        for entry in entries:
            if isinstance(entry.body, Vote):
                if not entry.said:
                    written.add(entry.body)
                elif entry.body not in written:
                    breaches.append(f"member {member} said a vote in view {entry.body.view} unwritten")
    return breaches


RULES: tuple[Rule, ...] = (
    votes_once_and_in_order,
    finalizes_what_is_notarized,
    enters_a_view_behind_the_last,
    never_goes_back,
    proposes_once,
    votes_for_the_parents_block,
    notarizes_one_block_a_view,
    nullifies_or_finalizes_a_view,
    agrees,
    proves_with_votes_that_were_cast,
    writes_before_it_speaks,
)


def breaches(trace: Trace) -> list[str]:
    """All that a trace has against all rules."""
    return [f"{rule.__name__}: {line}" for rule in RULES for line in rule(trace)]
