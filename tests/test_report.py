from __future__ import annotations

import io
import json

import pytest

from p2p.report import Reporter, describe

ROUND = {
    "event": "round",
    "round": 3,
    "digest": "ab" * 32,
    "skipped": False,
    "participants": ["a", "b"],
    "accuracy": 0.5,
    "seconds": 1.25,
}


def test_json_is_one_object_a_line():
    out = io.StringIO()
    report = Reporter(out, as_json=True)
    report({"event": "message", "data": "a\nb", "topic": "ü"})
    report({"event": "closed"})
    first, second = out.getvalue().splitlines()
    assert json.loads(first) == {"event": "message", "data": "a\nb", "topic": "ü"}
    assert json.loads(second) == {"event": "closed"}


def test_people_get_sentences():
    assert (
        describe({"event": "listening", "peer_id": "x", "addrs": ["/a", "/b"]})
        == "listening on /a\nlistening on /b"
    )
    connected = {"event": "connected", "peer": "x", "addr": "/a", "outbound": True}
    assert describe(connected) == "connected to x (dialed /a)"
    assert describe({**connected, "outbound": False}) == "connected to x (accepted /a)"
    assert describe({"event": "disconnected", "peer": "x"}) == "disconnected from x"
    assert describe({"event": "message", "topic": "t", "from": "x", "data": "aGk="}) == "t x: hi"
    assert describe({"event": "message", "topic": "t", "from": "x", "data": "/w=="}) == "t x: \\xff"
    assert describe({"event": "closed"}) == "closed"
    assert describe({"event": "task", "name": "digits", "state": "joined"}) == "task digits: joined"
    refused = {"event": "task", "name": "digits", "state": "refused", "reason": "no data"}
    assert describe(refused) == "task digits: refused (no data)"
    assert describe({"event": "new", "since": 1}) == "new since=1"


def test_people_are_spared_the_phases_of_a_round():
    out = io.StringIO()
    for name in ("phase", "proposal", "vote", "quorum", "certificate", "catch_up"):
        Reporter(out, as_json=False)({"event": name, "round": 1})
    assert out.getvalue() == ""


@pytest.mark.parametrize(
    ("event", "sentence"),
    [
        ({"event": "membership", "change": "join"}, "x joined"),
        ({"event": "membership", "change": "leave"}, "x left"),
        ({"event": "membership", "change": "eject"}, "x is ejected"),
        ({"event": "evidence", "view": 2}, "x voted twice in view 2"),
        ({"event": "offence", "rule": "size"}, "x broke the rule size"),
        ({"event": "mismatch"}, "x has another model"),
        (
            {"event": "objection", "before": 0.5, "after": 1.25},
            "no vote for the model, its loss here is 1.2500, not 0.5000",
        ),
        (
            {"event": "objection", "before": 0.5, "after": None},
            "no vote for the model, its loss here is no number, not 0.5000",
        ),
    ],
)
def test_what_a_member_does_is_a_sentence(event, sentence):
    assert describe({**event, "round": 3, "peer": "x"}) == f"round 3: {sentence}"


def test_a_round_says_what_came_of_it():
    assert describe(ROUND) == "round 3: model abababababababab from 2 peers, accuracy 0.5000 in 1.25 s"
    skipped = {**ROUND, "skipped": True, "participants": [], "accuracy": None}
    assert describe(skipped) == "round 3: skipped from 0 peers in 1.25 s"
    summed = ROUND | {"sums": {"result": "attested"}}
    assert describe(summed).startswith("round 3: attested, model abababababababab from 2 peers")


def test_a_human_reader_sees_each_event_at_once():
    out = io.StringIO()
    Reporter(out, as_json=False)({"event": "closed"})
    assert out.getvalue() == "closed\n"


def test_a_reader_that_is_gone_is_an_error_once():
    class Broken(io.StringIO):
        def flush(self):
            raise BrokenPipeError

    report = Reporter(Broken(), as_json=True)
    with pytest.raises(BrokenPipeError):
        report({"event": "closed"})
    report({"event": "closed"})
