"""Peers that are not honest: they run our own machines with one rule changed."""

from sim.adversaries.roles import HONEST, ROLES, Role, role

__all__ = ["HONEST", "ROLES", "Role", "role"]
