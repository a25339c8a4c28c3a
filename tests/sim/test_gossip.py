"""The gossip scenario: its checks hold, a seed decides the run, and a broken router is noticed."""

from __future__ import annotations

from random import Random

import pytest

from p2p.gossipsub.events import Deliver
from p2p.gossipsub.router import Router
from sim.gossip import GossipSettings, run_gossip
from sim.network import LinkModel, Partition
from sim.report import Result

TIES = LinkModel(latency=0.05, spread=0.0, jitter=0.0)  # every event ties with others


def run(
    peers: int = 20, seed: int = 1, links: LinkModel | None = None, partition: Partition | None = None
) -> Result:
    settings = GossipSettings(
        peers=peers, seed=seed, rate=5.0, seconds=2.0, links=links or LinkModel(), partition=partition
    )
    return run_gossip(settings, Random(seed), lambda step: None)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("links", [LinkModel(), TIES, LinkModel(loss=0.3)])
def test_every_message_reaches_every_peer(seed: int, links: LinkModel) -> None:
    result = run(seed=seed, links=links)
    assert result.passed, result.checks
    assert result.figures["deliveries"] == 10 * 19


def test_a_partition_delays_messages_and_loses_none() -> None:
    result = run(partition=Partition(start=5.5, end=8.5, border=10))
    assert result.passed, result.checks
    assert isinstance(result.figures["latency_max_ms"], float)
    assert result.figures["latency_max_ms"] > 1000


def test_two_peers_are_enough() -> None:
    assert run(peers=2).passed


def test_the_seed_decides_the_run_even_when_everything_ties() -> None:
    assert run(links=TIES).trace_hash == run(links=TIES).trace_hash
    assert run(links=TIES).trace_hash != run(seed=2, links=TIES).trace_hash


def test_progress_is_told_every_second() -> None:
    steps: list[object] = []
    result = run_gossip(GossipSettings(peers=3, seed=1, rate=1, seconds=1), Random(1), steps.append)
    assert len(steps) == result.virtual_seconds == 16


def test_a_router_that_does_not_forward_fails_the_check(monkeypatch: pytest.MonkeyPatch) -> None:
    handle = Router.handle
    monkeypatch.setattr(
        Router,
        "handle",
        lambda self, event, now: [a for a in handle(self, event, now) if not isinstance(a, Deliver)],
    )
    result = run()
    assert [check.name for check in result.checks if not check.holds] == ["every message reaches every peer"]
