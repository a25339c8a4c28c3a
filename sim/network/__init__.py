"""The network between simulated nodes: latency, bandwidth, loss, NATs, clocks, and what goes wrong."""

from sim.network.network import Network

__all__ = ["Network"]
