import pytest

from tests.discovery.simulation import Network


def network_of(count: int, seed: int, within: float) -> Network:
    """`count` peers that start at random times within so many seconds."""
    network = Network(seed)
    for number in range(count):
        network.after(network.rng.uniform(0, within), lambda number=number: network.start(number))
    return network


@pytest.mark.parametrize(("count", "seed"), [(2, 1), (12, 2), (30, 3)])
def test_all_peers_that_know_one_address_are_connected_within_a_second(count, seed):
    network = network_of(count, seed, within=0.0)
    network.run(until=1.0)
    assert network.missing() == 0


def test_64_peers_that_know_one_address_are_all_connected_within_seconds():
    network = network_of(64, seed=1, within=1.0)
    network.run(until=5.0)
    assert len(network.nodes) == 64
    assert network.missing() == 0


def test_newcomers_meet_everybody_although_the_bootstrap_peer_died_in_between():
    network = network_of(12, seed=4, within=0.0)
    network.run(until=3.0)
    network.kill(0)
    network.run(until=20.0)
    assert network.missing() == 0
    assert len(network.nodes) == 11


def test_a_bootstrap_peer_that_starts_last_brings_all_together():
    network = Network(seed=5)
    for number in range(1, 10):
        network.start(number)
    network.run(until=30.0)
    assert network.missing() == 9 * 8
    network.start(0)
    network.run(until=90.0)
    assert network.missing() == 0


def test_a_bootstrap_peer_that_comes_back_knows_everybody_again():
    network = network_of(12, seed=6, within=0.0)
    network.run(until=40.0)
    network.kill(0)
    network.run(until=60.0)
    network.start(0)
    network.run(until=130.0)
    assert network.missing() == 0


def test_a_killed_peer_that_comes_back_meets_everybody():
    network = network_of(20, seed=7, within=0.0)
    network.run(until=40.0)
    network.kill(7)
    network.run(until=41.0)
    network.start(7)
    network.run(until=44.0)
    assert network.missing() == 0


def test_the_same_seed_gives_the_same_run():
    def run() -> list[list[str]]:
        network = network_of(15, seed=8, within=1.0)
        network.run(until=5.0)
        return [[str(other) for other in node.connected] for node in network.nodes.values()]

    assert run() == run()
