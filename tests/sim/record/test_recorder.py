from __future__ import annotations

import io
import tracemalloc

import pytest

from sim.record import PubsubTrace, Recorder, figures_of, hash_of, judge, percentile, results_of
from sim.record.figures import hops_of, latencies_of
from sim.record.wire import decode_events
from sim.scenario.model import Adversary, Selection, TaskLoad
from tests.sim.record.support import TOPIC, Still, finish_round, look_up, recorder, rung

RING = {0: (1, 3), 1: (0, 2), 2: (1, 3), 3: (0, 2)}


def _rules(made: Recorder) -> list[tuple[str, int]]:
    return [(violation.rule, violation.node) for violation in made.violations.first]


def test_latency_runs_from_the_publication_and_hops_follow_the_senders() -> None:
    made = recorder()
    made.heap.now = 10.0
    made.published(0, TOPIC, b"id", 200)
    for node, sender, at in ((1, 0, 10.1), (2, 1, 10.25), (3, 2, 10.5)):
        made.heap.now = at
        made.delivered(node, TOPIC, b"id", 0, sender)
    assert latencies_of(made).tolist() == pytest.approx([0.1, 0.25, 0.5])
    assert hops_of(made).tolist() == [1, 2, 3]


def test_hops_are_unknown_behind_a_node_whose_application_never_had_the_message() -> None:
    made = recorder()
    made.published(0, TOPIC, b"id", 200)
    made.delivered(2, TOPIC, b"id", 0, 1)
    made.delivered(3, TOPIC, b"id", 0, 2)
    made.delivered(1, TOPIC, b"id", 0, -1)
    assert hops_of(made).tolist() == []
    assert len(latencies_of(made)) == 3


def test_own_messages_are_no_deliveries() -> None:
    made = recorder()
    made.published(0, TOPIC, b"id", 200)
    made.delivered(0, TOPIC, b"id", 0, 0)
    assert (made.ledger.deliveries, len(made.violations)) == (0, 0)


def test_a_second_delivery_to_one_process_is_a_violation() -> None:
    made = recorder()
    made.published(0, TOPIC, b"id", 200)
    for at in (1.0, 2.0, 3.0):
        made.heap.now = at
        made.delivered(1, TOPIC, b"id", 0, 0)
    assert _rules(made) == [("nobody gets a message twice", 1)] * 2
    assert made.violations.first[0].at == 2.0
    assert made.ledger.deliveries == 1


def test_a_restarted_process_may_get_a_message_again_but_only_once() -> None:
    made = recorder()
    made.published(0, TOPIC, b"id", 200)
    made.delivered(1, TOPIC, b"id", 0, 0)
    made.heap.now = 5.0
    made.crashed(1)
    made.started(1)
    made.heap.now = 5.5
    made.delivered(1, TOPIC, b"id", 0, 0)
    assert _rules(made) == []
    made.heap.now = 6.0
    made.delivered(1, TOPIC, b"id", 0, 0)
    assert _rules(made) == [("nobody gets a message twice", 1)]


def test_a_message_of_an_honest_node_that_it_did_not_publish_is_a_violation() -> None:
    made = recorder(honest=lambda node: node != 3)
    made.delivered(1, TOPIC, b"forged", 0, 3)
    made.delivered(1, TOPIC, b"unannounced", 3, 3)
    assert _rules(made) == [("nobody gets a message before it is published", 1)]


def test_messages_of_identities_that_are_no_node_are_kept_apart() -> None:
    made = recorder(events=PubsubTrace(io.BytesIO(), [b"id"] * 4))
    made.delivered(3, TOPIC, b"sybil", -1, -1)
    assert _rules(made) == []
    assert made.ledger.deliveries == 1
    assert hops_of(made).tolist() == []
    assert all(check.holds for check in judge(made) if "in calm reach" in check.name)


def test_a_message_id_of_an_honest_node_is_used_once() -> None:
    made = recorder(honest=lambda node: node != 3)
    made.published(0, TOPIC, b"id", 200)
    made.published(0, TOPIC, b"id", 200)
    made.published(3, TOPIC, b"id", 200)
    assert _rules(made) == [("a message id is used once", 0)]
    assert len(made.ledger) == 1


def test_models_of_honest_nodes_must_agree() -> None:
    made = recorder(honest=lambda node: node != 3)
    finish_round(made, 0, 1)
    finish_round(made, 3, 1, digest=b"poisoned")
    finish_round(made, 1, 2, digest=b"later")
    assert _rules(made) == []
    finish_round(made, 1, 1, digest=b"other")
    assert _rules(made) == [("honest nodes agree on the model of every round", 1)]
    assert made.rounds.of("digits")[0].reports == 2


def test_accusations_between_honest_nodes_are_violations() -> None:
    made = recorder(honest=lambda node: node != 3)
    made.accused(3, 0, "signature")
    made.accused(0, 3, "signature")
    assert _rules(made) == []
    made.accused(0, 1, "size")
    assert _rules(made) == [("no honest node accuses another", 0)]
    assert made.accusations == {"signature": 2, "size": 1}


def test_a_node_that_lost_its_disk_may_commit_itself_again_and_nothing_else() -> None:
    made = recorder()
    made.lost_disk(1)
    made.accused(0, 1, "twice")
    made.accused(0, 1, "commitment")
    assert not made.violations
    made.accused(0, 1, "equivocation")
    made.accused(1, 0, "twice")
    assert made.violations.counts["no honest node accuses another"] == 2


def test_an_escaped_exception_is_a_violation_of_anybody() -> None:
    made = recorder(honest=lambda node: False)
    made.failed(2, ValueError("boom"))
    (violation,) = made.violations.first
    assert str(violation) == "ValueError: boom, at node 2 after 0.000 s"


def test_a_mesh_may_be_too_large_for_a_few_heartbeats() -> None:
    made = recorder()
    large = rung(Still(RING, {0: range(13), 1: range(12)}))
    for second in range(4):
        made.heap.now = float(second)
        made.sample(large)
    made.heap.now = 4.0
    made.sample(rung(Still(RING)))
    for second in range(5, 12):
        assert _rules(made) == [] or second > 9
        made.heap.now = float(second)
        made.sample(large)
    assert _rules(made) == [("a mesh above its bound is pruned", 0)]
    assert list(made.samples.mesh.high) == [13] * 4 + [0] + [13] * 7


def test_only_so_many_violations_are_kept_and_all_are_counted() -> None:
    made = recorder()
    for _ in range(1500):
        made.failed(0, ValueError())
    assert len(made.violations.first) == 1000
    assert len(made.violations) == 1500


def test_samples_and_the_end_have_connections_and_bytes() -> None:
    made = recorder()
    still = Still(RING, {0: (1, 2)})
    made.heap.now = 100.0
    made.finish(rung(still), still)
    assert list(made.samples.degree.last) == [2, 2, 2, 2]
    assert list(made.samples.edges) == [0, 1, 0, 3, 1, 2, 2, 3]
    figures = figures_of(made)
    assert figures["bytes_sent"] == 400
    assert figures["bytes_per_peer_second"] == 1.0
    assert figures["connections_median"] == 2
    assert figures["mesh_median"] == 0


def test_meshes_count_where_the_node_is_subscribed() -> None:
    made = recorder()
    made.left(2, TOPIC)
    made.sample(rung(Still(RING, dict.fromkeys(range(4), (0, 1, 2)))))
    assert list(made.samples.mesh.last) == [3, 3, 3]


def test_a_delivery_costs_at_most_twenty_bytes() -> None:
    made = recorder(500)
    tracemalloc.start()
    for number in range(100):
        made.published(0, TOPIC, bytes([number]), 200)
        for node in range(1, 500):
            made.delivered(node, TOPIC, bytes([number]), 0, 0)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 20 * made.ledger.deliveries


def test_restarts_and_subscriptions_are_known() -> None:
    made = recorder()
    made.heap.now = 3.0
    made.left(2, TOPIC)
    made.left(2, "elsewhere")
    made.crashed(1)
    made.heap.now = 4.0
    made.started(1)
    made.crashed(3)
    assert made.presence.listening_since(TOPIC, 3.5).tolist() == [True, False, False, False]
    assert made.presence.listening_since("nobody's", 3.5).tolist() == [False] * 4
    assert made.presence.restarts == 1
    assert made.presence.running() == 3


def test_figures_tell_of_every_load() -> None:
    made = recorder(task=(TaskLoad(name="digits", members=0, rounds=2),))
    made.published(0, TOPIC, b"id", 200)
    made.heap.now = 0.05
    made.delivered(1, TOPIC, b"id", 0, 0)
    made.duplicated(1, 3)
    made.rejected(1, 2)
    made.waiting(1, "disk full")
    made.connected(0, 1)
    made.disconnected(0, 1)
    look_up(made, 0, 1, seconds=0.25)
    look_up(made, 0, 2, ok=False, hops=9)
    look_up(made, 0, 3, kind="find", result=b"", hops=1 << 20)
    made.entered(0, "digits")
    finish_round(made, 0, 1, measured={"accuracy": 0.5, "loss": 1.0})
    finish_round(made, 0, 2, measured={"accuracy": None}, skipped=True)
    figures = figures_of(made)
    assert figures["latency_p99_ms"] == 50.0
    assert figures["duplicates_per_delivery"] == 3.0
    assert (figures["gets"], figures["gets_ok_share"], figures["get_p99_ms"]) == (2, 0.5, 250.0)
    assert (figures["get_queries_p50"], figures["get_queries_p99"], figures["find_queries_p50"]) == (
        3,
        9,
        65535,
    )
    assert (figures["digits_accuracy"], figures["digits_loss"]) == (0.5, 1.0)
    assert (figures["digits_rounds"], figures["digits_rounds_skipped"]) == (2, 1)
    assert made.waits == {"disk full": 1}


def test_figures_of_a_run_in_which_nothing_happened() -> None:
    made = recorder(running=False, task=(TaskLoad(name="digits", members=0),))
    made.entered(0, "digits")
    assert latencies_of(made).tolist() == hops_of(made).tolist() == []
    assert figures_of(made)["digits_accuracy"] is None
    made.published(0, TOPIC, b"id", 1)
    assert figures_of(made)["deliveries"] == 0


def test_percentiles_are_of_the_nearest_rank() -> None:
    assert [percentile([1.0, 2.0, 3.0, 4.0], share) for share in (0.0, 0.25, 0.5, 0.51, 1.0)] == [
        1,
        1,
        2,
        3,
        4,
    ]


def test_results_leave_times_and_ids_out() -> None:
    found = []
    for start, prefix in ((1.0, b"a"), (2.0, b"b")):
        made = recorder()
        made.heap.now = start
        for number in range(2):
            made.published(1, TOPIC, prefix + bytes([number]), 200)
        made.delivered(0, TOPIC, prefix + b"\0", 1, 1)
        made.delivered(3, TOPIC, prefix + b"\1", 1, 1)
        look_up(made, 0, 7, seconds=start)
        look_up(made, 0, 5, kind="find", result=prefix)
        finish_round(made, 0, 1, measured={"accuracy": start})
        made.finished_task(0, "digits")
        found.append(made)
    one, other = (results_of(made) for made in found)
    assert one == other
    assert hash_of(one) == hash_of(other)
    assert one["messages"] == {"sim/1/0": [200, "80"], "sim/1/1": [200, "10"]}
    assert list(one["operations"]) == ["5", "7"]
    assert one["finished"] == {"digits": [0]}
    assert found[0].trace_hash != found[1].trace_hash


def test_results_differ_when_somebody_else_got_a_message() -> None:
    hashes = []
    for node in (2, 3):
        made = recorder()
        made.published(1, TOPIC, b"id", 200)
        made.delivered(node, TOPIC, b"id", 1, 1)
        hashes.append(hash_of(results_of(made)))
    assert hashes[0] != hashes[1]


def test_every_event_changes_the_trace() -> None:
    made, seen = recorder(), list[str]()
    for call in (
        lambda: made.connected(0, 1),
        lambda: made.disconnected(0, 1),
        lambda: made.grafted(0, 1, TOPIC),
        lambda: made.pruned(0, 1, TOPIC),
        lambda: made.left(0, TOPIC),
        lambda: made.crashed(0),
        lambda: made.published(0, TOPIC, b"id", 1),
        lambda: made.delivered(1, TOPIC, b"id", 0, 0),
        lambda: made.waiting(0, "disk"),
        lambda: made.finished_task(0, "digits"),
    ):
        call()
        seen.append(made.trace_hash)
    assert len(set(seen)) == 10


def test_the_file_for_go_tools_has_what_routers_did() -> None:
    out = io.BytesIO()
    made = recorder(2, running=False, events=PubsubTrace(out, [b"zero", b"one"]))
    made.started(0)
    made.joined(0, TOPIC)
    made.connected(0, 1)
    made.grafted(0, 1, TOPIC)
    made.heap.now = 1.5
    made.published(0, TOPIC, b"id", 200)
    made.delivered(1, TOPIC, b"id", 0, 0)
    made.pruned(0, 1, TOPIC)
    made.disconnected(0, 1)
    made.left(0, TOPIC)
    assert out.getvalue() == b""
    still = Still({0: (), 1: ()})
    made.finish(rung(still), still)
    events = list(decode_events(out.getvalue()))
    assert [(kind, peer) for kind, peer, _, _ in events] == [
        ("join", b"zero"),
        ("add_peer", b"zero"),
        ("graft", b"zero"),
        ("publish_message", b"zero"),
        ("deliver_message", b"one"),
        ("prune", b"zero"),
        ("remove_peer", b"zero"),
        ("leave", b"zero"),
    ]
    assert events[4][2:] == (
        1_700_000_001_500_000_000,
        {"message_id": b"id", "topic": TOPIC, "received_from": b"zero"},
    )


def test_scores_are_looked_at_every_five_seconds_as_honest_nodes_see_them() -> None:
    adversary = Adversary(role="eclipser", who=Selection(nodes=(3,)))
    made = recorder(honest=lambda node: node != 3, adversaries=(adversary,))
    scores = {0: {1: 0.5, 2: -1.0, 3: -9.0}, 1: {0: 0.25}, 3: {0: -99.0}}
    for second in range(8):
        made.heap.now = float(second)
        made.sample(rung(Still(RING, scores=scores if second else {})))
    assert list(made.scores.times) == [0.0, 5.0]
    spread = made.scores.honest
    assert [spread.low[1], spread.fifth[1], spread.median[1], spread.high[1]] == [-1.0, -1.0, 0.25, 0.5]
    assert made.scores.adversaries.median[1] == -9.0
    made.published(0, TOPIC, b"id", 1)
    figures = figures_of(made)
    assert figures["honest_score_lowest"] == -1.0
    assert figures["adversary_score_median"] == -9.0


def test_an_honest_node_that_graylists_another_is_a_violation() -> None:
    made = recorder(honest=lambda node: node != 3)
    made.graylisted(0, 3)
    made.graylisted(3, 0)
    assert _rules(made) == []
    assert made.graylistings == 1
    made.graylisted(0, 1)
    assert _rules(made) == [("no honest node graylists another", 0)]


def test_a_mesh_that_is_pruned_and_filled_again_is_no_violation() -> None:
    made = recorder()
    for second in range(12):
        made.heap.now = float(second)
        made.sample(rung(Still(RING, {0: range(second, second + 13)})))
    assert _rules(made) == []
