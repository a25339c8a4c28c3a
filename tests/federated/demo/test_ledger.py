from __future__ import annotations

from pathlib import Path

from federated.demo.ledger import Kill, Ledger
from federated.demo.results import DemoTask, is_complete, results_of
from federated.equivocation import other_vote
from federated.reports import evidence_report
from federated.rounds.changes import evidence_of
from federated.rounds.messages import Choice, Vote, vote_bytes
from tests.gossipsub.support import peer_number
from tests.support import key_number


def event(number, digest="aa", **changes):
    return {
        "event": "round",
        "round": number,
        "digest": digest,
        "skipped": False,
        "participants": ["a", "b"],
        "accuracy": 0.5 + number / 100,
        "seconds": 1.0,
        "phases": {"train": 0.5, "vote": 0.75},
        "bytes_sent": 100 * number,
        "catch_up": False,
        **changes,
    }


def test_models_agree_when_every_round_has_one_digest():
    ledger = Ledger(2)
    for peer in "ab":
        for number in (1, 2):
            ledger.add_round(peer, 0, event(number, digest=f"d{number}"))
    assert ledger.digests_agree
    assert (ledger.last_round, ledger.accuracy, ledger.slowest_phase) == (2, 0.52, "vote")
    ledger.add_round("c", 0, event(2, digest="other"))
    assert not ledger.digests_agree


def test_a_missing_round_is_no_agreement():
    ledger = Ledger(2)
    ledger.add_round("a", 0, event(2))
    assert not ledger.digests_agree
    assert Ledger(1).accuracy is None
    assert Ledger(1).slowest_phase == ""
    assert Ledger(1).last_round == 0


def test_bytes_of_an_earlier_life_still_count():
    ledger = Ledger(3)
    ledger.add_round("a", 0, event(2))
    ledger.add_round("a", 1, event(3, bytes_sent=7))
    ledger.add_round("b", 0, event(3))
    assert ledger.bytes_sent == 200 + 7 + 300
    assert ledger.rounds[3].bytes_sent == ledger.bytes_sent


def test_a_killed_peer_is_back_when_others_use_its_update():
    ledger = Ledger(9)
    ledger.kills.append(Kill(peer="c", round=3))
    ledger.add_round("a", 0, event(3, participants=["a", "b", "c"]))
    assert ledger.kills[0].back_in_round is None
    ledger.add_round("a", 0, event(4))
    ledger.add_round("a", 0, event(5, participants=["a", "c"]))
    ledger.add_round("a", 0, event(6, participants=["a", "c"]))
    assert ledger.kills[0].back_in_round == 5


def test_a_round_that_was_caught_up_tells_its_model_but_no_times():
    ledger = Ledger(1)
    ledger.add_round("a", 0, event(1, catch_up=True, accuracy=None, participants=[], phases={}))
    record = ledger.rounds[1]
    assert (record.seconds, record.phases, record.participants, record.slowest_phase) == (0.0, {}, [], "")
    ledger.add_round("b", 0, event(1, participants=[]))
    assert record.agreed
    assert record.slowest_phase == "vote"


TASK = bytes(32)
LIAR = str(peer_number(1))


def certificate(number, block="b1", **changes):
    return {"event": "certificate", "round": number, "block": block, "view": 1, "votes": 4, **changes}


def evidence(task=TASK, signer=1):
    """Two votes of member 1, signed by `signer`."""
    key = key_number(signer)
    signature = key.sign(vote_bytes(task, 1, 1, Choice.FINALIZE, b"b" * 32))
    vote = Vote(round=1, view=1, choice=Choice.FINALIZE, block=b"b" * 32, signature=signature)
    return evidence_report(evidence_of(peer_number(1), vote, other_vote(key, task, vote)))


def ejection(proof, peer=LIAR, change="eject"):
    return {"event": "membership", "round": 2, "change": change, "peer": peer, "proof": proof}


def test_a_round_is_certified_when_all_have_the_same_block():
    ledger = Ledger(2)
    for peer in "ab":
        ledger.add_certificate(peer, certificate(1))
        ledger.add_round(peer, 0, event(1))
    assert (ledger.certified, ledger.rounds[1].view, ledger.rounds[1].votes) == (1, 1, 4)
    ledger.add_certificate("a", certificate(2))
    assert (ledger.certified, ledger.last_round) == (2, 1)  # a certificate is no model yet
    ledger.add_certificate("b", certificate(2, "other", view=3))
    assert ledger.certified == 1


def test_evidence_proves_an_ejection_in_any_order():
    told = evidence()
    before, after = Ledger(2, TASK), Ledger(2, TASK)
    before.add_evidence(told)
    assert before.add_change(ejection(told["proof"])) is before.ejections[LIAR]
    assert before.add_change(ejection(told["proof"])) is None
    assert before.add_change(ejection("", peer="other", change="join")) is None
    after.add_change(ejection(told["proof"]))
    assert not after.ejections[LIAR].proven
    after.add_evidence(told)
    for ledger in (before, after):
        found = ledger.ejections[LIAR]
        assert (found.round, found.proven, found.evidence) == (2, True, told["evidence"])
        assert [vote["choice"] for vote in found.votes] == ["nullify", "finalize"]


def test_evidence_that_is_false_proves_nothing():
    for told in (evidence(task=b"t" * 32), evidence(signer=2), {**evidence(), "evidence": "00"}):
        ledger = Ledger(2, TASK)
        ledger.add_evidence(told)
        ledger.add_change(ejection(told["proof"]))
        assert not ledger.ejections[LIAR].proven
    ledger = Ledger(2, TASK)
    told = evidence()
    ledger.add_evidence(told)
    ledger.add_change(ejection(told["proof"], peer="another"))
    assert not ledger.ejections["another"].proven


def results(*ledgers, liars=(LIAR,)):
    tasks = [
        DemoTask(trainer="numpy", name="digits", path=Path("x"), ledger=ledger, centralised=0.9)
        for ledger in ledgers
    ]
    return {"settings": {"rounds": 1, "peers": 4}, **results_of(tasks, liars)}


def whole(digest="aa", liar=True):
    """A ledger in which everything held."""
    ledger = Ledger(1, TASK)
    for peer in "ab":
        ledger.add_certificate(peer, certificate(1))
        ledger.add_round(peer, 0, event(1, digest))
    if liar:
        told = evidence()
        ledger.add_evidence(told)
        ledger.add_change(ejection(told["proof"]))
    return ledger


def test_all_held_when_rounds_are_certified_models_agree_and_the_liars_are_out():
    assert is_complete(results(whole()))
    assert is_complete(results(whole(liar=False), liars=()))
    assert not is_complete(results(whole(liar=False)))
    assert not is_complete(results(whole(), liars=()))  # an honest one was ejected
    split = whole()
    split.add_round("c", 0, event(1, "other"))
    assert not is_complete(results(split))
    conflicting = whole()
    conflicting.add_certificate("c", certificate(1, "other"))
    assert not is_complete(results(conflicting))


def test_of_two_tasks_the_figures_are_those_of_the_worse():
    good, bad = whole(), whole()
    bad.add_round("c", 0, event(1, "other", accuracy=0.25))
    found = results(good, bad)
    assert (found["accuracy"], found["digests_agree"], found["certified"]) == (0.25, False, 1)
    assert [task["accuracy"] for task in found["tasks"]] == [0.51, 0.25]
