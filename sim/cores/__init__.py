"""The rung `cores`: the shipped protocol machines alone, from one event heap."""

from sim.cores.rung import CoresRung

__all__ = ["CoresRung"]
