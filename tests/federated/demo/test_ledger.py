from __future__ import annotations

from federated.demo.ledger import Kill, Ledger


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
