"""What a scenario says, planned on the heap: who comes, who dials whom, the work, and what goes wrong."""

from sim.director.director import Director
from sim.director.selection import adversaries_of, members_of
from sim.director.trouble import Interval, Trouble

__all__ = ["Director", "Interval", "Trouble", "adversaries_of", "members_of"]
