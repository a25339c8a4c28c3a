"""The rungs `full` and `light`: the shipped peers, on trio, over a virtual clock and a modelled network."""

from sim.live.rung import LiveRung

__all__ = ["LiveRung"]
