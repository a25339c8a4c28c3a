"""Rules removed on purpose: `python -m tests.search.mutants`. Each must be found, the code as it is never.

A mutant that lives would say that a search is blind to its rule. Those of the agreement are looked for
with `tests.search.parliament`, those of whole rounds with `tests.search.assemblies`, those of frauds with
`tests.search.frauds`.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.search.assemblies import search_assembly
from tests.search.byzantine import Outcome, search_seed
from tests.search.frauds import search_fraud
from tests.search.planting import Edit, planted

WITHIN = 1000  # seeds
AGREEMENT = "federated.rounds.agreement"
BALLOTS = "federated.rounds.ballots"
COMMITTEE = "federated.rounds.committee"
FRAUD = "federated.rounds.fraud"
RECENT = "federated.rounds.recent"
MESSAGES = "federated.rounds.messages"
COLLECTION = "federated.rounds.collection"
OWN = "federated.rounds.own"
PHASES = "federated.rounds.phases"
VOTING = "federated.rounds.voting"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """Code without a rule; `said` are the rules that the search may say it breaks."""

    name: str
    edits: tuple[Edit, ...]
    said: tuple[str, ...]
    search: Callable[[int], Outcome] = search_seed


def _edit(module: str, good: str, bad: str) -> Edit:
    return Edit(module=module, good=good, bad=bad)


_WRITE = "self._actions.append(WriteJournal(entries=(vote,) if proposal is None else (proposal, vote)))"
_LEAVE = "if self._ballots.parent_view == self.view:\n                    "
_VOTES_AGAIN = _edit(
    AGREEMENT,
    "self._ballots.at(self.view).excludes(self._me, choice):",
    "self._ballots.at(self.view).has_voted(self._me, choice):",
)

MUTANTS = (
    Mutant(
        name="votes for each proposal of a view",
        edits=(
            _edit(
                BALLOTS,
                "if record.proposal is None:",
                "if record.proposal is None or not record.ballots[Choice.NOTARIZE].clear():",
            ),
        ),
        said=("one vote",),
    ),
    Mutant(
        name="finalizes after it nullified",
        edits=(
            _VOTES_AGAIN,
            _edit(
                AGREEMENT,
                "            if record.has_voted(self._me, Choice.NULLIFY):\n"
                "                return self._enter(self.view + 1, now)\n",
                "",
            ),
        ),
        said=("nullify or finalize", "agreement"),
    ),
    Mutant(
        name="nullifies after it finalized",
        edits=(
            _VOTES_AGAIN,
            _edit(AGREEMENT, "if self._ballots.parent_view == self.view:", "if self.view < 0:"),
        ),
        said=("nullify or finalize", "agreement"),
    ),
    Mutant(
        name="the journal is not restored",
        edits=(_edit(AGREEMENT, "        for entry in entries:\n", "        for entry in ():\n"),),
        said=("one vote", "nullify or finalize", "agreement", "no false charge"),
    ),
    Mutant(
        name="a vote is published before it is written",
        edits=(
            _edit(
                AGREEMENT,
                f"        {_WRITE}\n",
                "",
            ),
            _edit(
                AGREEMENT,
                "        self._actions.append(Publish(body=vote))\n",
                f"        self._actions.append(Publish(body=vote))\n        {_WRITE}\n",
            ),
        ),
        said=("journal first",),
    ),
    Mutant(
        name="a quorum is smaller",
        edits=(_edit(COMMITTEE, "(self.size + self.faults) // 2 + 1", "(self.size + self.faults) // 2"),),
        said=("agreement", "one block", "nullify or finalize", "true proofs"),
    ),
    Mutant(
        name="a member counts twice in a proof",
        edits=(_edit(COMMITTEE, "len(numbers) != len(votes) or ", ""),),
        said=("agreement", "one block", "nullify or finalize", "true proofs", "validity"),
    ),
    Mutant(
        name="anybody may lead",
        edits=(
            _edit(
                AGREEMENT,
                "if not is_kept or sender != self._committee.leader(self._round, self._base, proposal.view):",
                "if not is_kept:",
            ),
        ),
        said=("no false charge",),
    ),
    Mutant(
        name="a leader is charged with what others send",
        edits=(
            _edit(
                AGREEMENT,
                'Offence(member=sender, rule="equivocation"))\n        elif proposal',
                'Offence(member=self.leader, rule="equivocation"))\n        elif proposal',
            ),
        ),
        said=("no false charge",),
    ),
    Mutant(
        name="a block other than the notarized one gets votes",
        edits=(
            _edit(
                AGREEMENT,
                "if verdict is False or (parent is not None and parent.block != block):",
                "if verdict is False:",
            ),
        ),
        said=("agreement", "validity"),
    ),
    Mutant(
        name="the owner's check is not waited for",
        edits=(_edit(AGREEMENT, "if verdict or parent is not None:", "if True:"),),
        said=("validity",),
    ),
    Mutant(
        name="notarizations are not written",
        edits=(
            _edit(
                AGREEMENT,
                "self._actions.append(WriteJournal(entries=(proof,)))",
                "if proof.choice is Choice.NULLIFY: self._actions.append(WriteJournal(entries=(proof,)))",
            ),
        ),
        said=("agreement", "one block"),
    ),
    Mutant(
        name="votes are not bound to their round",
        edits=(
            _edit(
                MESSAGES,
                'struct.pack(">QQB", round_number, view, choice)',
                'struct.pack(">QQB", 0, view, choice)',
            ),
        ),
        said=("agreement", "one block", "nullify or finalize", "true proofs"),
    ),
    Mutant(
        name="votes are not bound to their view",
        edits=(
            _edit(
                MESSAGES,
                'struct.pack(">QQB", round_number, view, choice)',
                'struct.pack(">QQB", round_number, 0, choice)',
            ),
        ),
        said=("agreement", "one block", "nullify or finalize", "true proofs"),
    ),
    Mutant(
        name="a proof needs no signatures",
        edits=(
            _edit(
                COMMITTEE,
                "return self._accepts(data, proof.votes)",
                "return len(dict(proof.votes)) >= self.quorum",
            ),
        ),
        said=("agreement", "one block", "nullify or finalize", "validity", "true proofs"),
    ),
    Mutant(
        name="a vote needs no signature",
        edits=(
            _edit(
                COMMITTEE,
                "return self._verify(self.members[member], data, vote.signature)",
                "return True",
            ),
        ),
        said=("agreement", "one block", "true proofs", "nullify or finalize", "liveness", "no false charge"),
    ),
    Mutant(
        name="a late leader is never given up",
        edits=(
            _edit(
                AGREEMENT,
                "                else:\n                    self._vote(Choice.NULLIFY, NO_BLOCK, now)\n"
                "            if now",
                "            if now",
            ),
        ),
        said=("liveness",),
    ),
    Mutant(
        name="nothing is said again",
        edits=(_edit(AGREEMENT, "self._actions += [Publish(body=body) for body in bodies]", "pass"),),
        said=("liveness",),
    ),
    Mutant(
        name="a notarized view that is not decided is never left",
        edits=(
            _edit(
                AGREEMENT,
                f"{_LEAVE}self._enter(self.view + 1, now)\n",
                f"{_LEAVE}pass\n",
            ),
        ),
        said=("liveness",),
    ),
    Mutant(
        name="those in earlier views are not helped",
        edits=(_edit(AGREEMENT, "        if vote.view < self.view:\n", "        if vote.view < 0:\n"),),
        said=("liveness",),
    ),
    Mutant(
        name="a reveal is not held against its commitment",
        edits=(_edit(COLLECTION, "reveal) != member.commit:", "reveal) is None:"),),
        said=("cheats",),
        search=search_assembly,
    ),
    Mutant(
        name="a copied commitment is as good as one's own",
        edits=(_edit(MESSAGES, "sender = bytes([len(peer.raw)]) + peer.raw", 'sender = b""'),),
        said=("cheats",),
        search=search_assembly,
    ),
    Mutant(
        name="a commitment counts though others have revealed",
        edits=(_edit(COLLECTION, "        self._closed = True\n", "        pass\n"),),
        said=("cheats",),
        search=search_assembly,
    ),
    Mutant(
        name="a late update is proposed",
        edits=(_edit(COLLECTION, "self.revealed |= 0 if member.late else bit", "self.revealed |= bit"),),
        said=("cheats",),
        search=search_assembly,
    ),
    Mutant(
        name="a phase has no deadline",
        edits=(_edit(PHASES, "expired = now >= self._deadline and not self._held", "expired = False"),),
        said=("liveness",),
        search=search_assembly,
    ),
    Mutant(
        name="what counted once may count again as late",
        edits=(_edit(COLLECTION, "if self._bases[reveal.staleness].participants & bit:", "if False:"),),
        said=("cheats",),
        search=search_assembly,
    ),
    Mutant(
        name="the update of a member that committed itself twice is proposed",
        edits=(_edit(COLLECTION, "            self.equivocators |= 1 << number\n", ""),),
        said=("liveness",),
        search=search_assembly,
    ),
    Mutant(
        name="who is relieved never takes its duty up",
        edits=(_edit(PHASES, "            self._take_up_duty(now)\n", "            pass\n"),),
        said=("liveness",),
        search=search_assembly,
    ),
    Mutant(
        name="after a restart another update is revealed",
        edits=(
            _edit(
                OWN,
                "next((entry for entry in entries if isinstance(entry, Reveal)), None)",
                "None",
            ),
        ),
        said=("no false charge",),
        search=search_assembly,
    ),
    Mutant(
        name="who is reminded of a vote that it knows of votes no more",
        edits=(_edit(VOTING, " or self._agreement.has_cast(body.vote)", ""),),
        said=("liveness",),
        search=search_assembly,
    ),
    Mutant(
        name="votes to undo a block that it did not compute",
        edits=(
            _edit(
                FRAUD,
                "return None if verdict is None else verdict is Verdict.DIFFERS",
                "return True",
            ),
        ),
        said=("slander",),
        search=search_fraud,
    ),
    Mutant(
        name="a fraud in work that counts no more restores a model again",
        edits=(_edit(RECENT, "return round_number in self._lineage", "return bool(round_number)"),),
        said=("once", "liveness"),
        search=search_fraud,
    ),
    Mutant(
        name="nobody computes a block again",
        edits=(_edit(FRAUD, "if auditors(decided) >> self._me & 1:", "if auditors(decided) < 0:"),),
        said=("stands",),
        search=search_fraud,
    ),
)


def hunt(mutant: Mutant, seeds: int = WITHIN, first: int = 0) -> Outcome | None:
    """The first seed that finds the mutant."""
    with planted(mutant.edits):
        for seed in range(first, first + seeds):
            outcome = mutant.search(seed)
            if outcome.broken is not None and outcome.broken.split(":")[0] in mutant.said:
                return outcome
            assert outcome.broken is None, f"{mutant.name}: {outcome}"
    return None


def main(words: Sequence[str] | None = None) -> int:
    """The program; its exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.search.mutants", description=__doc__)
    parser.add_argument("--only", help="the mutants with these words in their names", default="")
    options = parser.parse_args(words)
    lived = 0
    for mutant in MUTANTS:
        if options.only not in mutant.name:
            continue
        started = time.perf_counter()
        found = hunt(mutant)
        seconds = time.perf_counter() - started
        what = "LIVES" if found is None else f"seed {found.seed}: {found.broken}"
        print(f"{mutant.name:55} {seconds:6.1f} s  {what}", flush=True)
        lived += found is None
    print(f"{lived} mutants live")
    return 1 if lived else 0


if __name__ == "__main__":
    sys.exit(main())
