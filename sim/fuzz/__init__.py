"""Swarm testing: plans of faults drawn from a seed, and made smaller when one is found that fails."""
