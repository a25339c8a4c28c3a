from __future__ import annotations

import pytest

from p2p.errors import InvalidInput
from p2p.gossipsub.params import GossipsubParams


def test_the_defaults_are_consistent() -> None:
    assert GossipsubParams().mesh_size == 6


@pytest.mark.parametrize(
    "settings",
    [
        {"mesh_low": 7},
        {"mesh_low": 0},
        {"mesh_high": 5},
        {"mesh_outbound": 4},
        {"mesh_outbound": -1},
        {"mesh_low": 2, "mesh_outbound": 2},
        {"history_gossip": 6},
        {"history_gossip": 0},
        {"heartbeat_interval": 0.0},
        {"max_message_size": 1 << 20},
        {"max_message_size": 0},
    ],
)
def test_contradicting_figures_are_refused(settings: dict[str, int]) -> None:
    with pytest.raises(InvalidInput):
        GossipsubParams(**settings)  # type: ignore[arg-type]
