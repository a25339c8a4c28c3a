"""Listeners that come with the system: what follows the tasks of a peer for its person."""
